"""Golden sets out of public question sets: SQuAD (Rajpurkar et al. 2016, 2018) and BEIR (Thakur et al. 2021).

Both name what answers a question by ids of their own. A gold span is words, so the words are taken from the documents
of the set: with SQuAD the sentence that holds the answer, with BEIR the document, or the part of a long one that shares
most words with the question.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rag_platform.errors import ConfigurationError
from rag_platform.evaluation.golden import GoldenCase, GoldSpan
from rag_platform.identity import digest
from rag_platform.query import sentences

T = TypeVar("T")

MAX_QUOTE_CHARS = 600
"""Of a longer document, this much is quoted."""
MAX_SPANS = 5
"""Of a question with more relevant documents, the most relevant ones are taken."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Imported:
    """What was read.

    Attributes:
        cases: as many as were wanted.
        documents: uri → text, of the whole set: questions are easy when only what answers them is indexed.
        skipped: why questions were left out → how many.
    """

    cases: tuple[GoldenCase, ...]
    documents: Mapping[str, str]
    skipped: Mapping[str, int] = field(default_factory=dict)


def read(path: Path, *, limit: int | None = None, seed: int = 0) -> Imported:
    """Read a SQuAD file or a BEIR folder, whichever ``path`` is.

    Args:
        limit: at most so many questions, chosen by ``seed`` and kept in the order of the set.

    Raises:
        ConfigurationError: it is neither.
    """
    if path.is_dir():
        return read_beir(path, limit=limit, seed=seed)
    return read_squad(path, limit=limit, seed=seed)


def read_squad(path: Path, *, limit: int | None = None, seed: int = 0) -> Imported:
    """Read SQuAD 1.1 or 2.0. An article becomes a document; a question that its paragraph does not answer
    (``is_impossible``) must be refused.

    Raises:
        ConfigurationError: the file is something else, or an answer does not stand in its paragraph.
    """
    try:
        articles = json.loads(path.read_text(encoding="utf-8"))["data"]
        titled = [(str(a["title"]), [(str(p["context"]), list(p["qas"])) for p in a["paragraphs"]]) for a in articles]
    except FileNotFoundError as e:
        raise ConfigurationError(f"{path} does not exist") from e
    except (ValueError, KeyError, TypeError) as e:
        raise ConfigurationError(
            f'{path} is not SQuAD: {{"data": [{{"title", "paragraphs": [{{"context", "qas"}}]}}]}}; a BEIR set is a '
            "folder with corpus.jsonl, queries.jsonl and qrels"
        ) from e
    uris = _uris(title for title, _ in titled)
    documents = {uris[title]: "\n\n".join(context for context, _ in paragraphs) + "\n" for title, paragraphs in titled}
    asked = [(uris[title], context, qa) for title, paragraphs in titled for context, qas in paragraphs for qa in qas]
    chosen = _sample(asked, limit, seed)
    cases = _distinct(_squad_case(path, uri, context, qa) for uri, context, qa in chosen)
    return Imported(cases, documents, _count("asked twice", len(chosen) - len(cases)))


def _squad_case(path: Path, uri: str, context: str, qa: Mapping[str, Any]) -> GoldenCase:
    try:
        case_id, question = str(qa["id"]), str(qa["question"]).strip()
        if qa.get("is_impossible"):
            return GoldenCase(case_id, question, None, (), ("squad",), must_refuse=True)
        answer = str(qa["answers"][0]["text"])
        start = int(qa["answers"][0]["answer_start"])
    except (KeyError, IndexError, TypeError, ValueError) as e:
        shown = qa.get("id", "without an id") if isinstance(qa, dict) else "that is no object"
        raise ConfigurationError(f"{path}: question {shown} has no id, question or answer") from e
    if context[start : start + len(answer)] != answer:
        raise ConfigurationError(f"{path}: the answer of question {case_id} does not stand where answer_start says")
    touched = [(s, e) for s, e in sentences.split(context) if s < start + len(answer) and e > start]
    quote = context[touched[0][0] : touched[-1][1]] if touched else answer
    return GoldenCase(case_id, question, answer.strip(), (GoldSpan(uri, quote.strip()),), ("squad",))


def read_beir(folder: Path, *, limit: int | None = None, seed: int = 0) -> Imported:
    """Read a BEIR folder: ``corpus.jsonl`` and ``queries.jsonl`` (``_id`` or ``id``, ``text``, in the corpus also
    ``title``), and ``qrels.tsv`` or ``qrels/test.tsv`` (query id, document id, relevance). With ``answers.jsonl``
    (``id``, ``answers``) the cases have a reference answer, and quote what holds it.

    Raises:
        ConfigurationError: a file is missing, or is something else.
    """
    corpus = {_id(row): row for row in _jsonl(folder / "corpus.jsonl")}
    queries = {_id(row): str(row.get("text", "")).strip() for row in _jsonl(folder / "queries.jsonl")}
    answers: dict[str, Sequence[str]] = {}
    if (folder / "answers.jsonl").is_file():
        answers = {_id(row): row.get("answers") or () for row in _jsonl(folder / "answers.jsonl")}
    relevant = _qrels(folder)
    uris = _uris(corpus)
    documents = {uris[key]: _document(row) for key, row in corpus.items()}
    judged = [key for key in queries if relevant.get(key)]
    known = [key for key in judged if any(d in corpus for d in relevant[key])]
    cases = _distinct(
        _beir_case(key, queries[key], relevant[key], corpus, uris, answers.get(key, ()))
        for key in _sample(known, limit, seed)
    )
    skipped = _count("without a relevant document", len(queries) - len(judged))
    skipped |= _count("whose documents are not in corpus.jsonl", len(judged) - len(known))
    return Imported(cases, documents, skipped)


