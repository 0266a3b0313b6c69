"""The protocol of stores without transactions, over primitives that can be stopped and looked at anywhere."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable
from typing import Any

import pytest

from rag_platform.backends.vector_stores import two_phase
from rag_platform.backends.vector_stores.base import SearchRequest, VectorStore
from rag_platform.backends.vector_stores.two_phase import TwoPhaseStore
from rag_platform.errors import DependencyError
from rag_platform.records import LOCAL_OPERATOR
from rag_platform_tests.backends.two_phase_rows import DictRows
from rag_platform_tests.contracts.vector_stores import DIMENSIONS, VectorStoreContract, doc_id, document, table, unit

BEFORE = table(
    document("a.md", ["tide one", "tide two", "tide three"], seed=1),
    document("b.md", ["tide four"], seed=9),
    document("gone.md", ["tide five"], seed=12),
)
AFTER = table(
    document("a.md", ["tide six", "tide seven"], version="v2", seed=20),
    document("b.md", ["tide eight", "tide nine"], version="v2", seed=30),
    document("new.md", ["tide ten", "tide eleven"], version="v2", seed=40),
)
STALE = [doc_id(uri) for uri in ("a.md", "b.md", "gone.md")]
SIZES = {
    ("a.md", "v1"): 3,
    ("b.md", "v1"): 1,
    ("gone.md", "v1"): 1,
    ("a.md", "v2"): 2,
    ("b.md", "v2"): 2,
    ("new.md", "v2"): 2,
}
REQUEST = SearchRequest(LOCAL_OPERATOR, 50, ("vector", "keyword"), "tide", unit(3))


class Crash(Exception):
    pass


class TestTwoPhaseStore(VectorStoreContract):
    @pytest.fixture
    def store(self) -> VectorStore:
        return TwoPhaseStore(DictRows(), keyword=True)


def consistent(legs: Any) -> dict[str, str]:
    """Check that each document has all of one version, the same in both legs; return uri → version."""
    seen: list[dict[str, str]] = []
    for hits in legs.values():
        versions: dict[str, set[str]] = {}
        for h in hits:
            versions.setdefault(h.uri, set()).add(h.version_id)
        assert all(len(v) == 1 for v in versions.values()), versions
        found = {uri: v.copy().pop() for uri, v in versions.items()}
        for uri, version in found.items():
            assert sum(h.uri == uri for h in hits) == SIZES[uri, version]
        seen.append(found)
    assert all(s == seen[0] for s in seen)
    return seen[0]


async def filled() -> DictRows:
    rows = DictRows()
    store = TwoPhaseStore(rows, keyword=True)
    await store.ensure("i", DIMENSIONS)
    await store.replace("i", BEFORE, stale=[])
    return rows


def crash_after(steps: int) -> Any:
    left = steps

    async def step(_: str) -> None:
        nonlocal left
        if left == 0:
            raise Crash
        left -= 1

    return step


@pytest.mark.parametrize("change", ["replace", "delete"])
def test_a_crash_anywhere_is_invisible_and_repaired_by_the_next_call(change: str) -> None:
    """Stopped before any primitive step: each document is whole, in its old or its new version, counts and scans agree
    with the searches; the same call again ends where an undisturbed one ends, with nothing left behind (P1, P2)."""

    async def work(store: TwoPhaseStore, stale: list[str] = STALE) -> None:
        if change == "replace":
            await store.replace("i", AFTER, stale=stale)
        else:
            await store.delete("i", [doc_id("a.md"), doc_id("b.md")])

    async def main() -> int:
        wanted = {"a.md": "v2", "b.md": "v2", "new.md": "v2"} if change == "replace" else {"gone.md": "v1"}
        for steps in range(1000):
            rows = await filled()
            rows.step = crash_after(steps)
            crashed = False
            try:
                await work(TwoPhaseStore(rows, keyword=True))
            except Crash:
                crashed = True
            rows.step = DictRows().step
            store = TwoPhaseStore(rows, keyword=True)  # another process
            versions = consistent((await store.search("i", REQUEST)).legs)
            assert {"a.md", "b.md"} <= set(versions) or change == "delete"
            visible = sum(SIZES[one] for one in versions.items())
            assert await store.count("i") == visible
            assert await store.count("i", [doc_id(uri) for uri in versions]) == visible
            scanned = [
                r for batch in [b async for b in store._scan("i", ["uri", "version_id"])] for r in batch.to_pylist()
            ]
            assert sorted({(r["uri"], r["version_id"]) for r in scanned}) == sorted(versions.items())
            assert len(scanned) == visible
            await work(store, [*STALE, doc_id("new.md")])  # the ledger marks what it begins to write as dirty
            assert consistent((await store.search("i", REQUEST)).legs) == wanted
            assert len(rows.rows["i"]) == sum(SIZES[one] for one in wanted.items()), "nothing is left behind"
            if not crashed:
                return steps
        raise AssertionError("never came to an end")

    assert asyncio.run(main()) > 3


class Turns:
    """Lets two tasks, named ``write`` and ``read``, make their steps in a given order; afterwards as they like."""

    def __init__(self, order: Iterable[str]) -> None:
        self._order = list(order)
        self._ended: set[str] = set()
        self._turn = asyncio.Condition()
        self.steps = Counter[str]()

    async def step(self, _: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        who = task.get_name()
        async with self._turn:
            await self._turn.wait_for(lambda: self._next() in (None, who))
            if self._order:
                self._order.pop(0)
            self.steps[who] += 1
            self._turn.notify_all()

    def _next(self) -> str | None:
        while self._order and self._order[0] in self._ended:
            self._order.pop(0)
        return self._order[0] if self._order else None

    def start(self, who: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        async def until_it_ends() -> Any:
            try:
                return await work
            finally:
                async with self._turn:
                    self._ended.add(who)
                    self._turn.notify_all()

        return asyncio.create_task(until_it_ends(), name=who)


@pytest.mark.parametrize("warm", [False, True])
def test_a_search_at_any_moment_of_a_write_sees_no_gap_and_no_mixture(
    warm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a search begins, and however far the write goes on between any two of the search's steps, the result is
    whole (P2); also for a reader that has seen the old version before (``warm``), and for documents that are new."""

    async def in_turn(*work: Any) -> list[Any]:
        return [await w for w in work]

    # The legs of a search run side by side; as tasks of their own they would not carry the reader's name.
    monkeypatch.setattr(two_phase, "_side_by_side", in_turn)

    async def one(before: int, looks: int, between: int) -> int:
        rows = await filled()
        reader = TwoPhaseStore(rows, keyword=True)
        if warm:
            await reader.search("i", REQUEST)
        turns = Turns(["write"] * before + ["read"] * looks + ["write"] * between + ["read"] * 1000)
        rows.step = turns.step
        async with asyncio.timeout(60):
            write = turns.start("write", TwoPhaseStore(rows, keyword=True).replace("i", AFTER, stale=STALE))
            read = turns.start("read", reader.search("i", REQUEST))
            versions = consistent((await read).legs)
            await write
        assert {"a.md", "b.md"} <= set(versions)
        return turns.steps["write"]

    async def main() -> None:
        steps = await one(1000, 0, 0)
        for before in range(steps + 1):
            for looks in (1, 2, 3, 4, 5):
                for between in range(1, steps - before + 1):
                    await one(before, looks, between)

    asyncio.run(main())


