"""Which chunks cover which gold spans, however the document was cut."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_platform import backends
from rag_platform.backends.embedders.base import Embedder
from rag_platform.evaluation.golden import GoldSpan
from rag_platform.evaluation.shipped import demo_set
from rag_platform.evaluation.spans import coverage, covered
from rag_platform.ingestion.chunk import build_chunker, chunk_document
from rag_platform.ingestion.parsers.base import Limits
from rag_platform.ingestion.parsers.dispatch import parse_here
from rag_platform.records import Hit
from rag_platform_tests import harness

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (
    "Planned work is done on the second Tuesday of each month. The nightly backup starts at twenty to three and is kept "
    "for thirty-five days on the storage in Hall C. Log books are kept for seven years."
)
QUOTE = "The nightly backup starts at twenty to three and is kept for thirty-five days on the storage in Hall C."
SPAN = GoldSpan("handbook.md", QUOTE)


def hit(text: str, uri: str = "handbook.md", source: str = "docs", ordinal: int = 0, start: int = 0) -> Hit:
    return Hit(
        chunk_id="c", document_id="d", source=source, uri=uri, title="", version_id="", content_hash="",
        snapshot_id="", run_id="", ordinal=ordinal, start=start, end=start + len(text), page=None, heading_path="", mime_type="",
        language="", modified_at=None, tags=(), tenant="default", acl=("public",), text=text, score=1.0,
    )  # fmt: skip


def test_a_chunk_covers_a_quote_of_its_document_only() -> None:
    """The same words in another document, or in a document of the same name in another source, are not the span."""
    spans = [SPAN, GoldSpan("handbook.md", QUOTE, "wiki")]
    assert covered(hit(TEXT), spans) == {0}
    assert covered(hit(TEXT, source="wiki"), spans) == {0, 1}
    assert covered(hit(TEXT, uri="other.md"), spans) == frozenset()


def test_white_space_and_forms_of_letters_do_not_matter() -> None:
    """Parsers break lines, hyphenate softly and compose letters as they like."""
    span = GoldSpan("a.md", "Cafe\u0301 opens at eight o'clock on Mondays")
    assert covered(hit("Caf\u00e9 opens\n  at eight o'clock\u00a0on Mon\u00addays.", "a.md"), [span]) == {0}


@pytest.mark.parametrize(
    ("text", "is_covered"),
    [
        (TEXT[: TEXT.index(" three")], False),  # the shorter part of the quote
        (TEXT[TEXT.index("three") :], True),  # the longer one
        (QUOTE[: len(QUOTE) // 2 + 8], True),
        (QUOTE[30:90], True),  # the middle
        (QUOTE[30:60], False),
        ("and is kept for thirty-five days, but in another sentence altogether", False),
        ("three", False),
        ("", False),
    ],
)
def test_half_of_a_quote_is_enough(text: str, is_covered: bool) -> None:
    """A chunk covers what it holds at least half of, in one piece that begins or ends with the chunk."""
    assert covered(hit(text), [SPAN]) == ({0} if is_covered else frozenset())


def test_a_short_quote_must_be_there_as_a_whole() -> None:
    """Half of a number is not the number."""
    span = [GoldSpan("a.md", "47 minutes")]
    assert covered(hit("took 47\nminutes.", "a.md"), span) == {0}
    assert covered(hit("minutes later", "a.md"), span) == covered(hit("it took 47 min", "a.md"), span) == frozenset()


def test_small_chunks_cover_a_quote_together() -> None:
    """Where no chunk holds half of a quote, it is covered at the rank at which half of it has been found; a chunk that is
    ranked again adds nothing."""
    pieces = [hit(QUOTE[n : n + 30]) for n in range(0, len(QUOTE), 30)]
    other = hit("Log books are kept for seven years.")
    none: frozenset[int] = frozenset()
    assert coverage([pieces[0], other, pieces[0], pieces[2]], [SPAN]) == [none, none, none, {0}]
    assert coverage([pieces[1], other], [SPAN]) == [none, none]
    assert coverage([], [SPAN]) == [] and coverage([other], []) == [none]


@given(st.lists(st.integers(1, len(TEXT) - 1), unique=True), st.integers(0, 20), st.randoms(use_true_random=False))
def test_no_cut_can_hide_a_quote(cuts: list[int], shared: int, order: Random) -> None:
    """However a text is cut, and in whatever order its pieces are ranked, all of them together cover each quote, also a
    short one; pieces may share text."""
    ends = [0, *sorted(cuts), len(TEXT)]
    pieces = [
        hit(TEXT[max(0, a - shared) : b], ordinal=n, start=max(0, a - shared))
        for n, (a, b) in enumerate(itertools.pairwise(ends))
    ]
    order.shuffle(pieces)
    spans = [SPAN, GoldSpan("handbook.md", "seven years."), GoldSpan("handbook.md", "work")]
    found = coverage(pieces, spans)
    assert frozenset().union(*found) == {0, 1, 2}
    gone = coverage(pieces, [GoldSpan("handbook.md", "eight years."), GoldSpan("handbook.md", "Penguins eat fish.")])
    assert frozenset().union(*gone) == frozenset()


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedder]:
    built = backends.load("embedders", "onnx_minilm").build(harness.settings(tmp_path_factory.mktemp("home")))
    yield built
    asyncio.run(built.aclose())


@pytest.mark.parametrize("chunker", ["recursive", "fixed", "markdown"])
@pytest.mark.parametrize("tokens", [24, 64, 200, 256])
def test_a_golden_set_survives_rechunking(chunker: str, tokens: int, embedder: Embedder, tmp_path: Path) -> None:
    """Every span of the demo's set on Markdown pages is covered by the chunks of its page, whatever chunker and chunk
    size make them; at the default size nearly always by one chunk alone."""
    settings = harness.settings(tmp_path / "home", RAG_CHUNKER=chunker, RAG_CHUNK_TOKENS=str(tokens))
    build = build_chunker(settings, embedder)
    spans = [s for c in demo_set().cases for s in c.spans if (DOCS / s.uri).suffix == ".md" and (DOCS / s.uri).exists()]
    assert len(spans) >= 30
    alone = 0
    for uri in sorted({s.uri for s in spans}):
        document = parse_here((DOCS / uri).read_bytes(), ".md", Limits())
        chunks = chunk_document(document, build, embedder.tokenizer)
        hits = [hit(document.text[c.start : c.end], uri, ordinal=c.ordinal, start=c.start) for c in chunks]
        here = [s for s in spans if s.uri == uri]
        found = coverage(hits, here)
        assert frozenset().union(*found) == set(range(len(here))), uri
        alone += len(frozenset().union(*(covered(h, here) for h in hits)))
    if tokens >= 200:
        assert alone == len(spans)
