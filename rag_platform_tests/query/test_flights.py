"""Concurrent identical runs are one run, whoever comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable

import pytest

from rag_platform.query.flights import Flights


class Work:
    """A run that emits ``count`` numbers, one each time ``step`` is released, and remembers how often it ran."""

    def __init__(self, count: int = 3, error: BaseException | None = None) -> None:
        self.count, self.error = count, error
        self.started = self.finished = self.closed = 0
        self.gate = asyncio.Semaphore(0)

    async def __call__(self) -> AsyncIterator[int]:
        self.started += 1
        try:
            for n in range(self.count):
                await self.gate.acquire()
                yield n
            if self.error is not None:
                raise self.error
            self.finished += 1
        finally:
            await asyncio.sleep(0)  # closing may take a round of the loop
            self.closed += 1

    def release(self, steps: int = 1) -> None:
        for _ in range(steps):
            self.gate.release()


async def collect(events: AsyncIterator[int]) -> list[int]:
    return [e async for e in events]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


def test_two_hundred_identical_joins_are_one_run() -> None:
    """P12: each listener gets everything, from one run."""

    async def main() -> None:
        flights, work = Flights[int](), Work(5)
        listeners = [asyncio.create_task(collect(flights.join("k", work))) for _ in range(200)]
        await until(lambda: work.started == 1)
        work.release(5)
        assert await asyncio.gather(*listeners) == [list(range(5))] * 200
        assert (work.started, work.finished, work.closed) == (1, 1, 1)
        await until(lambda: flights.running == 0)

    asyncio.run(main())


def test_who_comes_late_gets_it_all() -> None:
    """Events are replayed from the first; after the end a join is a new run."""

    async def main() -> None:
        flights, work = Flights[int](), Work(3)
        first = flights.join("k", work)
        work.release(2)
        assert [await anext(first), await anext(first)] == [0, 1]
        late = asyncio.create_task(collect(flights.join("k", work)))
        work.release()
        assert await late == [0, 1, 2] and await collect(first) == [2]
        work.release(3)
        await until(lambda: flights.running == 0)
        assert await collect(flights.join("k", work)) == [0, 1, 2]
        assert work.started == 2

    asyncio.run(main())


def test_keys_are_apart_and_none_is_never_shared() -> None:
    """Another key is another run; so is each join without one."""

    async def main() -> None:
        flights, work = Flights[int](), Work(1)
        work.release(4)
        joins = [flights.join(key, work) for key in ("a", "b", None, None)]
        assert await asyncio.gather(*(collect(j) for j in joins)) == [[0]] * 4
        assert work.started == 4

    asyncio.run(main())


def test_each_listener_gets_the_error() -> None:
    """The run's own exception, once each, with a traceback that does not grow from one to the next."""

    async def main() -> None:
        flights, error = Flights[int](), ValueError("boom")
        work = Work(1, error)
        listeners = [asyncio.create_task(collect(flights.join("k", work))) for _ in range(50)]
        work.release()
        found = await asyncio.gather(*listeners, return_exceptions=True)
        assert all(f is error for f in found)
        depth, traceback = 0, error.__traceback__
        while traceback is not None:
            depth, traceback = depth + 1, traceback.tb_next
        assert depth < 10
        await until(lambda: flights.running == 0)

    asyncio.run(main())


@pytest.mark.parametrize("leave", ["aclose", "cancel"])
def test_leaving_disturbs_nobody_and_the_last_one_stops_the_run(leave: str) -> None:
    """Others go on; when nobody is left the run is cancelled and closed, and the next join starts anew."""

    async def main() -> None:
        flights, work = Flights[int](), Work(3)

        async def listen_until_told(events: AsyncIterator[int], heard: asyncio.Event, stop: asyncio.Event) -> None:
            async with contextlib.aclosing(events):  # type: ignore[type-var]
                await anext(events)
                heard.set()
                if leave == "aclose":
                    await stop.wait()
                else:
                    await anext(events)

        heard, stop = [asyncio.Event() for _ in range(3)], asyncio.Event()
        listeners = [asyncio.create_task(listen_until_told(flights.join("k", work), h, stop)) for h in heard[:2]]
        staying = flights.join("k", work)
        work.release()
        assert await anext(staying) == 0
        for h in heard[:2]:
            await h.wait()
        if leave == "aclose":
            stop.set()
        else:
            for task in listeners:
                task.cancel()
        await asyncio.wait(listeners)
        work.release()
        assert await anext(staying) == 1 and work.closed == 0
        await staying.aclose()  # type: ignore[attr-defined]
        again = flights.join("k", work)
        work.release(3)
        assert await collect(again) == [0, 1, 2]
        await until(lambda: flights.running == 0)
        assert (work.started, work.finished, work.closed) == (2, 1, 2)

    asyncio.run(main())


def test_a_join_that_is_never_read_starts_nothing() -> None:
    """It is an iterator: making it costs nothing and leaves nothing."""

    async def main() -> None:
        flights, work = Flights[int](), Work()
        unread = flights.join("k", work)
        await unread.aclose()  # type: ignore[attr-defined]
        assert work.started == 0 and flights.running == 0

    asyncio.run(main())


def test_closing_all() -> None:
    """Every run ends, and whoever still listens is told."""

    async def main() -> None:
        flights, work = Flights[int](), Work()
        listeners = [asyncio.create_task(collect(flights.join(f"k{n % 3}", work))) for n in range(9)]
        await until(lambda: work.started == 3)
        await flights.aclose()
        done, pending = await asyncio.wait(listeners, timeout=20)
        assert not pending and all(t.cancelled() for t in done)
        assert flights.running == 0 and work.closed == 3

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(5))
def test_any_coming_and_going(seed: int) -> None:
    """Random joins, leavings and errors: whoever stays gets the whole run or its error; no task is left."""
    rng = random.Random(seed)

    async def main() -> None:
        flights = Flights[int]()
        loose: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: loose.append(context))

        async def work() -> AsyncIterator[int]:
            fails = rng.random() < 0.2
            for n in range(4):
                await asyncio.sleep(rng.random() * 0.003)
                yield n
            if fails:
                raise KeyError("k")

        async def listener() -> None:
            await asyncio.sleep(rng.random() * 0.05)
            key, leaves_after = rng.choice("abc"), rng.choice([None, None, 0, 1, 2])
            got: list[int] = []
            try:
                async with contextlib.aclosing(flights.join(key, work)) as events:  # type: ignore[type-var]
                    async for event in events:
                        got.append(event)
                        if leaves_after == len(got):
                            return
                assert got == [0, 1, 2, 3]
            except KeyError:
                assert got == [0, 1, 2, 3]

        tasks = [asyncio.create_task(listener()) for _ in range(120)]
        for task in rng.sample(tasks, 30):
            asyncio.get_running_loop().call_later(rng.random() * 0.05, task.cancel)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert result is None or isinstance(result, asyncio.CancelledError), result
        await until(lambda: flights.running == 0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert loose == []

    asyncio.run(main())
