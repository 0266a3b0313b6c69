"""An outage stops a run, and only that: no document is blamed, nothing that is served goes away (P6)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rag_platform.errors import DependencyError
from rag_platform.ingestion.stages.audit import conservation
from rag_platform.ingestion.workbench import Workbench
from rag_platform.settings import Settings
from rag_platform_tests import harness
from rag_platform_tests.backends.misbehaving_openai import MisbehavingOpenAI
from rag_platform_tests.harness import ingest

DEADLINE_S = 2.0
FAULTS = (
    "closed", "frozen", "rate_limited_silent", "rate_limited_long", "insufficient_quota", "server_error", "html",
    "wrong_dimension", "nan", "too_few", "refuse_all", "dripping",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _sdk_is_loaded() -> None:
    """Importing the SDK takes seconds, which the first call would spend from its deadline."""
    import openai  # noqa: F401


@pytest.fixture
def server() -> Iterator[MisbehavingOpenAI]:
    api = MisbehavingOpenAI(8)
    with api.running():
        yield api


def remote_environment(server: MisbehavingOpenAI) -> dict[str, str]:
    return {
        "RAG_EMBEDDER": "openai_compatible",
        "RAG_OPENAI_BASE_URL": server.base_url,
        "RAG_OPENAI_MODEL": "test-model",
        "RAG_OPENAI_DIMENSIONS": str(server.dimensions),
        "RAG_OPENAI_REQUEST_TIMEOUT_S": "0.5",
        "RAG_EMBED_TIMEOUT_S": str(DEADLINE_S),
    }


def texts(bench: Workbench) -> dict[str, tuple[str, list[str]]]:
    return {r["uri"]: (r["text"], r["acl"]) for r in harness.index_rows(bench, "uri", "text", "acl")}


def edited(tree: harness.Tree) -> None:
    """Prepare one document that changes, one that goes, one that stays, and one that comes."""
    tree.become({"changed.md": "Old text.", "gone.md": "Leaves.", "same.md": "Stays."})


def edit(tree: harness.Tree) -> None:
    tree.become({"changed.md": "New text.", "same.md": "Stays.", "added.md": "Comes."})


@pytest.mark.parametrize("fault", FAULTS)
def test_an_embedder_that_is_down(tmp_path: Path, tree: harness.Tree, server: MisbehavingOpenAI, fault: str) -> None:
    """Whatever the embedder does wrong, the run fails within its deadline as a dependency; deletions and
    permissions are applied all the same, old text stays searchable, and the next good run does the rest."""
    environment = remote_environment(server)
    settings = harness.settings(tmp_path / "home", **environment)
    edited(tree)
    with Workbench(settings) as bench:
        ingest(bench, [tree.spec(acl=("staff",))], "good")
    edit(tree)
    spec = tree.spec(acl=("legal",))
    if fault == "closed":
        server.close()
    else:
        server.fault = fault
    for attempt in range(2 if fault == "closed" else 1):
        with Workbench(settings) as bench:
            started = time.monotonic()
            with pytest.raises(DependencyError, match="embedder"):
                ingest(bench, [spec], f"bad{attempt}")
            # Two buckets may each wait for the deadline of their first batch; the rest is slack for a busy machine.
            assert time.monotonic() - started < 2 * DEADLINE_S + 15
            assert bench.ledger.dead_letters.search() == []
            assert texts(bench) == {"changed.md": ("Old text.", ["legal"]), "same.md": ("Stays.", ["legal"])}
            state = conservation(bench, bench.bucket_names)
            assert (state.received, state.indexed, state.dead_lettered, state.in_flight) == (3, 1, 0, 2)
            harness.check_invariants(bench)
    if fault == "closed":
        server.open()
    server.fault = None
    with Workbench(settings) as bench:
        counters = ingest(bench, [spec], "recovered")
        assert (counters["embedded"], counters["indexed"]) == (2, 2)
        assert harness.identified(bench) == harness.expected(tmp_path / "fresh", [spec], **environment)
        harness.check_invariants(bench)


def test_what_was_embedded_before_the_outage_is_kept(
    tmp_path: Path, tree: harness.Tree, server: MisbehavingOpenAI
) -> None:
    """Vectors that arrived before the service broke are paid for once."""
    settings = harness.settings(
        tmp_path / "home", **remote_environment(server), RAG_OPENAI_BATCH_SIZE="1", RAG_OPENAI_CONCURRENCY="1"
    )
    tree.become({uri: f"Text of {uri}." for uri in harness.uris_in("6", 6)})
    server.fault, server.faulty_calls = None, None
    with Workbench(settings) as bench:
        ingest(bench, [tree.spec()], "empty", buckets=["0"])  # the service is fine, there is nothing to do
        answered: list[int] = []
        take = server.take_fault

        def breaks_after_three() -> str | None:
            answered.append(1)
            return "server_error" if len(answered) > 3 else take()

        server.take_fault = breaks_after_three  # type: ignore[method-assign]
        with pytest.raises(DependencyError, match="embedder"):
            ingest(bench, [tree.spec()], "bad")
        server.take_fault = take  # type: ignore[method-assign]
        assert len(harness.searchable(bench)) == 3, "complete documents are served"
        assert ingest(bench, [tree.spec()], "good")["embedded"] == 3
        assert len(harness.searchable(bench)) == 6


def _as_file(path: Path) -> Callable[[], None]:
    """Put a file where a folder was; returns what undoes it."""
    away = path.with_name(path.name + ".away")
    path.rename(away)
    path.write_bytes(b"not a folder")

    def undo() -> None:
        path.unlink()
        away.rename(path)

    return undo


@pytest.mark.parametrize("broken", ["index", "objects", "objects/segments"])
def test_a_store_that_is_broken(settings: Settings, tree: harness.Tree, tmp_path: Path, broken: str) -> None:
    """When the vector store or the object store fails the run fails as a dependency; no document is blamed or
    lost, and when it is back the next run completes."""
    edited(tree)
    with Workbench(settings) as bench:
        ingest(bench, [tree.spec()], "good")
        before = harness.identified(bench)
    edit(tree)
    undo = _as_file(settings.root / broken)
    for attempt in range(2):
        with Workbench(settings) as bench:
            with pytest.raises(DependencyError):
                ingest(bench, [tree.spec()], f"bad{attempt}")
            assert bench.ledger.dead_letters.search() == []
            assert conservation(bench, bench.bucket_names).holds
    undo()
    with Workbench(settings) as bench:
        assert harness.identified(bench) == before, "nothing half-way became visible"
        ingest(bench, [tree.spec()], "recovered")
        assert harness.identified(bench) == harness.expected(tmp_path / "fresh", [tree.spec()])
        harness.check_invariants(bench)


def test_a_full_disk_under_the_object_store(bench: Workbench, tree: harness.Tree) -> None:
    """A blob that cannot be written leaves the document as it was; the deletion in the same listing still counts."""
    edited(tree)
    ingest(bench, [tree.spec()], "good")
    edit(tree)
    undo = _as_file(bench.settings.root / "objects" / "blobs")
    with pytest.raises(DependencyError):
        ingest(bench, [tree.spec()], "bad")
    undo()
    live = {u: d.live for u, d in bench.ledger.documents.of_source("docs").items()}
    assert live == {"changed.md": True, "gone.md": False, "same.md": True}
    counters = ingest(bench, [tree.spec()], "recovered")
    assert (counters["added"], counters["changed"], counters["removed"]) == (1, 1, 1)
    harness.check_invariants(bench)
