"""Golden sets out of SQuAD and BEIR."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rag_platform.errors import ConfigurationError
from rag_platform.evaluation.imports import MAX_QUOTE_CHARS, MAX_SPANS, read, read_beir, read_squad
from rag_platform.evaluation.spans import squeeze

OIL = "The crisis began in October 1973. By March 1974 the price had risen to nearly $12, e.g. in the U.S. market. It was long."
RIFT = "The crisis created a rift within NATO. Japan stood aside."


def squad_file(path: Path, *questions: Mapping[str, Any]) -> Path:
    """Write a SQuAD 2.0 file with one article of two paragraphs."""
    articles = [
        {"title": "1973 oil/crisis", "paragraphs": [{"context": OIL, "qas": questions}, {"context": RIFT, "qas": []}]}
    ]
    path.write_text(json.dumps({"version": "v2.0", "data": articles}))
    return path


def qa(key: str, question: str, answer: str, start: int | None = None, **more: Any) -> dict[str, Any]:
    at = OIL.index(answer) if start is None else start
    return {"id": key, "question": question, "answers": [{"text": answer, "answer_start": at}], **more}


def beir_folder(folder: Path, **files: str) -> Path:
    """Write a BEIR folder; ``files`` replace or add by name, an empty text leaves one out."""
    long = " ".join(f"Sentence {n} is about nothing in particular." for n in range(40))
    corpus = [
        {"_id": "d1", "title": "Cranes", "text": "A crane lifts 40 tons."},
        {"_id": "d/2", "title": "", "text": f"{long} The impeller of the bilge pump is replaced each winter. {long}"},
        {"_id": "d:2", "title": "Bees", "text": "Bees live in hives."},
    ]
    queries = [
        {"_id": "q1", "text": "How much does a crane lift?"},
        {"_id": "q2", "text": "When is the impeller of a bilge pump replaced?"},
        {"_id": "q3", "text": "Is there anything?"},
        {"_id": "q4", "text": "Is it gone?"},
    ]
    default = {
        "corpus.jsonl": "".join(json.dumps(row) + "\n" for row in corpus),
        "queries.jsonl": "".join(json.dumps(row) + "\n" for row in queries),
        "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td:2\t0\nq2\td/2\t2\nq2\td:2\t1\nq4\tlost\t1\n",
    }
    for name, text in (default | files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text:
            path.write_text(text)
    return folder


def test_squad_answers_are_quoted_by_their_sentence(tmp_path: Path) -> None:
    """The span is the sentence that holds the answer (two, when it runs across them), in the article as one document."""
    imported = read(
        squad_file(
            tmp_path / "dev.json",
            qa("a", "What was the price?", "nearly $12"),
            qa("b", "When?", "1973. By March 1974"),
            qa("a", "What was the price?", "nearly $12"),
        )
    )
    price, when = imported.cases
    [uri] = imported.documents
    assert uri == "1973_oil_crisis.txt" and imported.documents[uri] == f"{OIL}\n\n{RIFT}\n"
    assert (price.case_id, price.question, price.answer) == ("a", "What was the price?", "nearly $12")
    assert [(s.uri, s.quote) for s in price.spans] == [
        (uri, "By March 1974 the price had risen to nearly $12, e.g. in the U.S. market.")
    ]
    assert when.spans[0].quote == OIL.removesuffix(" It was long.")
    assert imported.skipped == {"asked twice": 1}


def test_squad_questions_without_an_answer_must_be_refused(tmp_path: Path) -> None:
    """``is_impossible`` of SQuAD 2.0 becomes a case that must be refused."""
    impossible = {"id": "x", "question": "Who won?", "answers": [], "is_impossible": True}
    [case] = read(squad_file(tmp_path / "dev.json", impossible)).cases
    assert (case.must_refuse, case.answer, case.spans) == (True, None, ())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "does not exist"),
        ("not json", "is not SQuAD"),
        ('{"data": [{"title": "x"}]}', "is not SQuAD"),
        ('{"rows": []}', "a BEIR set is a folder"),
        (json.dumps({"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": [{"id": "k"}]}]}]}), "question k"),
        (json.dumps({"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": ["k"]}]}]}), "is no object"),
    ],
)
def test_what_is_not_squad_is_refused(text: str | None, says: str, tmp_path: Path) -> None:
    """The message says which file, which question, and what was expected."""
    path = tmp_path / "dev.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        read_squad(path)


def test_a_squad_answer_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """An offset that points elsewhere is an error of the set, not a span to be guessed."""
    with pytest.raises(ConfigurationError, match="question a does not stand where answer_start says"):
        read_squad(squad_file(tmp_path / "dev.json", qa("a", "?", "nearly $12", start=3)))


def test_beir_relevance_becomes_spans(tmp_path: Path) -> None:
    """Relevant documents are spans, best first: a short one as a whole, of a long one what shares the question's words.
    Questions that nothing in the corpus answers are left out and counted."""
    imported = read(beir_folder(tmp_path))
    crane, pump = imported.cases
    assert [s.quote for s in crane.spans] == ["A crane lifts 40 tons."]
    assert (crane.answer, crane.must_refuse) == (None, False)
    long, bees = pump.spans
    assert "The impeller of the bilge pump is replaced each winter." in long.quote
    assert len(long.quote) <= MAX_QUOTE_CHARS and bees.quote == "Bees live in hives."
    assert imported.documents[long.uri].find(long.quote) >= 0
    assert imported.documents[crane.spans[0].uri] == "Cranes\n\nA crane lifts 40 tons.\n"
    assert len(imported.documents) == 3, "ids that differ in a mark only are two files"
    assert imported.skipped == {"without a relevant document": 1, "whose documents are not in corpus.jsonl": 1}


def test_beir_answers_choose_the_sentence(tmp_path: Path) -> None:
    """With answers.jsonl a case has a reference answer, and quotes the sentence that holds it."""
    answers = json.dumps({"id": "q2", "answers": ["", "each winter"]}) + "\n"
    cases = {c.case_id: c for c in read_beir(beir_folder(tmp_path, **{"answers.jsonl": answers})).cases}
    assert cases["q2"].answer == "each winter" and cases["q1"].answer is None
    assert cases["q2"].spans[0].quote == "The impeller of the bilge pump is replaced each winter."


def test_beir_spans_are_bounded(tmp_path: Path) -> None:
    """Of very many relevant documents the most relevant are taken, ties by id."""
    corpus = "".join(json.dumps({"id": f"d{n}", "text": f"Text {n}."}) + "\n" for n in range(9))
    qrels = "".join(f"q1\t0\td{n}\t{1 + (n == 8)}\n" for n in range(9))  # TREC has four columns
    files = {"corpus.jsonl": corpus, "qrels.tsv": qrels, "qrels/test.tsv": ""}
    [case] = read_beir(beir_folder(tmp_path, **files)).cases
    assert [s.quote for s in case.spans] == ["Text 8.", *(f"Text {n}." for n in range(MAX_SPANS - 1))]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"corpus.jsonl": ""}, "corpus.jsonl does not exist"),
        ({"qrels/test.tsv": ""}, "neither qrels.tsv nor qrels/test.tsv"),
        ({"queries.jsonl": '{"_id": "q"}\nhello\n'}, "line 2 is not an object"),
        ({"queries.jsonl": '{"text": "q"}\n'}, 'line 1 is not an object with "_id" or "id"'),
        ({"qrels/test.tsv": "q1\td1\t1\nq1 d2 1\n"}, "line 2 is not: query id, document id, relevance"),
    ],
)
def test_what_is_not_beir_is_refused(files: dict[str, str], says: str, tmp_path: Path) -> None:
    """The message says which file and line, and what was expected."""
    with pytest.raises(ConfigurationError, match=says):
        read_beir(beir_folder(tmp_path, **files))


def test_a_seed_chooses_the_same_questions(tmp_path: Path) -> None:
    """A limited import is a random sample in the order of the set: equal for equal seeds."""
    path = squad_file(tmp_path / "dev.json", *(qa(f"k{n:02}", f"Question {n}?", "October 1973") for n in range(40)))
    one, again, other = (read(path, limit=10, seed=s).cases for s in (1, 1, 2))
    ids = [c.case_id for c in one]
    assert one == again and ids == sorted(ids) and len(ids) == 10
    assert ids != [c.case_id for c in other]
    assert len(read(path, limit=99).cases) == 40


def test_the_real_squad_is_read_whole(shared_data: Path) -> None:
    """Every question of SQuAD 1.1's development set becomes a case whose quote stands in its document and holds the
    answer, in both forms of the set."""
    path = shared_data / "squad" / "dev-v1.1.json"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    for imported in (read(path), read(shared_data / "squad", limit=1000)):
        squeezed = {uri: squeeze(text) for uri, text in imported.documents.items()}
        assert len(imported.cases) in (10_570, 1000)
        for case in imported.cases:
            [span] = case.spans
            assert squeeze(span.quote) in squeezed[span.uri]
            assert case.answer is not None and squeeze(case.answer) in squeeze(span.quote)
