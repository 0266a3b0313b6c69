"""One hard deadline around everything that a call of a server store does, retries and waiting included."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from rag_platform.errors import DependencyError, DependencyTimeout

T = TypeVar("T")
_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 1.0
_ATTEMPTS = 5
"""Of a call that fails without saying how long to wait: a server that is down should not look like a slow one."""


class Deadline:
    """Until when a call may go on; see ``within``."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what ``call`` returns, asked again after a failure that may pass: as often as the service asks us
        to wait, else a few times.

        Raises:
            DependencyError: as ``call`` raised it, when that does not pass by waiting, or not in time.
        """
        pause, failed = _FIRST_PAUSE_S, 0
        while True:
            try:
                return await call()
            except DependencyError as e:
                failed += e.retry_after_s is None
                if failed == _ATTEMPTS:
                    raise
                await self._pause(pause, e)
            pause = min(4 * pause, _LONGEST_PAUSE_S)

    async def until(self, check: Callable[[], Awaitable[bool]]) -> None:
        """Return when ``check`` does so with true; failures that may pass count as false."""
        pause = _FIRST_PAUSE_S
        while not await self.insist(check):
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _pause(self, seconds: float, error: DependencyError) -> None:
        wait = max(seconds * random.uniform(0.7, 1.3), error.retry_after_s or 0.0)
        if not error.retryable or time.monotonic() + wait >= self._at:
            raise error
        await asyncio.sleep(wait)


@contextlib.asynccontextmanager
async def within(seconds: float, dependency: str) -> AsyncIterator[Deadline]:
    """End the block after ``seconds``.

    Raises:
        DependencyTimeout: it had not ended by itself.
    """
    try:
        async with asyncio.timeout(seconds):
            yield Deadline(seconds)
    except TimeoutError as e:
        raise DependencyTimeout(dependency, f"no answer within {seconds:.3g} s") from e
