"""The guard in front of a dependency: bulkhead, breaker, retry budget, deadline."""

from __future__ import annotations

import asyncio
import time

import pytest

from rag_platform.backends.guard import Guard, RetryBudget
from rag_platform.errors import DependencyError, DependencyTimeout, QuotaExhausted


class Upstream:
    """Counts its calls; fails the first ``failures`` of them."""

    def __init__(self, failures: int = 0, error: DependencyError | None = None) -> None:
        self.calls = self.at_once = self.most_at_once = 0
        self._failures = failures
        self._error = error or DependencyError("test", "down")

    async def answer(self, left: float) -> str:
        self.calls += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0)
            if self.calls <= self._failures:
                raise self._error
            return "answer"
        finally:
            self.at_once -= 1


def test_a_passing_failure_is_tried_once_more() -> None:
    """One failure of a retryable kind costs the question nothing but a second call."""
    upstream = Upstream(failures=1)
    assert asyncio.run(Guard("test").call(upstream.answer, 5)) == "answer"
    assert upstream.calls == 2


def test_what_a_retry_cannot_cure_is_not_tried_again() -> None:
    """A refusal for good (credit, key) is raised after one call, and opens the breaker at once."""
    upstream = Upstream(failures=9, error=QuotaExhausted("test", "pay"))
    guard = Guard("test", pause_s=60)

    async def twice() -> None:
        for _ in range(2):
            with pytest.raises(DependencyError):
                await guard.call(upstream.answer, 5)

    asyncio.run(twice())
    assert upstream.calls == 1


def test_a_dead_upstream_sees_hardly_more_calls_than_questions_and_then_none() -> None:
    """P8: without a breaker, calls ≤ 1.1 × questions + the saved-up retries; with it, a handful."""

    async def ask(guard: Guard, upstream: Upstream) -> None:
        for _ in range(200):
            with pytest.raises(DependencyError):
                await guard.call(upstream.answer, 5)

    budget = RetryBudget(0.1, 5)
    never_open, dead = Guard("test", failures=10**9, attempts=3, retries=budget), Upstream(failures=10**9)
    quick = Guard("test", failures=5, pause_s=60), Upstream(failures=10**9)
    never_open.limiter.slow_down = lambda started: None  # type: ignore[method-assign]  # not what is looked at
    asyncio.run(_without_pauses(ask, never_open, dead))
    assert 200 < dead.calls <= 1.1 * 200 + 5
    asyncio.run(ask(*quick))
    assert quick[1].calls <= 5 + 5


async def _without_pauses(ask: object, guard: Guard, upstream: Upstream) -> None:
    """Run with the pause before a retry taken out: it is random and only spreads load."""
    sleep = asyncio.sleep
    asyncio.sleep = lambda s, *a: sleep(0)  # type: ignore[assignment]
    try:
        await ask(guard, upstream)  # type: ignore[operator]
    finally:
        asyncio.sleep = sleep


def test_a_call_that_hangs_ends_at_the_deadline() -> None:
    """The deadline ends the call, and counts against the dependency."""
    guard = Guard("test", failures=1, pause_s=60)

    async def hang(left: float) -> None:
        await asyncio.Event().wait()

    started = time.monotonic()
    with pytest.raises(DependencyTimeout):
        asyncio.run(guard.call(hang, 0.1))
    assert time.monotonic() - started < 2
    assert guard.breaker.is_open


def test_no_more_calls_at_once_than_the_bulkhead_lets_through() -> None:
    """Questions wait for a slot; none is lost."""
    upstream, guard = Upstream(), Guard("test", concurrency=3)

    async def many() -> list[str]:
        return await asyncio.gather(*(guard.call(upstream.answer, 30) for _ in range(50)))

    assert asyncio.run(many()) == ["answer"] * 50
    assert upstream.most_at_once <= 3


def test_waiting_for_a_slot_in_vain_says_nothing_about_the_dependency() -> None:
    """A full bulkhead is our own business: the breaker stays closed."""
    guard = Guard("test", concurrency=1, failures=1)

    async def run() -> None:
        release = asyncio.Event()
        entered = asyncio.Event()

        async def hold(left: float) -> None:
            entered.set()
            await release.wait()

        holder = asyncio.create_task(guard.call(hold, 30))
        await entered.wait()
        with pytest.raises(DependencyTimeout):
            await guard.call(hold, 0.05)
        release.set()
        await holder

    asyncio.run(run())
    assert not guard.breaker.is_open


def test_an_open_breaker_fails_at_once_and_one_probe_closes_it() -> None:
    """While the pause lasts nothing is called; after it, one success is enough."""
    upstream = Upstream(failures=2)
    guard = Guard("test", failures=2, pause_s=0.05, attempts=1)

    async def run() -> str:
        for _ in range(2):
            with pytest.raises(DependencyError):
                await guard.call(upstream.answer, 5)
        with pytest.raises(DependencyError):
            await guard.call(upstream.answer, 5)
        assert upstream.calls == 2
        while True:
            try:
                return await guard.call(upstream.answer, 5)
            except DependencyError:
                await asyncio.sleep(0.01)

    assert asyncio.run(run()) == "answer"
    assert not guard.breaker.is_open
