"""What every chunking strategy promises, and what the default one promises besides."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

import rag_platform.backends.embedders
from rag_platform.backends.embedders.base import EmbedderSpec
from rag_platform.errors import ConfigurationError
from rag_platform.ingestion.chunk import build_chunker, chunk_document, chunker_fingerprint
from rag_platform.ingestion.chunkers import fixed, markdown, recursive, semantic
from rag_platform.ingestion.chunkers.base import Chunker, ChunkerOptions
from rag_platform.ingestion.chunkers.sections import heading_text
from rag_platform.records import ChunkSpan, Element, EmbeddingBatch, ParsedDocument
from rag_platform.settings import Settings

STRATEGIES = {"recursive": recursive, "fixed": fixed, "markdown": markdown, "semantic": semantic}


class WordPieces:
    """The MiniLM tokenizer as the embedder offers it."""

    def __init__(self) -> None:
        path = Path(rag_platform.backends.embedders.__file__).parent / "data" / "minilm_tokenizer.json"
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(e.ids) for e in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def offsets(self, text: str) -> np.ndarray:
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).offsets, np.int32).reshape(-1, 2)


@cache
def tokenizer() -> WordPieces:
    return WordPieces()


def hashed_vectors(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors that depend on nothing but the text."""
    seeds = [int.from_bytes(hashlib.sha256(t.encode()).digest()[:4], "big") for t in texts]
    vectors = np.stack([np.random.default_rng(seed).standard_normal(16) for seed in seeds]).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def chunker(strategy: str, tokens: int = 64, overlap: int = 0) -> Chunker:
    options = ChunkerOptions(tokens, 0 if strategy == "semantic" else overlap, "minilm", hashed_vectors, "hashed")
    return STRATEGIES[strategy].build(options)


def parsed(text: str, elements: Sequence[Element] = ()) -> ParsedDocument:
    return ParsedDocument(text, tuple(elements), "text/plain")