def _beir_case(
    key: str,
    question: str,
    relevant: Mapping[str, int],
    corpus: Mapping[str, Mapping[str, Any]],
    uris: Mapping[str, str],
    answers: Sequence[str],
) -> GoldenCase:
    best = sorted((d for d in relevant if d in corpus), key=lambda d: (-relevant[d], d))[:MAX_SPANS]
    answer = next((str(a).strip() for a in answers if str(a).strip()), None)
    quoted = ((d, _quote(str(corpus[d].get("text", "")), question, answer)) for d in best)
    spans = tuple(GoldSpan(uris[d], quote) for d, quote in quoted if quote)
    return GoldenCase(key, question, answer, spans, ("beir",))


def _quote(text: str, question: str, answer: str | None) -> str:
    """Return the sentences of ``text`` that hold the answer; else all of it, or of a long one at most
    ``MAX_QUOTE_CHARS`` around the sentence that shares most words with the question (a word counts less the more
    sentences hold it)."""
    spans = sentences.split(text)
    if not spans:
        return ""
    at = text.find(answer) if answer else -1
    if answer and at >= 0:
        touched = [i for i, (s, e) in enumerate(spans) if s < at + len(answer) and e > at]
        return text[spans[touched[0]][0] : spans[touched[-1]][1]] if touched else answer
    if len(text.strip()) <= MAX_QUOTE_CHARS:
        return text.strip()
    words = [set(_WORD.findall(text[s:e].lower())) for s, e in spans]
    held = Counter(word for sentence in words for word in sentence)
    asked = set(_WORD.findall(question.lower()))
    first = last = max(range(len(spans)), key=lambda i: (sum(1 / held[w] for w in words[i] & asked), -i))
    while True:  # grow while it fits, behind first: what follows a sentence explains it
        if last + 1 < len(spans) and spans[last + 1][1] - spans[first][0] <= MAX_QUOTE_CHARS:
            last += 1
        elif first > 0 and spans[last][1] - spans[first - 1][0] <= MAX_QUOTE_CHARS:
            first -= 1
        else:
            return text[spans[first][0] : spans[last][1]]


def _qrels(folder: Path) -> dict[str, dict[str, int]]:
    path = next((p for p in (folder / "qrels.tsv", folder / "qrels" / "test.tsv") if p.is_file()), None)
    if path is None:
        raise ConfigurationError(f"{folder} has neither qrels.tsv nor qrels/test.tsv")
    relevant: dict[str, dict[str, int]] = {}
    with path.open(encoding="utf-8", newline="") as lines:
        for number, row in enumerate(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), 1):
            if not row:
                continue
            try:
                query, document, score = row[0], row[-2], int(row[-1])  # TREC has a fourth column in between
            except (IndexError, ValueError) as e:
                if number == 1:
                    continue  # names of the columns
                raise ConfigurationError(f"{path}: line {number} is not: query id, document id, relevance") from e
            if score > 0:
                relevant.setdefault(query, {})[document] = score
    return relevant


def _jsonl(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise ConfigurationError(f"{path} does not exist; a BEIR set has corpus.jsonl, queries.jsonl and qrels")
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                _id(row)
            except (ValueError, KeyError, TypeError) as e:
                raise ConfigurationError(f'{path}: line {number} is not an object with "_id" or "id"') from e
            rows.append(row)
    return rows


def _id(row: Mapping[str, Any]) -> str:
    return str(row["_id"] if "_id" in row else row["id"])


def _document(row: Mapping[str, Any]) -> str:
    title, text = str(row.get("title") or "").strip(), str(row.get("text") or "").strip()
    return f"{title}\n\n{text}\n" if title else f"{text}\n"


def _uris(names: Iterable[str]) -> dict[str, str]:
    """Return name → a file name, equal for equal names and different for different ones."""
    uris: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        if name in uris:
            continue
        safe = re.sub(r"[^\w.-]+", "_", name).strip("._")[:100] or "document"
        uri = f"{safe}.txt"
        if uri.lower() in taken:
            uri = f"{safe}-{digest('uri', name)[:8]}.txt"
        taken.add(uri.lower())
        uris[name] = uri
    return uris


def _sample(items: Sequence[T], limit: int | None, seed: int) -> list[T]:
    if limit is None or limit >= len(items):
        return list(items)
    return [items[i] for i in sorted(random.Random(seed).sample(range(len(items)), limit))]


def _distinct(cases: Iterable[GoldenCase]) -> tuple[GoldenCase, ...]:
    return tuple({case.case_id: case for case in cases if case.question and (case.spans or case.must_refuse)}.values())


def _count(reason: str, number: int) -> dict[str, int]:
    return {reason: number} if number else {}
