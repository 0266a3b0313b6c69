"""From one vector store to another and back: nothing is parsed or embedded again, and nobody notices."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rag_platform.backends.vector_stores.lancedb import LanceVectorStore
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.ingestion.plan import plan
from rag_platform.ingestion.stages import rebuild as rebuild_stage
from rag_platform.ingestion.stages.embed import embed
from rag_platform.ingestion.stages.housekeeping import housekeeping
from rag_platform.ingestion.stages.index import index
from rag_platform.ingestion.stages.stored import forget_lost, lost_segments
from rag_platform.ingestion.store_choice import disagreement
from rag_platform.ingestion.workbench import Workbench
from rag_platform.settings import Settings
from rag_platform_tests import harness
from rag_platform_tests.backends.memory_store import MemoryVectorStore
from rag_platform_tests.backends.server_store import ServerStore
from rag_platform_tests.harness import ingest

A, B, C = harness.uris_in("3", 3)
D, E, F = harness.uris_in("c", 3)
DOCUMENTS: dict[str, str | bytes] = {u: f"# Title of {u}\n\nWhat {u} says." for u in (A, B, C, D, E)}
NOTHING_MADE = {"parsed": 0, "chunked": 0, "embedded": 0, "dead_lettered": 0}


def made(counters: dict[str, float]) -> dict[str, float]:
    return {name: counters[name] for name in NOTHING_MADE}


class Stores:
    """Benches on one home that write to LanceDB or to a second store."""

    def __init__(self, settings: Settings, second: Any) -> None:
        self.settings, self.second = settings, second

    @contextmanager
    def bench(self, store: str = "lancedb", **changes: Any) -> Iterator[Workbench]:
        settings = replace(self.settings, vector_store=store, **changes)
        with Workbench(settings, {"second": self.second}) as bench:
            yield bench


@pytest.fixture
def stores(settings: Settings) -> Stores:
    """The second store needs no replica."""
    return Stores(settings, MemoryVectorStore())


@pytest.fixture
def server(settings: Settings) -> Iterator[Stores]:
    """The second store is a server: a LanceDB in another folder that can be away."""
    second = ServerStore(LanceVectorStore(str(settings.root / "second")))
    yield Stores(settings, second)


def test_there_and_back(stores: Stores, tree: harness.Tree, tmp_path: Path) -> None:
    """Ingestion under another store fills it from what is stored and promotes it; the way back writes only what
    changed meanwhile. The searchable set stays the function of the sources throughout."""
    tree.become(DOCUMENTS)
    with stores.bench() as bench:
        ingest(bench, [tree.spec()], "r1")
        before, first = harness.identified(bench), bench.release_id
    with stores.bench("second") as bench:
        assert (disagreement(bench) or "").startswith("lancedb serves")
        planned = plan(bench, [tree.spec()])
        assert (planned.parsed, planned.embedded, planned.tokens, planned.index_writes) == (0, 0, 0, 5)
        counters = ingest(bench, [tree.spec()], "r2")
        assert made(counters) == NOTHING_MADE and counters["index_writes"] == 5
        serving = bench.ledger.releases.serving()
        assert serving is not None
        assert (serving.release_id, serving.store) == (f"{first}-second", "second")
        assert harness.identified(bench) == before and disagreement(bench) is None
        harness.check_invariants(bench)
        assert ingest(bench, [tree.spec()], "r3")["index_writes"] == 0
        tree.delete(A)
        tree.write(D, "Changed.")
        ingest(bench, [tree.spec()], "r4")
        after = harness.identified(bench)
    with stores.bench() as bench:
        counters = ingest(bench, [tree.spec()], "r5")
        assert made(counters) == NOTHING_MADE and counters["index_writes"] == 2
        serving = bench.ledger.releases.serving()
        assert serving is not None and serving.release_id == first
        assert harness.identified(bench) == after == harness.expected(tmp_path / "fresh", [tree.spec()])
        harness.check_invariants(bench)


def test_no_partition_is_forgotten_on_the_way_back(stores: Stores, tree: harness.Tree) -> None:
    """A run over some partitions cannot bring back what was deleted, or open to more readers, in the others while
    the old index did not serve (P11)."""
    tree.become(DOCUMENTS)
    with stores.bench() as bench:
        ingest(bench, [tree.spec()], "r1")
    with stores.bench("second") as bench:
        ingest(bench, [tree.spec()], "r2")
        tree.delete(D)
        ingest(bench, [tree.spec()], "r2b")
        assert D not in harness.uris(bench)
    with stores.bench() as bench:
        ingest(bench, [tree.spec()], "r3", buckets=["3"])
        assert bench.ledger.releases.serving() != bench.release
        assert D not in harness.uris(bench)
        ingest(bench, [tree.spec()], "r4", buckets=["c"])
        assert bench.ledger.releases.serving() == bench.release
        assert D not in harness.uris(bench)
        harness.check_invariants(bench)


def test_what_is_served_instead_of_a_dead_letter_moves_too(stores: Stores, tree: harness.Tree) -> None:
    """A document whose newest bytes cannot be read keeps its last good version in the other store, with its
    newest permissions, and again on the way back; one that was never readable is in neither."""
    tree.become(DOCUMENTS)
    with stores.bench() as bench:
        ingest(bench, [tree.spec()], "r1")
    tree.become(DOCUMENTS | {A: "Second edition.", F: " "})
    with stores.bench("second") as bench:
        ingest(bench, [tree.spec()], "r2")
        tree.write(A, b"")
        ingest(bench, [tree.spec()], "r3")
        served = {r[-1] for r in harness.identified(bench)}
        assert "Second edition." in served
    with stores.bench(max_dead_letter_share=0.5) as bench:
        spec = tree.spec(acl=("legal",))
        planned = plan(bench, [spec])
        counters = ingest(bench, [spec], "r4")
        assert planned.index_writes == counters["index_writes"]
        assert bench.ledger.releases.serving() == bench.release
        rows = harness.index_rows(bench, "uri", "text", "acl")
        assert {r["text"] for r in rows} == served and {tuple(r["acl"]) for r in rows} == {("legal",)}
        assert F not in {r["uri"] for r in rows}
        harness.check_invariants(bench)


def test_away_from_a_store_that_is_gone(server: Stores, tree: harness.Tree) -> None:
    """The serving store does not answer: another one takes over all the same. What the dead one holds is let go
    of when it is back, and stops nobody until then."""
    tree.become(DOCUMENTS)
    with server.bench("second") as bench:
        ingest(bench, [tree.spec()], "r1")
        before = harness.identified(bench)
    server.second.away = True
    tree.write(F, "New.")
    tree.write(A, "Changed.")
    with server.bench() as bench:
        with pytest.raises(DependencyError, match="is away"):
            ingest(bench, [tree.spec()], "r2", buckets=["3"])  # it would go on serving without the run's changes
        ingest(bench, [tree.spec()], "r3")
        assert bench.ledger.releases.serving() == bench.release
        same = {r for r in harness.identified(bench) if r[5] not in (A, F)}
        assert same == {r for r in before if r[5] != A} and F in harness.uris(bench)
        assert (A, "Changed.") in {(r[5], r[-1]) for r in harness.identified(bench)}
    for size in (40, 48):
        with server.bench(chunk_tokens=size) as bench:
            ingest(bench, [tree.spec()], f"r{size}")
    states = [(r.store, r.state) for r in bench.ledger.releases.all()]
    assert states == [("second", "retired"), ("lancedb", "retired"), ("lancedb", "serving")]
    server.second.away = False
    with server.bench(chunk_tokens=48) as bench:
        ingest(bench, [tree.spec()], "last")
        assert [r.store for r in bench.ledger.releases.all()] == ["lancedb", "lancedb"]
        assert bench.run(server.second.indexes()) == [] and bench.run(bench.stores.replica.indexes()) == []  # type: ignore[union-attr]


def test_an_unknown_store_names_the_known_ones(stores: Stores, tree: harness.Tree) -> None:
    """A mistake in RAG_VECTOR_STORE changes nothing."""
    with stores.bench("lancebd") as bench, pytest.raises(ConfigurationError, match="lancedb"):
        ingest(bench, [tree.spec()], "r1")


# ── rebuild ──


def test_a_rebuild_into_another_store_keeps_what_is_there(stores: Stores, tree: harness.Tree) -> None:
    """Built from what is stored, promoted, and the second time nothing is left to do; an index that was lost
    meanwhile is noticed."""
    tree.become(DOCUMENTS)
    with stores.bench() as bench:
        ingest(bench, [tree.spec()], "r1")
        before = harness.identified(bench)
        view = bench.in_store("second")
        assert harness.rebuild(view, "b1")["index_writes"] == 5
        assert "RAG_VECTOR_STORE is lancedb" in (disagreement(bench) or "")
        assert harness.identified(bench) == before
        assert harness.rebuild(bench, "b2")["index_writes"] == 0  # back, and still there
        stores.second._rows.clear()
        assert harness.rebuild(bench.in_store("second"), "b3")["index_writes"] == 5
        assert harness.identified(bench) == before
        harness.check_invariants(view)


def test_a_rebuild_of_the_serving_index_writes_every_document(bench: Workbench, tree: harness.Tree) -> None:
    """Each document is exchanged for itself; one that was interrupted is continued."""
    tree.become(DOCUMENTS)
    ingest(bench, [tree.spec()], "r1")
    before = harness.identified(bench)
    assert harness.rebuild(bench, "b1")["index_writes"] == 5
    rebuild_stage.begin_rebuild(bench, bench.bucket_names)
    assert index(bench, ["3"], run_id="b2").totals["index_writes"] == 3
    assert harness.rebuild(bench, "b3")["index_writes"] == 2
    assert harness.rebuild(bench, "b4")["index_writes"] == 5
    assert harness.identified(bench) == before
    harness.check_invariants(bench)


def test_an_index_that_cannot_be_read_is_dropped_and_written(settings: Settings, tree: harness.Tree) -> None:
    """Damaged data files, or no index at all, end in a whole one."""
    tree.become(DOCUMENTS)
    with Workbench(settings) as bench:
        ingest(bench, [tree.spec()], "r1")
        before = harness.identified(bench)
        table = settings.root / "index" / f"{bench.release.index_name}.lance"
    for file in (table / "data").iterdir():
        file.write_bytes(b"not a table")
    with Workbench(settings) as bench:
        with pytest.raises(DependencyError, match="all its partitions"):
            rebuild_stage.begin_rebuild(bench, ["3"])
        assert harness.rebuild(bench, "b1")["index_writes"] == 5
        assert harness.identified(bench) == before
    shutil.rmtree(table)
    with Workbench(settings) as bench:
        assert harness.rebuild(bench, "b2")["index_writes"] == 5
        assert harness.identified(bench) == before
        harness.check_invariants(bench)


def test_lost_vectors_stop_a_rebuild_before_it_touches_anything(bench: Workbench, tree: harness.Tree) -> None:
    """The message says what to run; that makes again what was lost, and only that."""
    tree.become(DOCUMENTS)
    ingest(bench, [tree.spec()], "r1")
    before = harness.identified(bench)
    tree.write(F, "Later.")
    ingest(bench, [tree.spec()], "r2")
    oldest = bench.ledger.artifacts.all_segments("embed")[0]
    bench.objects.delete([oldest.object_key])
    with pytest.raises(DependencyError, match=r"restore the object store.*rag doctor --repair.*rag ingest"):
        harness.rebuild(bench, "b1")
    assert harness.identified(bench) > before
    with Workbench(bench.settings) as later:
        assert [s.segment_id for s in lost_segments(later)] == [oldest.segment_id]
        touched = forget_lost(later)
        assert 0 < touched < 6 and lost_segments(later) == [] and forget_lost(later) == 0
        counters = ingest(later, [tree.spec()], "r3")
        assert (counters["parsed"], counters["embedded"], counters["index_writes"]) == (0, oldest.rows, touched)
        assert harness.rebuild(later, "b2")["index_writes"] == 6
        assert harness.identified(later) > before
        harness.check_invariants(later)


# ── the keyword replica ──


def words_of(bench: Workbench) -> set[tuple[str, str]]:
    """(uri, text) of what the serving release's replica holds."""
    release = bench.ledger.releases.serving()
    assert release is not None and bench.stores.replica is not None
    batches = bench.stores.replica.scan(f"keyword_{release.release_id}", ["uri", "text"])
    return {(r["uri"], r["text"]) for batch in batches for r in batch.to_pylist()}