def of_blocks(blocks: Sequence[tuple[str, str, int]]) -> ParsedDocument:
    """A document of (kind, text, heading level) blocks, a blank line between each two."""
    text, elements = "", []
    for i, (kind, block, level) in enumerate(blocks):
        text += "\n\n" if text else ""
        elements.append(Element(kind, len(text), len(text) + len(block), page=1 + i // 4, level=level))
        text += block
    return parsed(text, elements)


def markdown_document(text: str) -> ParsedDocument:
    """A document whose blank-line separated paragraphs are elements; ``#`` marks headings."""
    blocks = []
    for block in text.split("\n\n"):
        level = len(block) - len(block.lstrip("#"))
        blocks.append(("heading" if level else "text", block, level))
    return of_blocks(blocks)


def check(document: ParsedDocument, chunks: Sequence[ChunkSpan], limit: int) -> None:
    """Assert the promises of ``chunkers/base.py``."""
    text = document.text
    covered = np.zeros(len(text) + 1, bool)
    assert [c.ordinal for c in chunks] == list(range(len(chunks)))
    for before, after in itertools.pairwise(chunks):
        assert before.start <= after.start
        assert before.end <= after.end
    counts = tokenizer().count([text[c.start : c.end] for c in chunks])
    for c, tokens in zip(chunks, counts, strict=True):
        piece = text[c.start : c.end]
        assert piece and piece == piece.strip()
        assert c.token_count <= limit or len(piece) == 1
        assert tokens <= limit or len(piece) == 1
        covered[c.start : c.end] = True
    missing = [i for i, char in enumerate(text) if not covered[i] and not char.isspace()]
    assert not missing


words = st.text(
    st.one_of(
        st.sampled_from("abcdeXYZ0123.,;:!?-_/()[]#*|"),
        st.sampled_from("éßøñ漢字仮名。！？שלוםسلام𝔘👩‍👧🇩🇪\u0301\u200b\u200f\u00ad"),
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    ),
    min_size=1,
    max_size=30,
)
prose = st.lists(
    st.tuples(words, st.sampled_from([" ", " ", " ", "\n", "\n\n", "  \n", "\t", "\u3000", ""])), max_size=120
)
texts = prose.map(lambda parts: "".join(word + gap for word, gap in parts))
kinds = st.sampled_from(["heading", "title", "text", "text", "list_item", "table", "code", "other"])
documents = st.one_of(
    texts.map(parsed),
    st.lists(st.tuples(kinds, texts.map(str.strip).filter(bool), st.integers(0, 6)), max_size=12).map(of_blocks),
)


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(document=documents, limit=st.integers(8, 80), share=st.sampled_from([0, 0, 0.25, 0.5]))
@example(parsed("0 00000 0 0 0 0 0: 0:0 0:0:0:0:0:0:"), 22, 0.5)  # an end moved behind the previous chunk's
@example(parsed("\x8dqÙÉ·RÕ#þ\x1a\\\x03»º\U000337d6\x93\x1eÚ½Nú\x97$aëÞ\x0f\U000bb42d 0: 0: "), 8, 0)  # words joined
def test_chunks_cover_the_text_exactly_and_keep_the_limit(
    strategy: str, document: ParsedDocument, limit: int, share: float
) -> None:
    """Any text, any elements: exact spans, nothing lost, no chunk too long, the same every time."""
    cut = chunker(strategy, limit, int(limit * share))
    chunks = chunk_document(document, cut, tokenizer())
    check(document, chunks, limit)
    assert chunk_document(document, chunker(strategy, limit, int(limit * share)), tokenizer()) == chunks
    if not share:
        for before, after in itertools.pairwise(chunks):
            assert before.end <= after.start


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_chunk_cut_again_is_itself(strategy: str) -> None:
    """Chunking is idempotent: a chunk that fits is not cut further."""
    document = parsed("\n\n".join(f"Paragraph {i} speaks of things. It has two sentences." for i in range(60)))
    cut = chunker(strategy, 64)
    if strategy == "semantic":
        pytest.skip("every text has a largest change of meaning")
    for c in chunk_document(document, cut, tokenizer()):
        piece = document.text[c.start : c.end]
        again = chunk_document(parsed(piece), cut, tokenizer())
        assert [(a.start, a.end) for a in again] == [(0, len(piece))]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("text", ["", " ", "\n\n\t \u2003\n"])
def test_white_space_has_no_chunks(strategy: str, text: str) -> None:
    """Nothing to search, nothing to embed."""
    assert chunk_document(parsed(text), chunker(strategy), tokenizer()) == []


HOSTILE = {
    "2 MB without a space": lambda: "x" * 2_000_000,
    "a million newlines": lambda: "a" + "\n" * 1_000_000 + "b",
    "300,000 short lines": lambda: "ab\n" * 300_000,
    "one word of 200,000 characters": lambda: "intro " + "supercalifragilistic" * 10_000 + " end",
    "exclamation marks": lambda: "!" * 200_000,
    "closing quotes": lambda: "." + '"' * 200_000,
    "spaces": lambda: "a" + " " * 1_000_000 + "b",
    "CJK without punctuation": lambda: "漢" * 100_000,
    "combining marks": lambda: "e" + "\u0301" * 100_000,
    "headings only": lambda: "\n\n".join(f"# h{i}" for i in range(5_000)),
    "control characters": lambda: "a\x1c\x1db" * 30_000,
}


@pytest.mark.slow
def test_twenty_megabytes_without_a_space() -> None:
    """The longest text that a parser may hand over, as one word."""
    document = parsed("x" * 20_000_000)
    chunks = chunk_document(document, chunker("recursive", 200), tokenizer())
    assert sum(c.end - c.start for c in chunks) == len(document.text)
    assert max(c.end - c.start for c in chunks) <= 200 * 10 + 40


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_cut_in_linear_time(name: str) -> None:
    """Each of these costs some other splitter minutes; here the time is bounded by the length."""
    document = markdown_document(HOSTILE[name]()) if name == "headings only" else parsed(HOSTILE[name]())
    before = time.process_time()
    chunks = chunk_document(document, chunker("recursive", 200), tokenizer())
    assert time.process_time() - before < 5 + 2 * len(document.text) / 1_000_000
    assert max(c.end - c.start for c in chunks) <= 200 * 10 + 40
    assert max(c.token_count for c in chunks) <= 200
    covered = "".join("".join(document.text[c.start : c.end].split()) for c in chunks)
    assert covered == "".join(document.text.split())


# ── structure ──


def section(i: int, sentences: int = 8) -> str:
    body = " ".join(f"Sentence {i}-{j} explains setting number {j} of component {i} well." for j in range(sentences))
    return f"## Component {i}\n\n{body}"


def texts_of(document: ParsedDocument, limit: int = 100) -> list[str]:
    return [document.text[c.start : c.end] for c in chunk_document(document, chunker("recursive", limit), tokenizer())]


def test_an_inserted_section_changes_no_other_chunk() -> None:
    """Sections are boundaries: what stands under other headings keeps its chunks and so its vectors."""
    sections = [section(i) for i in range(12)]
    before = texts_of(markdown_document("\n\n".join(sections)))
    after = texts_of(markdown_document("\n\n".join([*sections[:3], section(99), *sections[3:]])))
    assert set(before) <= set(after)


def test_an_edit_in_a_long_section_stays_local() -> None:
    """Inside one long section the cuts fall into step again soon after an inserted paragraph."""
    paragraphs = [
        f"Paragraph {i} tells how part {i * 7 % 50} works. It names {i * 13 % 97} cases, and each of them is listed."
        for i in range(200)
    ]
    before = texts_of(parsed("\n\n".join(paragraphs)))
    after = texts_of(parsed("\n\n".join(["A new first paragraph stands here.", *paragraphs])))
    new = set(after) - set(before)
    assert len(before) > 30
    assert len(new) <= 6


def test_a_heading_stays_with_its_text() -> None:
    """No chunk is a heading alone while text follows it."""
    document = markdown_document("\n\n".join(["# Guide", "## Part", *[section(i, 30) for i in range(4)]]))
    for text in texts_of(document):
        assert "Sentence" in text


def test_rows_lines_and_sentences_are_kept_whole() -> None:
    """Tables are cut between rows, code between lines, prose between sentences, Chinese ones too."""
    rows = "\n".join(f"| row {i} | value {i * 17} | some words in it |" for i in range(60))
    code = "\n".join(f"result_{i} = compute(value_{i}, factor={i})" for i in range(60))
    english = " ".join(f"Dr. Smith measured sample {i}, e.g. the red one." for i in range(60))
    chinese = "".join(f"第{i}个容器组由调度器分配到节点上运行。" for i in range(60))
    document = of_blocks([("table", rows, 0), ("code", code, 0), ("text", english, 0), ("text", chinese, 0)])
    for text in texts_of(document):
        assert text[0] in "|rD第"
        assert text[-1] in "|).。"
        assert not text.endswith("Dr.")


def test_chunks_know_their_headings_and_page() -> None:
    """The path holds heading text as a reader sees it; a chunk over several sections has what they share."""
    document = of_blocks(
        [
            ("title", "# The *guide* {#guide}", 1),
            ("text", "Opening words of the guide. " * 20, 0),
            ("heading", '## <a name="set-up"></a>Set up &amp; run ##', 2),
            ("text", "How to set it up. " * 20, 0),
            ("heading", "### Small one", 3),
            ("text", "Few words.", 0),
            ("heading", "### Small two", 3),
            ("text", "Few words more.", 0),
        ]
    )
    chunks = chunk_document(document, chunker("recursive", 100), tokenizer())
    paths = [c.heading_path for c in chunks]
    assert paths[0] == ("The *guide*",)
    assert ("The *guide*", "Set up & run") in paths
    assert chunks[0].page == 1
    assert chunks[-1].page == 2


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("## What is a Pod? {#what-is-a-pod}", "What is a Pod?"),
        ('# Title<a name="title"></a>', "Title"),
        ("Title\n=====", "Title"),
        ("C# and F#", "C# and F#"),
        ("#hashtag", "#hashtag"),
        ("# A  wide\n title #", "A wide title"),
    ],
)
def test_heading_text(raw: str, shown: str) -> None:
    """Marks, anchors and outer space are not part of a heading; its own characters are."""
    assert heading_text(raw) == shown


