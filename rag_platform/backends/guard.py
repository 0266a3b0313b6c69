"""How a question's step calls a dependency: never more at a time than it bears, never when it is known to
be down, never past the deadline, and again only while the retry budget lasts.

Ingestion waits for an upstream to come back; a reader does not. So nothing here waits for a breaker: a
dependency that is known to be down fails at once, and the step that needed it degrades.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from rag_platform import metrics
from rag_platform.backends.throttle import AdaptiveLimiter, CircuitBreaker
from rag_platform.errors import DependencyError, DependencyTimeout, RateLimited

T = TypeVar("T")

BREAKER_FAILURES = 3
"""In a row, after which a dependency of the query path is not called for a while."""


class RetryBudget:
    """Retries as a share of calls, so that a dead upstream sees at most ``1 + share`` times the calls.

    Args:
        share: retries earned by each first call.
        burst: retries that may be saved up, and that are there at the start.
    """

    def __init__(self, share: float = 0.1, burst: float = 5.0) -> None:
        self._share, self._burst, self._level = share, burst, burst
        self._lock = threading.Lock()

    def earn(self) -> None:
        """Count one first call."""
        with self._lock:
            self._level = min(self._burst, self._level + self._share)

    def spend(self) -> bool:
        """Take one retry; False when none is left."""
        with self._lock:
            if self._level < 1:
                return False
            self._level -= 1
            return True


class Guard:
    """Bulkhead, circuit breaker, retry budget and deadline of one dependency.

    Args:
        dependency: its role and name, as in ``DependencyError.dependency``.
        concurrency: calls in flight; halved while the upstream asks to slow down.
        failures: consecutive failures that open the breaker.
        attempts: calls for one question at most, the first included.
        retries: shared budget; every guard without one has its own.
    """

    def __init__(
        self,
        dependency: str,
        *,
        concurrency: int = 16,
        failures: int = 5,
        pause_s: float = 0.5,
        max_pause_s: float = 30.0,
        attempts: int = 2,
        retries: RetryBudget | None = None,
    ) -> None:
        self.dependency = dependency
        self.breaker = CircuitBreaker(failures, pause_s, max_pause_s)
        self.limiter = AdaptiveLimiter(concurrency)
        self._attempts = attempts
        self._retries = retries or RetryBudget()

    async def call(
        self,
        attempt: Callable[[float], Awaitable[T]],
        timeout_s: float,
        *,
        repeatable: Callable[[], bool] = lambda: True,
    ) -> T:
        """Return what ``attempt(seconds left)`` returns; calls it again when that is allowed and useful.
        ``repeatable`` is asked after a failure: False once an attempt had an effect that cannot be undone.

        Raises:
            DependencyError: known to be down, no slot, no answer in ``timeout_s``, or as the last
                attempt raised. Any other exception passes and says nothing about the dependency.
        """
        deadline = time.monotonic() + timeout_s
        self._retries.earn()
        for number in range(1, self._attempts + 1):
            try:
                async with self.admitted(deadline - time.monotonic()) as left:
                    return await attempt(left)
            except DependencyError as e:
                pause = max(random.uniform(0.02, 0.08) * number, e.retry_after_s or 0.0)
                out_of_time = time.monotonic() + pause >= deadline
                again = e.retryable and repeatable() and number < self._attempts and not out_of_time
                if not again or not self._retries.spend():
                    raise
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def admitted(self, timeout_s: float) -> AsyncIterator[float]:
        """Hold a slot around one attempt and tell the breaker how it ended; yields the seconds left.

        Raises:
            DependencyError: see ``call``; what the block raises, with ``TimeoutError`` of our own deadline
                as ``DependencyTimeout``.
        """
        started = time.monotonic()
        deadline = started + timeout_s
        if self.breaker.delay(max(timeout_s, 0.05)) > 0:
            self._count("skipped")
            raise DependencyError(self.dependency, "not called: it failed repeatedly", retryable=False) from (
                self.breaker.last_error
            )
        entered = False
        try:
            async with asyncio.timeout(max(timeout_s, 0.0)), self.limiter.slot():
                entered = True
                yield deadline - time.monotonic()
        except TimeoutError as e:
            error = DependencyTimeout(self.dependency, f"no answer within {timeout_s:.3g} s")
            # Waiting for a slot says that we are busy, not that the upstream is down.
            self._failed(error) if entered else self.breaker.abandoned()
            raise error from e
        except RateLimited as e:
            self.limiter.slow_down(started)
            self._failed(e)
            raise
        except DependencyError as e:
            self._failed(e)
            raise
        except BaseException:
            self.breaker.abandoned()
            raise
        self.limiter.succeeded()
        self.breaker.succeeded()
        self._count("ok")
        metrics.BREAKER_OPEN.labels(self.dependency).set(0)

    def _failed(self, error: DependencyError) -> None:
        self.breaker.failed(error)
        self._count("failed")
        metrics.BREAKER_OPEN.labels(self.dependency).set(self.breaker.is_open)

    def _count(self, outcome: str) -> None:
        metrics.UPSTREAM_CALLS.labels(self.dependency, outcome).inc()