def test_the_replica_follows_the_index(server: Stores, tree: harness.Tree) -> None:
    """A server store has a replica of what its index holds, without vectors, at the price of the difference; an
    embedded store has none."""
    tree.become(DOCUMENTS)
    with server.bench() as bench:
        assert ingest(bench, [tree.spec()], "r0")["replica_writes"] == 0
    assert not (server.settings.root / "keyword_replica").exists()
    with server.bench("second") as bench:
        counters = ingest(bench, [tree.spec()], "r1")
        assert (counters["index_writes"], counters["replica_writes"]) == (5, 5)
        assert words_of(bench) == {(r["uri"], r["text"]) for r in harness.index_rows(bench, "uri", "text")}
        tree.delete(A)
        tree.write(D, "Changed.")
        tree.write(E, b"")  # a dead letter: its old version stays
        assert ingest(bench, [tree.spec()], "r2")["replica_writes"] == 2
        assert words_of(bench) == {(r["uri"], r["text"]) for r in harness.index_rows(bench, "uri", "text")}
        assert (D, "Changed.") in words_of(bench) and E in {u for u, _ in words_of(bench)}
        assert ingest(bench, [tree.spec()], "r3")["replica_writes"] == 0
        assert ingest(bench, [tree.spec(acl=("legal",))], "r4")["replica_writes"] == 4
        harness.check_invariants(bench)