@pytest.mark.parametrize("strategy", ["recursive", "fixed"])
def test_overlap_repeats_only_what_was_asked_for(strategy: str) -> None:
    """Neighbours share text, at most the overlap."""
    document = parsed(" ".join(f"word{i}" for i in range(2000)))
    chunks = chunk_document(document, chunker(strategy, 64, 16), tokenizer())
    shared = [document.text[b.start : a.end] for a, b in itertools.pairwise(chunks)]
    assert all(shared)
    assert max(tokenizer().count(shared)) <= 16


def test_markdown_never_joins_sections() -> None:
    """One chunk a leaf section, however small."""
    document = markdown_document("# T\n\n## A\n\nOne.\n\n## B\n\nTwo.\n\n## C\n\nThree.")
    cut = chunker("markdown")
    texts = [document.text[c.start : c.end] for c in chunk_document(document, cut, tokenizer())]
    assert texts == ["# T\n\n## A\n\nOne.", "## B\n\nTwo.", "## C\n\nThree."]


def test_semantic_cuts_where_the_meaning_changes() -> None:
    """Sentences about one thing stay together; the topic's change is a cut."""

    def embed(batch: Sequence[str]) -> np.ndarray:
        raw = np.array([[t.count("apple") + 0.01, t.count("engine") + 0.01] for t in batch], np.float32)
        return raw / np.linalg.norm(raw, axis=1, keepdims=True)

    text = "The apple tree bears an apple every day. " * 8 + "An engine needs oil and an engine needs air. " * 8
    cut = semantic.build(ChunkerOptions(120, 0, "minilm", embed, "topics"))
    pieces = [text[c.start : c.end] for c in chunk_document(parsed(text), cut, tokenizer())]
    assert len(pieces) >= 2
    mixed = [p for p in pieces if "apple" in p and "engine" in p]
    assert len(mixed) <= 1
    assert all(min(p.count("apple"), p.count("engine")) <= 2 for p in mixed)


