"""What serves goes on learning what its sources say while the settings make another release."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rag_platform.errors import DependencyError
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.releases import Release
from rag_platform.settings import Settings
from rag_platform_tests import harness
from rag_platform_tests.backends.misbehaving_openai import MisbehavingOpenAI
from rag_platform_tests.harness import ingest

LONG = "\n\n".join(f"Section {n}. " + f"The pump of section {n} is checked in week {n}. " * 9 for n in range(6))


@pytest.fixture
def server() -> Iterator[MisbehavingOpenAI]:
    running = MisbehavingOpenAI(dimensions=8)
    running.open()
    yield running
    running.close()


@pytest.fixture
def tree(tmp_path: Path) -> harness.Tree:
    tree = harness.Tree(tmp_path / "docs")
    tree.become({"a.md": LONG, "b.md": "The gate closes at nine."})
    return tree


def settings_of(tmp_path: Path, server: MisbehavingOpenAI, **environ: str) -> Settings:
    """Settings whose embedder is a server of OpenAI's interface."""
    return harness.settings(
        tmp_path / "home",
        RAG_EMBEDDER="openai_compatible",
        RAG_OPENAI_BASE_URL=server.base_url,
        RAG_OPENAI_DIMENSIONS="8",
        RAG_OPENAI_TOKENIZER="approximate",
        **{"RAG_CHUNK_TOKENS": "64", **environ},
    )


def serving(bench: Workbench) -> Release:
    found = bench.ledger.releases.serving()
    assert found is not None
    return found


def texts(bench: Workbench) -> set[tuple[str, str]]:
    """Return uri and text of every chunk that readers can find."""
    return {(r["uri"], r["text"]) for r in harness.index_rows(bench, "uri", "text")}


def test_a_refused_candidate_does_not_freeze_what_serves(
    settings: Settings, tree: harness.Tree, tmp_path: Path
) -> None:
    """Run after run, the serving release holds what a release of its own settings would, chunk by chunk; so does the
    candidate. Each new text is embedded once for either, and nothing when nothing changes."""
    first = replace(settings, chunk_tokens=64)
    with Workbench(first) as bench:
        ingest(bench, [tree.spec()], "r1")
        release = bench.release_id
    with Workbench(replace(settings, chunk_tokens=40)) as bench:
        counters = ingest(bench, [tree.spec()], "r2", gated=True)
        assert counters["kept_embedded"] == 0 and serving(bench).release_id == release
        tree.write("a.md", LONG.replace("pump", "valve"))
        tree.write("c.md", "The new crane lifts forty tons.")
        tree.delete("b.md")
        counters = ingest(bench, [tree.spec()], "r3", gated=True)
        assert counters["kept_embedded"] > 1 and counters["embedded"] > 1 and not counters["kept_problem"]
        fresh = harness.expected(tmp_path / "fresh", [tree.spec()], RAG_CHUNK_TOKENS="64")
        assert harness.identified(bench) == fresh and serving(bench).release_id == release
        harness.check_invariants(bench)
        counters = ingest(bench, [tree.spec()], "r4", gated=True)
        assert (counters["kept_embedded"], counters["embedded"], counters["index_writes"]) == (0, 0, 0)
        harness.check_invariants(bench.of_release(serving(bench)))


def test_it_is_embedded_by_its_own_embedder(tmp_path: Path, server: MisbehavingOpenAI, tree: harness.Tree) -> None:
    """The settings name another embedder: what changed is sent to the old server for the release that serves."""
    with Workbench(settings_of(tmp_path, server)) as bench:
        ingest(bench, [tree.spec()], "r1")
        release = bench.release_id
    server.inputs.clear()
    tree.write("b.md", "The gate closes at ten.")
    with Workbench(harness.settings(tmp_path / "home", RAG_CHUNK_TOKENS="64")) as bench:
        counters = ingest(bench, [tree.spec()], "r2", gated=True)
        assert bench.release_id != release == serving(bench).release_id
        assert [t for batch in server.inputs for t in batch] == ["The gate closes at ten."]
        assert counters["kept_embedded"] == 1 and ("b.md", "The gate closes at ten.") in texts(bench)
        harness.check_invariants(bench)


def test_its_outage_does_not_stop_the_other(tmp_path: Path, server: MisbehavingOpenAI, tree: harness.Tree) -> None:
    """The old server is gone, which may be why the settings have changed: the candidate is built and takes over; until then
    readers have the old text. And the other way round: while the new server is down, what serves is kept."""
    old = settings_of(tmp_path, server)
    with Workbench(old) as bench:
        ingest(bench, [tree.spec()], "r1")
        release = bench.release_id
    tree.write("b.md", "The gate closes at ten.")
    server.close()
    with Workbench(harness.settings(tmp_path / "home")) as bench:
        counters = ingest(bench, [tree.spec()], "r2", gated=True)
        assert counters["kept_problem"] and serving(bench).release_id == release
        assert ("b.md", "The gate closes at nine.") in texts(bench)
        ingest(bench, [tree.spec()], "r3")
        assert serving(bench).release_id == bench.release_id and ("b.md", "The gate closes at ten.") in texts(bench)
    tree.write("b.md", "The gate closes at eleven.")
    with Workbench(old) as bench, pytest.raises(DependencyError):  # which is the settings' again
        ingest(bench, [tree.spec()], "r4", gated=True)
    with Workbench(old) as bench:
        assert ("b.md", "The gate closes at eleven.") in texts(bench)


def test_only_the_settings_pipeline_makes_dead_letters(settings: Settings, tree: harness.Tree) -> None:
    """A document that cannot be read is one dead letter, not two, and is served as it was."""
    with Workbench(replace(settings, chunk_tokens=64)) as bench:
        ingest(bench, [tree.spec()], "r1")
    tree.write("b.md", "   ")
    with Workbench(replace(settings, chunk_tokens=40)) as bench:
        for run in ("r2", "r3"):
            counters = ingest(bench, [tree.spec()], run, gated=True)
            assert counters["dead_lettered"] == (run == "r2")
        [letter] = bench.ledger.dead_letters.search()
        assert letter.uri == "b.md" and ("b.md", "The gate closes at nine.") in texts(bench)


def test_a_pipeline_that_is_gone_is_said(
    settings: Settings, tree: harness.Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of the parsers cannot read as the old one did: the run goes on and says what readers miss."""
    with Workbench(replace(settings, chunk_tokens=64)) as bench:
        ingest(bench, [tree.spec()], "r1")
    tree.write("b.md", "The gate closes at ten.")
    monkeypatch.setattr("rag_platform.ingestion.parse.parser_fingerprint", lambda limits: "newer")
    with Workbench(replace(settings, chunk_tokens=64)) as bench:
        counters = ingest(bench, [tree.spec()], "r2", gated=True)
        assert counters["kept_problem"] and ("b.md", "The gate closes at nine.") in texts(bench)
        assert counters["parsed"] == 2