def test_a_replica_in_another_place_is_filled(server: Stores, tree: harness.Tree, tmp_path: Path) -> None:
    """Where RAG_KEYWORD_REPLICA_URL points is filled from what is stored; none keeps none."""
    tree.become(DOCUMENTS)
    with server.bench("second", keyword_replica_url="none") as bench:
        assert ingest(bench, [tree.spec()], "r1")["replica_writes"] == 0
    for n, place in enumerate((None, str(tmp_path / "elsewhere"), None)):
        with server.bench("second", keyword_replica_url=place) as bench:
            assert ingest(bench, [tree.spec()], f"p{n}")["replica_writes"] == (5, 5, 0)[n]
            assert len(words_of(bench)) == 5


def test_a_lost_or_damaged_replica_is_noticed_and_written(server: Stores, tree: harness.Tree) -> None:
    """The daily comparison marks what is missing; a rebuild drops what cannot be read."""
    tree.become(DOCUMENTS)
    place = server.settings.root / "keyword_replica"
    with server.bench("second") as bench:
        ingest(bench, [tree.spec()], "r1")
        shutil.rmtree(place)
    with server.bench("second") as bench:
        assert housekeeping(bench)["wrong_in_replica"] == 5
        assert ingest(bench, [tree.spec()], "r2")["replica_writes"] == 5
        harness.check_invariants(bench)
    [table] = place.glob("*.lance")
    for file in (table / "data").iterdir():
        file.write_bytes(b"not a table")
    with server.bench("second") as bench:
        assert harness.rebuild(bench, "b1") == {"index_writes": 5, "replica_writes": 5}
        harness.check_invariants(bench)


