"""How fast an upstream may be called: an adaptive number of calls at a time, a rate a minute, and a
pause while it is down. Shared by all calls of one client, whatever event loop or thread they run in.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import AsyncIterator

from rag_platform.errors import DependencyError


class AdaptiveLimiter:
    """Calls in flight: additive increase on success, halved when the upstream asks to slow down."""

    def __init__(self, maximum: int) -> None:
        self._maximum = float(maximum)
        self._limit = float(maximum)
        self._in_flight = 0
        self._halved_at = 0.0
        self._lock = threading.Lock()
        self._waiting: deque[_Waiter] = deque()

    @property
    def limit(self) -> int:
        """Calls that may be in flight now."""
        return max(1, int(self._limit))

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a free slot and hold it."""
        await self._acquire()
        try:
            yield
        finally:
            self._release()

    def succeeded(self) -> None:
        with self._lock:
            self._limit = min(self._maximum, self._limit + 1 / self._limit)

    def slow_down(self, started: float) -> None:
        """Halve, once for all the calls (by ``time.monotonic`` of their start) that were refused together."""
        with self._lock:
            if started >= self._halved_at:
                self._limit = max(1.0, self._limit / 2)
                self._halved_at = time.monotonic()

    async def _acquire(self) -> None:
        with self._lock:
            if self._in_flight < self.limit:
                self._in_flight += 1
                return
            waiter = _Waiter(asyncio.get_running_loop())
            self._waiting.append(waiter)
        try:
            await waiter.future
        except asyncio.CancelledError:
            with self._lock:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                    raise
            self._release()  # granted and cancelled at once
            raise

    def _release(self) -> None:
        with self._lock:
            self._in_flight -= 1
            while self._waiting and self._in_flight < self.limit:
                if self._waiting.popleft().wake():
                    self._in_flight += 1


class _Waiter:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.future: asyncio.Future[None] = loop.create_future()

    def wake(self) -> bool:
        """Returns whether the waiter's event loop still lives."""
        try:
            self._loop.call_soon_threadsafe(self._set)
        except RuntimeError:
            return False
        return True

    def _set(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class RateBudget:
    """A token bucket: ``per_minute`` units a minute, ten seconds' worth at once."""

    def __init__(self, per_minute: float) -> None:
        self._per_s = per_minute / 60
        self._burst = max(1.0, per_minute / 6)
        self._level = self._burst
        self._at = time.monotonic()
        self._lock = threading.Lock()

    def reserve(self, units: float) -> float:
        """Take ``units`` and return the seconds to wait before using them."""
        with self._lock:
            now = time.monotonic()
            self._level = min(self._burst, self._level + (now - self._at) * self._per_s)
            self._at = now
            self._level -= units
            return max(0.0, -self._level / self._per_s)

    def give_back(self, units: float) -> None:
        with self._lock:
            self._level += units


class CircuitBreaker:
    """Stops calling an upstream that is down: one probe at the end of each pause, pauses double.
    A wait that the upstream asked for is kept by all calls, from the first one.

    Args:
        failures: consecutive failures that open it.
        pause_s, max_pause_s: first and longest pause.
    """

    def __init__(self, failures: int = 5, pause_s: float = 0.5, max_pause_s: float = 30.0) -> None:
        self._threshold, self._first, self._longest = failures, pause_s, max_pause_s
        self._failures = 0
        self._open_until = 0.0
        self._probe_until = 0.0
        self._lock = threading.Lock()
        self.last_error: DependencyError | None = None

    def delay(self, probe_s: float) -> float:
        """Return 0 when a call may start now, else the seconds until it is worth asking again.

        After a pause one caller gets the 0 and has ``probe_s`` seconds to report back.
        """
        with self._lock:
            now = time.monotonic()
            if now < self._open_until:
                return self._open_until - now
            if self._failures < self._threshold:
                return 0.0
            if now < self._probe_until:
                return min(self._probe_until - now, 0.1)
            self._probe_until = now + probe_s
            return 0.0

    @property
    def is_open(self) -> bool:
        """Whether it takes the upstream to be down."""
        return self._failures >= self._threshold

    def succeeded(self) -> None:
        with self._lock:
            self._failures, self._open_until, self._probe_until, self.last_error = 0, 0.0, 0.0, None

    def failed(self, error: DependencyError) -> None:
        with self._lock:
            self.last_error = error
            # A refusal that waiting does not cure (key, credit) needs no second opinion.
            self._failures = max(self._failures + 1, 0 if error.retryable else self._threshold)
            self._probe_until = 0.0
            pause = error.retry_after_s or 0.0
            if self._failures >= self._threshold:
                own = min(self._longest, self._first * 2 ** min(self._failures - self._threshold, 16))
                pause = max(own * random.uniform(0.8, 1.2), pause)
            if pause:
                self._open_until = max(self._open_until, time.monotonic() + pause)

    def abandoned(self) -> None:
        """The caller gave up before an answer: says nothing about the upstream."""
        with self._lock:
            self._probe_until = 0.0
