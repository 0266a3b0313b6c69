"""Weaviate: the contract of every store, on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_platform.backends.vector_stores.base import SearchRequest, VectorStore
from rag_platform.backends.vector_stores.filters import And, Compare, Not, Or
from rag_platform.backends.vector_stores.lancedb import LanceVectorStore
from rag_platform.backends.vector_stores.weaviate import Settings, WeaviateVectorStore
from rag_platform.errors import DependencyError
from rag_platform.records import LOCAL_OPERATOR, Principal
from rag_platform_tests.backends import weaviate_server
from rag_platform_tests.backends.weaviate_server import WeaviateServer
from rag_platform_tests.contracts.closing import ClosedAfterUse
from rag_platform_tests.contracts.vector_stores import DIMENSIONS, VectorStoreContract, document, table, unit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[WeaviateServer]:
    program = weaviate_server.binary()
    if program is None:
        pytest.skip(weaviate_server.CURE)
    with weaviate_server.running(program) as running:
        yield running


@pytest.fixture
def store(server: WeaviateServer) -> Iterator[VectorStore]:
    """An empty store: what an earlier test left is dropped."""
    made = WeaviateVectorStore(Settings(url=server.url, grpc=server.grpc))

    async def empty() -> None:
        for index in await made.indexes():
            await made.drop(index)
        await made.aclose()

    asyncio.run(empty())
    yield ClosedAfterUse(made)  # type: ignore[misc]


class TestWeaviate(VectorStoreContract):
    pass


# ── outages ──


@pytest.fixture
def fragile() -> Iterator[WeaviateServer]:
    """A server of the test's own."""
    program = weaviate_server.binary()
    if program is None:
        pytest.skip(weaviate_server.CURE)
    with weaviate_server.running(program) as running:
        yield running


def test_a_server_that_is_not_there_is_an_outage_in_time(fragile: WeaviateServer) -> None:
    """Refused, frozen, killed in the middle: our error within the deadline; when it is back, the same store goes on
    with the same data and the same answers (P7, P15)."""
    rows = table(*(document(f"d{n}.md", [f"tide number {n}"], seed=n) for n in range(50)))

    async def main() -> None:
        async with contextlib.aclosing(
            WeaviateVectorStore(Settings(url=fragile.url, grpc=fragile.grpc, timeout_s=2.0))
        ) as store:
            await outages(store)

    async def outages(store: VectorStore) -> None:
        await store.ensure("i", DIMENSIONS)
        await store.replace("i", rows, stale=[])
        before = await found(store)
        for broken, mended in ((fragile.freeze, fragile.thaw), (fragile.kill, fragile.restart)):
            broken()
            started = time.monotonic()
            with pytest.raises(DependencyError) as caught:
                await found(store)
            assert time.monotonic() - started < 30, "a deadline of 2 s, on a busy machine"
            assert "tide" not in str(caught.value)
            with pytest.raises(DependencyError):
                await store.ping()
            mended()
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(DependencyError):
                        assert await found(store) == before
                        break
                    await asyncio.sleep(0.2)
            assert await store.count("i") == 50

    asyncio.run(main())


@pytest.mark.parametrize("vector_index", ["flat", "hnsw"])
def test_what_it_has_acknowledged_survives_its_death(fragile: WeaviateServer, vector_index: str) -> None:
    """Killed as soon as a write has returned, the server finds every chunk by its vector and by its words afterwards;
    an import alone would have lost a tenth of the vectors or more."""
    rows = table(*(document(f"d{n}.md", [f"tide number {n}"], seed=n) for n in range(300)))
    request = SearchRequest(LOCAL_OPERATOR, 1000, ("vector", "keyword"), "tide", unit(1))

    async def main() -> None:
        async with contextlib.aclosing(
            WeaviateVectorStore(Settings(url=fragile.url, grpc=fragile.grpc, vector_index=vector_index))
        ) as store:
            for index in ("a", "b", "c"):
                await store.ensure(index, DIMENSIONS)
                await store.replace(index, rows, stale=[])
                fragile.kill()
                fragile.restart()
                async with asyncio.timeout(60):
                    while True:
                        with contextlib.suppress(DependencyError):
                            legs = (await store.search(index, request)).legs
                            break
                        await asyncio.sleep(0.2)
                assert {leg: len(hits) for leg, hits in legs.items()} == {"vector": 300, "keyword": 300}

    asyncio.run(main())


async def found(store: VectorStore) -> list[tuple[str, ...]]:
    """What three questions find, in order."""
    seen = []
    for seed in (3, 17, 31):
        request = SearchRequest(LOCAL_OPERATOR, 10, ("vector", "keyword"), f"tide number {seed}", unit(seed))
        legs = (await store.search("i", request)).legs
        seen += [tuple(h.uri for h in legs["vector"]), tuple(sorted(h.uri for h in legs["keyword"][:1]))]
    return seen


# ── congruence ──


def test_it_finds_what_lancedb_finds(server: WeaviateServer, store: VectorStore, tmp_path: Path) -> None:
    """The same random documents, permissions, filters and questions: the same sets from both stores, and the same order
    of the vector leg up to ties."""
    rng = random.Random(11)
    words = [
        "harbour",
        "crane",
        "tide",
        "pilot",
        "berth",
        "buoy",
        "anchor",
        "ledger",
        "invoice",
        "night",
        "running",
        "runs",
        "quickly",
        "容器",
        "存储卷",
    ]
    documents = [
        document(
            f"{'old' if n % 5 == 0 else 'new'}/{n}.md",
            [" ".join(rng.choices(words, k=rng.randint(3, 12))) for _ in range(rng.randint(1, 4))],
            seed=1000 + 10 * n,
            tenant=rng.choice(["red", "blue"]),
            acl=rng.choice([["public"], ["staff"], ["legal"], ["staff", "legal"], []]),
            tags=rng.sample(["a", "b b", "c*"], rng.randint(0, 3)),
            page=rng.choice([None, 1, 2, 3]),
            modified_at=rng.choice([None, 1.5, 99.0]),
        )
        for n in range(120)
    ]
    filters = [
        None,
        Compare("uri", "^=", "old/"),
        And((Compare("page", ">=", 2), Not(Compare("tags", "has", "c*")))),
        Or((Compare("modified_at", "<", 50), Not(Compare("page", "!=", 1)))),
    ]
    principals = [
        LOCAL_OPERATOR,
        Principal("red"),
        Principal("blue", frozenset({"staff"})),
        Principal("red", frozenset({"legal"})),
    ]

    async def main() -> None:
        other = LanceVectorStore(str(tmp_path / "index"))
        for one in (store, other):
            await one.ensure("i", DIMENSIONS)
            await one.replace("i", table(*documents), stale=[])
        checked = 0
        for number in range(40):
            text = " ".join(rng.sample(words, rng.randint(1, 4)))
            request = SearchRequest(
                rng.choice(principals), 1000, ("vector", "keyword"), text, unit(5000 + number), rng.choice(filters)
            )
            here, there = [(await one.search("i", request)).legs for one in (store, other)]
            assert {h.chunk_id for h in here["keyword"]} == {h.chunk_id for h in there["keyword"]}
            assert [h.chunk_id for h in here["vector"]] == [h.chunk_id for h in there["vector"]]
            checked += len(here["keyword"])
        assert checked > 500
        await other.aclose()

    asyncio.run(main())