def test_semantic_embeds_a_bounded_number_of_windows() -> None:
    """However long a document is, its embedding bill has an end."""
    asked = 0

    def embed(batch: Sequence[str]) -> np.ndarray:
        nonlocal asked
        asked += len(batch)
        return np.ones((len(batch), 2), np.float32) / np.sqrt(2)

    text = "Short one. " * 40_000
    cut = semantic.build(ChunkerOptions(64, 0, "minilm", embed, "ones"))
    check(parsed(text), chunk_document(parsed(text), cut, tokenizer()), 64)
    assert asked <= 2 * semantic.MAX_WINDOWS


def test_semantic_drives_the_asynchronous_embedder_itself() -> None:
    """Without a function of its own it calls the embedder, always on the same event loop."""
    loops = set()

    class Asynchronous:
        spec = SPEC

        async def embed(self, texts: Sequence[str], **_: object) -> EmbeddingBatch:
            loops.add(asyncio.get_running_loop())
            return EmbeddingBatch(hashed_vectors(texts), 0)

    cut = build_chunker(Settings(chunker="semantic", chunk_tokens=64), Asynchronous())
    document = parsed("One sentence follows another one here. " * 60)
    check(document, chunk_document(document, cut, tokenizer()), 64)
    chunk_document(document, cut, tokenizer())
    assert len(loops) == 1


# ── choosing one ──

SPEC = EmbedderSpec("onnx_minilm", "all-MiniLM-L6-v2", "f1", 384, 256, 8, 1, 0.0)


class Embedder:
    spec = SPEC


def test_the_fingerprint_moves_with_what_moves_the_chunks() -> None:
    """Strategy, sizes and tokenizer are in it; the embedder's build only where it decides the cuts."""
    base = Settings(chunk_tokens=64)
    prints = {
        chunker_fingerprint(base, SPEC),
        chunker_fingerprint(Settings(chunk_tokens=65), SPEC),
        chunker_fingerprint(Settings(chunk_tokens=64, chunk_overlap_tokens=8), SPEC),
        *(chunker_fingerprint(Settings(chunk_tokens=64, chunker=s), SPEC) for s in ("fixed", "markdown", "semantic")),
    }
    assert len(prints) == 6
    other_build = EmbedderSpec("onnx_minilm", "all-MiniLM-L6-v2", "f2", 384, 256, 8, 1, 0.0)
    assert chunker_fingerprint(base, other_build) == chunker_fingerprint(base, SPEC)
    by_meaning = Settings(chunk_tokens=64, chunker="semantic")
    assert chunker_fingerprint(by_meaning, other_build) != chunker_fingerprint(by_meaning, SPEC)
    assert build_chunker(base, Embedder(), hashed_vectors).fingerprint == chunker_fingerprint(base, SPEC)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"chunker": "recursiv"}, "known: fixed, markdown, recursive, semantic"),
        ({"chunker": "base"}, "unknown strategy"),
        ({"chunk_tokens": 300}, "RAG_CHUNK_TOKENS"),
        ({"chunker": "semantic", "chunk_overlap_tokens": 10}, "RAG_CHUNK_OVERLAP_TOKENS"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_cure(changed: dict[str, object], words: str) -> None:
    """Known names are listed; a chunk that the embedder would cut off is refused."""
    with pytest.raises(ConfigurationError, match=words):
        build_chunker(Settings(**changed), Embedder(), hashed_vectors)
