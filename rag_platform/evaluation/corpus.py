"""Look for gold spans in the corpus as it is stored: the parsed text of every live document.

A golden set goes stale silently: a file is renamed, a sentence is rewritten, a permission is taken away, and from then
on a good release is called bad. So the quotes of a set are looked up before it decides anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from rag_platform import telemetry
from rag_platform.evaluation.golden import GoldenCase, GoldSpan
from rag_platform.evaluation.spans import squeeze
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.documents import Document
from rag_platform.query import sentences
from rag_platform.records import PUBLIC_GROUP

State = Literal["found", "hidden", "moved", "gone"]

NEAREST_MIN_RATIO = 0.6
"""Likeness (``difflib``) from which a sentence is shown as what has become of a quote."""
_NEAREST_MAX_CHARS = 200_000
_WINDOWS_FROM = 200
_WINDOW = 16


@dataclass(frozen=True, slots=True)
class SpanFinding:
    """What became of one gold span.

    Attributes:
        state: found · hidden: it stands there, and the reader of the case may not read it · moved: it stands in
            another document, ``now`` · gone.
        detail: for people: what is wrong; for a quote that is gone, the sentence that is most like it.
    """

    case_id: str
    span: GoldSpan
    state: State
    detail: str = ""
    now: GoldSpan | None = None


def live_documents(bench: Workbench) -> list[Document]:
    """Return every live document, by source and uri."""
    found = [
        document
        for source in bench.ledger.sources.all()
        for document in bench.ledger.documents.of_source(source.spec.name).values()
        if document.live
    ]
    return sorted(found, key=lambda d: (d.source, d.uri))


def check_spans(bench: Workbench, cases: Sequence[GoldenCase]) -> list[SpanFinding]:
    """Look up every span of ``cases``, in their order. Only when a quote is not where it should be, the whole corpus is
    read.

    Raises:
        DependencyError: the object store has lost parsed text, or does not answer.
    """
    documents = live_documents(bench)
    wanted = {(span.uri, span.source) for case in cases for span in case.spans}
    named = [d for d in documents if (d.uri, None) in wanted or (d.uri, d.source) in wanted]
    texts = {document.document_id: text for document, text in parsed_texts(bench, named)}
    squeezed = {document_id: squeeze(text) for document_id, text in texts.items()}
    by_uri: dict[str, list[Document]] = {}
    for document in named:
        by_uri.setdefault(document.uri, []).append(document)

    found: list[SpanFinding | None] = []
    missing: set[str] = set()
    for case in cases:
        for span in case.spans:
            meant = [d for d in by_uri.get(span.uri, ()) if span.source in (None, d.source)]
            holding = [d for d in meant if squeeze(span.quote) in squeezed.get(d.document_id, "")]
            found.append(_standing(case, span, holding))
            if not holding:
                missing.add(squeeze(span.quote))
    elsewhere = _search(bench, documents, missing) if missing else {}
    numbered = ((case, span) for case in cases for span in case.spans)
    return [
        finding or _lost(case, span, elsewhere.get(squeeze(span.quote), []), documents, texts)
        for finding, (case, span) in zip(found, numbered, strict=True)
    ]


def parsed_texts(bench: Workbench, documents: Collection[Document]) -> Iterator[tuple[Document, str]]:
    """Stream the parsed text of documents, as the pipeline of the serving release reads them (before the first
    release: as that of the settings does). A document that was not parsed is left out.

    Raises:
        DependencyError: the object store has lost parsed text, or does not answer.
    """
    if not documents:
        return
    serving = bench.ledger.releases.serving()
    view = bench if serving is None else bench.of_release(serving)
    by_key: dict[str, list[Document]] = {}
    for document in documents:
        by_key.setdefault(view.pipeline.parse_key(document.content_hash, document.uri), []).append(document)
    for table in view.segments.read("parse", list(by_key), columns=("parse_key", "text")):
        for batch in table.to_batches(max_chunksize=16):
            for row in batch.to_pylist():
                for document in by_key.pop(row["parse_key"], ()):  # a key that two segments hold comes once
                    yield document, row["text"]


def may_read(case: GoldenCase, document: Document) -> bool:
    """Whether the reader of a case may read a document."""
    allowed = set(document.metadata["acl"]) & {*case.groups, PUBLIC_GROUP}
    return bool(allowed) and document.metadata["tenant"] == case.tenant


def _standing(case: GoldenCase, span: GoldSpan, holding: Sequence[Document]) -> SpanFinding | None:
    if not holding:
        return None
    if any(may_read(case, d) for d in holding):
        return SpanFinding(case.case_id, span, "found")
    return SpanFinding(case.case_id, span, "hidden", _hidden(case, holding[0]))


def _hidden(case: GoldenCase, document: Document) -> str:
    owner, groups = document.metadata["tenant"], ", ".join(document.metadata["acl"]) or "nobody"
    asks = f"a reader of tenant {case.tenant} in {', '.join(case.groups)}"
    return f"it is readable for {groups} of tenant {owner} only, and the case is asked by {asks}"


def _search(bench: Workbench, documents: Sequence[Document], quotes: set[str]) -> dict[str, list[Document]]:
    """Return squeezed quote → the documents that hold it."""
    found: dict[str, list[Document]] = {}
    for number, (document, text) in enumerate(parsed_texts(bench, documents), 1):
        for quote in _held(squeeze(text), quotes):
            found.setdefault(quote, []).append(document)
        telemetry.report_progress("check", number, len(documents))
    return found


def _held(body: str, quotes: Collection[str]) -> list[str]:
    """Return those of many ``quotes`` that ``body`` holds."""
    if len(quotes) > _WINDOWS_FROM:  # an imported set: look for beginnings first, each in constant time
        windows = {body[at : at + _WINDOW] for at in range(max(1, len(body) - _WINDOW + 1))}
        quotes = [quote for quote in quotes if len(quote) < _WINDOW or quote[:_WINDOW] in windows]
    return [quote for quote in quotes if quote in body]


def _lost(
    case: GoldenCase,
    span: GoldSpan,
    elsewhere: Sequence[Document],
    documents: Sequence[Document],
    texts: dict[str, str],
) -> SpanFinding:
    readable = sorted(elsewhere, key=lambda d: (not may_read(case, d), d.source, d.uri))
    if readable:
        now = dataclasses.replace(span, uri=readable[0].uri, source=readable[0].source)
        detail = "" if may_read(case, readable[0]) else _hidden(case, readable[0])
        return SpanFinding(case.case_id, span, "moved", detail, now)
    meant = [d for d in documents if d.uri == span.uri and span.source in (None, d.source)]
    if not meant:
        return SpanFinding(case.case_id, span, "gone", "there is no such document")
    there = [texts[d.document_id] for d in meant if d.document_id in texts]
    if not there:
        return SpanFinding(case.case_id, span, "gone", "the document could not be read: see `rag dead-letters list`")
    like = next((n for text in there if (n := _nearest(span.quote, text)) is not None), None)
    detail = "the document does not say so any more"
    return SpanFinding(case.case_id, span, "gone", detail + (f"; most like it: {like}" if like else ""))


def _nearest(quote: str, text: str) -> str | None:
    """Return the sentence of ``text`` that is most like the quote; None when none is like it."""
    best, likeness = None, NEAREST_MIN_RATIO
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(quote)
    for start, end in sentences.split(text[:_NEAREST_MAX_CHARS]):
        matcher.set_seq1(text[start:end])
        if matcher.real_quick_ratio() >= likeness and matcher.quick_ratio() >= likeness:
            ratio = matcher.ratio()
            if ratio >= likeness:
                best, likeness = " ".join(text[start:end].split()), ratio
    return best
