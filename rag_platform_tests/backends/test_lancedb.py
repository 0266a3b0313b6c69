"""LanceDB: the contract, and what only an embedded store on disk can get wrong."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rag_platform import backends
from rag_platform.backends.vector_stores.base import SearchRequest, VectorStore
from rag_platform.backends.vector_stores.lance.words import asked, indexed
from rag_platform.backends.vector_stores.lancedb import LanceVectorStore, Settings
from rag_platform.errors import DependencyError, LockTimeout
from rag_platform.records import LOCAL_OPERATOR, Principal, index_schema
from rag_platform.settings import Settings as PlatformSettings
from rag_platform_tests.contracts.vector_stores import (
    DIMENSIONS,
    VectorStoreContract,
    contents,
    doc_id,
    document,
    keyword,
    run,
    table,
    vector,
)


class TestLanceVectorStore(VectorStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> VectorStore:
        return LanceVectorStore(str(tmp_path / "index"))


@pytest.fixture
def store(tmp_path: Path) -> LanceVectorStore:
    made = LanceVectorStore(str(tmp_path / "index"), Settings(keep_versions_s=0.001))
    run(made.ensure("i", DIMENSIONS))
    return made


def test_built_from_settings(tmp_path: Path) -> None:
    """``build`` reads RAG_INDEX_URL and RAG_LANCEDB_…; construction touches no disk."""
    settings = PlatformSettings.from_env({"RAG_HOME": str(tmp_path), "RAG_LANCEDB_NPROBES": "7"})
    made = backends.load("vector_stores", "lancedb").build(settings)
    assert made._settings.nprobes == 7 and list(tmp_path.iterdir()) == []
    run(made.ping())


def test_importing_the_adapter_does_not_import_lancedb() -> None:
    """An unchanged pass that asks nothing of the store does not pay for the library."""
    code = "import sys, rag_platform.backends.vector_stores.lancedb; sys.exit('lancedb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_search_column_is_hidden(store: LanceVectorStore) -> None:
    """A title is searched; the column made for that appears only when asked for by name."""
    run(store.replace("i", table(document("a", ["x"], title="Zebra crossing", heading_path="Roads > Rules")), stale=[]))
    assert len(run(keyword(store, "zebra"))) == len(run(keyword(store, "rule"))) == 1
    [batch] = store.scan("i", index_schema(DIMENSIONS).names)
    assert batch.schema.names == index_schema(DIMENSIONS).names
    assert [b.to_pylist() for b in store.scan("i", ["search_text"])] == [
        [{"search_text": "Zebra crossing\nRoads > Rules\nx"}]
    ]


@pytest.mark.parametrize(
    ("text", "index", "question"),
    [
        ("plain v1.2 text", "plain v1.2 text", "plain v1.2 text"),
        ("用Pod卷", " 用 Pod 卷 ", " 用 Pod 卷 "),
        ("存储卷A", " 存储 储卷 存 储 卷 A", " 存储 储卷 A"),
        ("ﬁle Ａ café", "file A café", "file A café"),
    ],
)
def test_unspaced_scripts_become_pairs(text: str, index: str, question: str) -> None:
    """Chinese becomes characters and pairs in the index and pairs in a question; other text stays."""
    assert (indexed(text), asked(text)) == (index, question)


@pytest.mark.parametrize("text", ["日本語の検索エンジン", "한국어검색기능", "ค้นหาเอกสาร", "文档，检索。"])
def test_other_unspaced_scripts_are_found(store: LanceVectorStore, text: str) -> None:
    """A part of an unspaced sentence finds it."""
    run(store.replace("i", table(document("a", [text]), document("b", ["something else"])), stale=[]))
    for part in (text, text[:4], text[-3:]):
        assert [h.uri for h in run(keyword(store, part))] == ["a"]


@pytest.mark.slow
def test_updates_leave_no_debris(store: LanceVectorStore, tmp_path: Path) -> None:
    """Two hundred updates, each with its maintenance, leave few fragments, versions and unindexed rows."""
    run(store.replace("i", table(*(document(f"d{n}", ["one", "two"]) for n in range(100))), stale=[]))
    worst = Counter[str]()

    async def update(step: int) -> None:
        name = f"d{step % 100}"
        await store.replace("i", table(document(name, ["three"], version=f"v{step}")), stale=[doc_id(name)])
        report = await store.maintain("i")
        for key in ("small_fragments", "versions", "unindexed_rows"):
            worst[key] = max(worst[key], report[key])

    for step in range(200):
        run(update(step))
    assert run(store.count("i")) == 100
    assert worst["small_fragments"] <= 12 and worst["versions"] <= 60
    details = run(store.stats("i")).details
    assert details["fragments"] <= 12 and details["versions"] <= 60
    files = [p for p in (tmp_path / "index" / "i.lance").rglob("*") if p.is_file()]
    assert len(files) < 600


def test_a_reader_outlives_maintenance(tmp_path: Path) -> None:
    """A scan that began before an update and a clean-up finishes with the rows it began with."""
    store = LanceVectorStore(str(tmp_path / "index"))
    run(store.ensure("i", DIMENSIONS))
    run(store.replace("i", table(*(document(f"d{n}", ["old"]) for n in range(6000))), stale=[]))
    batches = store.scan("i", ["text"])
    first = next(batches)
    run(store.replace("i", table(document("d0", ["new"], version="v2")), stale=[doc_id(f"d{n}") for n in range(6000)]))
    run(store.maintain("i", force=True))
    texts = first["text"].to_pylist() + [t for b in batches for t in b["text"].to_pylist()]
    assert texts == ["old"] * 6000 and run(store.count("i")) == 1


def test_one_writer(store: LanceVectorStore, tmp_path: Path) -> None:
    """A second writer waits its time and then says so; readers are not kept waiting."""
    import fcntl

    impatient = LanceVectorStore(str(tmp_path / "index"), Settings(lock_timeout_s=0))
    with (tmp_path / "index" / ".i.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for work in (
            impatient.delete("i", ["x"]),
            impatient.replace("i", table(), stale=["x"]),
            impatient.maintain("i"),
        ):
            with pytest.raises(LockTimeout):
                run(work)
        assert run(impatient.count("i")) == 0 and run(impatient.indexes()) == ["i"]
    run(impatient.delete("i", ["x"]))


def test_writers_without_a_lock_retry(tmp_path: Path) -> None:
    """On an object store there is no lock: commits that conflict are made again and nothing is lost."""
    stores = [LanceVectorStore(str(tmp_path / "index")) for _ in range(3)]
    for s in stores:
        s._folder = None
    run(stores[0].ensure("i", DIMENSIONS))

    async def write(writer: int) -> None:
        for step in range(8):
            name = f"d{writer}"
            rows = table(document(name, ["x"] * 3, version=f"v{step}"))
            await stores[writer].replace("i", rows, stale=[doc_id(name)])

    async def main() -> None:
        await asyncio.gather(*(write(n) for n in range(3)), stores[0].maintain("i", force=True))

    run(main())
    assert {(uri, version) for uri, version, *_ in contents(stores[0])} == {(f"d{n}", "v7") for n in range(3)}
    assert run(stores[0].count("i")) == 9


def test_vector_index_keeps_recall(tmp_path: Path) -> None:
    """Above the threshold an IVF index serves: recall@10 ≥ .99 on clustered vectors, also for a
    principal who may read one row in fifty, and rows written later are found."""
    store = LanceVectorStore(str(tmp_path / "index"), Settings(ivf_rows=2000))
    dimensions, rng = 32, np.random.default_rng(5)
    centres = rng.standard_normal((60, dimensions))
    vectors = (centres[rng.integers(60, size=6000)] + 0.6 * rng.standard_normal((6000, dimensions))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [
        row | {"vector": vectors[n], "acl": ["staff"] if n % 50 == 0 else ["board"]}
        for n in range(6000)
        for row in document(f"d{n}", ["x"])
    ]
    run(store.ensure("i", dimensions))
    run(store.replace("i", pa.Table.from_pylist(rows, schema=index_schema(dimensions)), stale=[]))
    assert run(store.maintain("i"))["vector_index"] == "built"
    assert run(store.maintain("i"))["vector_index"] == "kept"
    found = wanted = 0
    for principal, allowed in (
        (LOCAL_OPERATOR, range(6000)),
        (Principal("default", frozenset({"staff"})), range(0, 6000, 50)),
    ):
        members = np.array(allowed)
        for q in range(40):
            query = vectors[q * 7] + 0.2 * rng.standard_normal(dimensions).astype(np.float32) / dimensions**0.5
            exact = {f"d{n}" for n in members[np.argsort(-(vectors[members] @ query))[:10]]}
            request = SearchRequest(principal, 10, ("vector",), vector=query)
            hits = run(store.search("i", request)).legs["vector"]
            assert len(hits) == 10
            found, wanted = found + len(exact & {h.uri for h in hits}), wanted + 10
    assert found / wanted >= 0.99
    late = pa.Table.from_pylist([document("late", ["x"])[0] | {"vector": -vectors[0]}], schema=index_schema(dimensions))
    run(store.replace("i", late, stale=[]))
    request = SearchRequest(LOCAL_OPERATOR, 1, ("vector",), vector=-vectors[0])
    assert run(store.search("i", request)).legs["vector"][0].uri == "late"


def test_a_broken_store_is_a_dependency_error(tmp_path: Path) -> None:
    """A path that is no folder, and a damaged table, are failed dependencies: retried, never a document's fault."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(DependencyError):
        run(LanceVectorStore(str(tmp_path / "file")).ping())
    store = LanceVectorStore(str(tmp_path / "index"))
    run(store.ensure("i", DIMENSIONS))
    run(store.replace("i", table(document("a", ["x"])), stale=[]))
    for data in (tmp_path / "index" / "i.lance" / "data").rglob("*.lance"):
        data.write_bytes(b"damaged")
    fresh = LanceVectorStore(str(tmp_path / "index"))
    for work in (vector(fresh, 1), fresh.get("i", ["x"], LOCAL_OPERATOR)):
        with pytest.raises(DependencyError) as e:
            run(work)
        assert e.value.dependency == "vector_store:lancedb"
    with pytest.raises(DependencyError):
        list(fresh.scan("i", ["text"]))