def test_rows_of_dead_writes_are_removed_when_they_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maintenance removes what no entry names, but not the rows of a write that may still be under way."""

    async def main() -> None:
        rows = await filled()
        await rows.put_rows("i", document("late.md", ["x", "y"]), two_phase._new_write_id())
        store = TwoPhaseStore(rows, keyword=True)
        assert (await store.maintain("i"))["abandoned_writes"] == 0
        monkeypatch.setattr(two_phase, "ABANDONED_S", -10.0)
        assert (await store.maintain("i"))["abandoned_writes"] == 1
        assert len(rows.rows["i"]) == 5 == await store.count("i")

    asyncio.run(main())


def test_rows_that_the_store_lost_are_not_published() -> None:
    """A store that says yes and holds fewer rows is found out before anybody sees them."""

    class Forgetful(DictRows):
        async def put_rows(self, index: str, rows: Any, write_id: str) -> None:
            await super().put_rows(index, rows[1:], write_id)

    async def main() -> None:
        rows = await filled()
        forgetful = Forgetful()
        forgetful.rows, forgetful.entries, forgetful.sizes = rows.rows, rows.entries, rows.sizes
        store = TwoPhaseStore(forgetful, keyword=True)
        with pytest.raises(DependencyError):
            await store.replace("i", AFTER, stale=STALE)
        assert consistent((await store.search("i", REQUEST)).legs) == {"a.md": "v1", "b.md": "v1", "gone.md": "v1"}

    asyncio.run(main())
