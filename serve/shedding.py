"""Load shedding: a fixed number of places, a short queue, and an instant no to everybody else.

Beyond capacity, every further question that is let in makes all of them later; one that is refused at once
costs next to nothing and may be asked again (DESIGN §14, P9).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator

from rag_platform import metrics
from serve.problems import OVERLOADED, Problem

_SMOOTHING = 0.1
"""Weight of the newest service time in the moving average."""


class Gate:
    """Admits work in the order in which it came. For one event loop.

    Args:
        max_in_flight: places.
        max_waiting: how many may wait for one.
        max_wait_s: how long each may wait.
    """

    def __init__(self, max_in_flight: int, max_waiting: int, max_wait_s: float) -> None:
        self._places, self._max_waiting, self._max_wait_s = max_in_flight, max_waiting, max_wait_s
        self._free = max_in_flight
        self._queue: deque[asyncio.Future[None]] = deque()
        self._service_s = 0.1

    @property
    def in_flight(self) -> int:
        return self._places - self._free

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def refuse_if_full(self) -> None:
        """
        Raises:
            Problem: 503; the queue is full, so that there is no point in even trying.
        """
        if self._free == 0 and len(self._queue) >= self._max_waiting:
            raise self._refusal()

    @contextlib.asynccontextmanager
    async def place(self, patience_s: float) -> AsyncIterator[None]:
        """Hold a place during the block, after waiting at most ``patience_s`` seconds for it.

        Raises:
            Problem: 503; no place became free in time.
        """
        await self._enter(patience_s)
        started = time.monotonic()
        try:
            yield
        finally:
            self._service_s += _SMOOTHING * (time.monotonic() - started - self._service_s)
            self._pass_on()

    async def _enter(self, patience_s: float) -> None:
        if self._free:
            self._free -= 1
            return
        self.refuse_if_full()
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await asyncio.wait([turn], timeout=max(0.0, min(self._max_wait_s, patience_s)))
        except asyncio.CancelledError:
            self._leave_queue(turn)
            raise
        if not turn.done():
            self._leave_queue(turn)
            raise self._refusal()

    def _leave_queue(self, turn: asyncio.Future[None]) -> None:
        if turn.done():  # the place came at the same moment
            self._pass_on()
        else:
            turn.cancel()
            self._queue.remove(turn)

    def _pass_on(self) -> None:
        if self._queue:
            self._queue.popleft().set_result(None)
        else:
            self._free += 1

    def _refusal(self) -> Problem:
        metrics.SHED.inc()
        wait_s = self._service_s * (1 + len(self._queue) / self._places)
        return Problem(OVERLOADED, "ask again later", retry_after_s=min(wait_s, 30.0))