def test_a_candidate_waits_for_its_replica(server: Stores, tree: harness.Tree) -> None:
    """A server store does not serve before words can be found without it."""
    tree.become(DOCUMENTS)
    with server.bench() as bench:
        ingest(bench, [tree.spec()], "r1")
        first = bench.release_id
    blocked = server.settings.root / "keyword_replica"
    blocked.write_text("in the way of a folder")
    with server.bench("second") as bench:
        with pytest.raises(DependencyError):
            ingest(bench, [tree.spec()], "r2")
        serving = bench.ledger.releases.serving()
        assert serving is not None and serving.release_id == first
        blocked.unlink()
    with server.bench("second") as bench:
        ingest(bench, [tree.spec()], "r3")
        assert bench.ledger.releases.serving() == bench.release
        harness.check_invariants(bench)


def test_an_outage_of_the_embedder_does_not_keep_a_deletion_from_the_replica(
    server: Stores, tree: harness.Tree
) -> None:
    """What the index stage writes on its own the replica stage writes too."""
    tree.become(DOCUMENTS)
    with server.bench("second") as bench:
        ingest(bench, [tree.spec()], "r1")
        tree.delete(A)
        counters = ingest(bench, [tree.spec()], "r2")
        assert (counters["removed"], counters["replica_writes"]) == (1, 1)
        embed(bench, bench.bucket_names, run_id="r3")
        assert A not in {uri for uri, _ in words_of(bench)}
