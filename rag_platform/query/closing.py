"""Closing what was replaced while questions are answered: in the background, and for a bounded time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any

from rag_platform.errors import RagError

CLOSE_TIMEOUT_S = 5.0


class Closing:
    """What is being closed. Belongs to one event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Awaitable[Any]) -> None:
        """Close something without waiting for it."""
        task = asyncio.get_running_loop().create_task(in_time(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait(self) -> None:
        """Wait for all that was begun."""
        await asyncio.gather(*self._tasks)


async def in_time(work: Awaitable[Any], timeout_s: float = CLOSE_TIMEOUT_S) -> None:
    """Wait for ``work``, at most ``timeout_s`` seconds; a failure of the platform's own kinds is not one here."""
    with contextlib.suppress(RagError, TimeoutError):
        async with asyncio.timeout(timeout_s):
            await work
