"""What a change of the settings costs, by the counters of the run and by what the embedding service was asked.

Every work that is counted here is money: a parse is CPU, an embedding is a bill. The embedder is a real server of
OpenAI's interface on loopback, so that "nothing was embedded" is what the other side says too.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_platform.ingestion.workbench import Workbench
from rag_platform_tests import harness
from rag_platform_tests.backends.misbehaving_openai import MisbehavingOpenAI
from rag_platform_tests.harness import ingest

LONG = "\n\n".join(f"Section {n}. " + f"The pump of section {n} is checked in week {n}. " * 9 for n in range(8))
DOCUMENTS: dict[str, str | bytes] = {
    "long.md": LONG,
    "longer.md": LONG.replace("pump", "valve") + "\n\nAn end.",
    "short.md": "The gate closes at nine.",
    "again.txt": "The gate closes at nine.",  # the same text in another document: one embedding for both
    "note.txt": "Keys are with the porter.",
}


class Home:
    """A RAG_HOME in which ``DOCUMENTS`` are indexed, their folder, and the server that embedded them."""

    def __init__(self, root: Path, server: MisbehavingOpenAI) -> None:
        self.root, self.server = root, server
        self.tree = harness.Tree(root / "documents")

    def bench(self, **environ: str) -> Workbench:
        return Workbench(
            harness.settings(
                self.root / "home",
                RAG_EMBEDDER="openai_compatible",
                RAG_OPENAI_BASE_URL=self.server.base_url,
                RAG_OPENAI_API_KEY="no secret",
                RAG_OPENAI_DIMENSIONS="8",
                RAG_OPENAI_TOKENIZER="approximate",
                **{"RAG_CHUNK_TOKENS": "64", **environ},
            )
        )

    def sent(self) -> Counter[str]:
        """Take from the server's log which texts it was asked to embed, and how often each."""
        found = Counter(text for batch in self.server.inputs for text in batch)
        self.server.inputs.clear()
        return found


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """The home that the others are copies of; its first run embedded each distinct text once."""
    with MisbehavingOpenAI(8).running() as server:
        made = Home(tmp_path_factory.mktemp("reuse"), server)
        made.tree.become(DOCUMENTS)
        with made.bench() as bench:
            counters = ingest(bench, [made.tree.spec()], "r1")
            texts = texts_of(bench)
        assert made.sent() == Counter(texts) and counters["embedded"] == len(texts)
        assert (counters["parsed"], counters["index_writes"]) == (5, 5) and "The gate closes at nine." in texts
        yield made


@pytest.fixture
def home(first_run: Home, tmp_path: Path) -> Home:
    """A copy of the first run, with a log of its own."""
    shutil.copytree(first_run.root, tmp_path / "copy")
    copy = Home(tmp_path / "copy", first_run.server)
    copy.sent()
    return copy


def texts_of(bench: Workbench) -> set[str]:
    """The chunk texts of the index that this bench's pipeline has made."""
    release = bench.release
    rows = bench.store.scan(release.index_name, ["text"])
    return {row["text"] for batch in rows for row in batch.to_pylist()}


def test_an_unchanged_corpus_costs_nothing(home: Home) -> None:
    """Nothing is parsed, chunked, embedded or written (P3)."""
    with home.bench() as bench:
        counters = ingest(bench, [home.tree.spec()], "r2")
        assert {n: counters[n] for n in harness.WORK} == dict.fromkeys(harness.WORK, 0) and not home.sent()
        harness.check_invariants(bench)


@pytest.mark.parametrize("size", ["40", "96"])
def test_another_chunk_size_embeds_only_the_texts_that_are_new(home: Home, size: str) -> None:
    """Nothing is parsed; of the new chunks only those whose text no chunk had before are embedded, each once."""
    with home.bench() as bench:
        before = texts_of(bench)
    with home.bench(RAG_CHUNK_TOKENS=size) as bench:
        counters = ingest(bench, [home.tree.spec()], "r2")
        after = texts_of(bench)
        assert home.sent() == Counter(after - before)
        assert (counters["parsed"], counters["chunked"]) == (0, 5)
        assert counters["embedded"] == len(after - before)
        assert counters["index_writes"] == 5
        assert len(after & before) >= 2  # the short documents at least
        harness.check_invariants(bench)


def test_another_acl_embeds_nothing(home: Home) -> None:
    """Only the index is written: nothing is parsed, chunked or embedded, and the new readers are in force."""
    with home.bench() as bench:
        counters = ingest(bench, [home.tree.spec(acl=("board",))], "r2")
        assert (counters["parsed"], counters["chunked"], counters["embedded"]) == (0, 0, 0) and not home.sent()
        assert (counters["changed"], counters["index_writes"]) == (5, 5)
        assert {tuple(r["acl"]) for r in harness.index_rows(bench, "acl")} == {("board",)}
        harness.check_invariants(bench)


def test_another_embedder_embeds_everything_and_parses_nothing(home: Home) -> None:
    """Every distinct chunk text once, from the stored texts; going back to the first embedder costs nothing."""
    with home.bench() as bench:
        texts, old = texts_of(bench), bench.release_id
    with home.bench(RAG_OPENAI_MODEL="another-model") as bench:
        counters = ingest(bench, [home.tree.spec()], "r2")
        assert bench.release_id != old
        assert counters["parsed"] == 0 and counters["embedded"] == len(texts)
        assert home.sent() == Counter(texts) == Counter(texts_of(bench))
        assert counters["index_writes"] == 5
        harness.check_invariants(bench)
    with home.bench() as bench:
        back = ingest(bench, [home.tree.spec()], "r3")
        assert (back["parsed"], back["embedded"]) == (0, 0) and not home.sent()
        harness.check_invariants(bench)


def test_an_edit_embeds_the_chunks_that_it_changed(home: Home) -> None:
    """One document is parsed again, and of its chunks only the edited ones are embedded."""
    with home.bench() as bench:
        before = texts_of(bench)
        home.tree.write("long.md", LONG.replace("checked in week 7. ", "checked in May. "))
        counters = ingest(bench, [home.tree.spec()], "r2")
        new = texts_of(bench) - before
        assert (counters["parsed"], counters["chunked"], counters["index_writes"]) == (1, 1, 1)
        assert home.sent() == Counter(new) and 0 < len(new) < len(before) / 2