def test_another_process_sees_each_commit(store: LanceVectorStore, tmp_path: Path) -> None:
    """A reader that is already open sees a commit of another process in its next search."""
    assert run(keyword(store, "tide")) == []
    code = f"""
from rag_platform.backends.vector_stores.lancedb import LanceVectorStore
from rag_platform_tests.contracts.vector_stores import document, run, table
run(LanceVectorStore({str(tmp_path / "index")!r}).replace("i", table(document("a", ["tide"])), stale=[]))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert [h.uri for h in run(keyword(store, "tide"))] == ["a"]


WRITER = """
import itertools, sys
from rag_platform.backends.vector_stores.lancedb import LanceVectorStore, Settings
from rag_platform_tests.contracts.vector_stores import doc_id, document, run, table
store = LanceVectorStore(sys.argv[1], Settings(keep_versions_s=0.001))
for step in itertools.count():
    version = f"{sys.argv[2]}.{step}"
    names = [f"d{(step + n) % 12}" for n in range(3)]
    rows = table(*(document(n, ["tide"] * (2 + step % 4), version=version, run_id=str(2 + step % 4)) for n in names))
    run(store.replace("i", rows, stale=[doc_id(n) for n in names]))
    run(store.maintain("i"))
    print("committed", flush=True)
"""


@pytest.mark.slow
def test_kill_nine_leaves_whole_documents(store: LanceVectorStore, tmp_path: Path) -> None:
    """Killed at any moment of replacing and maintaining, a writer leaves each document whole, old or
    new; its lock is gone; readers and the next writer go on (P1, P15)."""
    chance = random.Random(11)
    for life in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "index"), str(life)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert writer.stdout is not None
            for _ in range(8 + chance.randrange(12)):
                assert writer.stdout.readline() == "committed\n"
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(timeout=chance.random() * 0.2)
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
        rows = [r for b in store.scan("i", ["uri", "version_id", "run_id", "chunk_id"]) for r in b.to_pylist()]
        kinds = {
            uri: {(r["version_id"], int(r["run_id"])) for r in rows if r["uri"] == uri}
            for uri in {r["uri"] for r in rows}
        }
        for uri, versions in kinds.items():
            [(_, size)] = versions
            assert sum(r["uri"] == uri for r in rows) == size
        assert len({r["chunk_id"] for r in rows}) == len(rows)
        assert {h.chunk_id for h in run(keyword(store, "tide", k=100))} == {r["chunk_id"] for r in rows}
        assert {h.chunk_id for h in run(vector(store, 1, k=100))} == {r["chunk_id"] for r in rows}
    run(store.maintain("i", force=True))
    assert run(store.count("i")) == len(rows)
