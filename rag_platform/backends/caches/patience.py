"""A deadline that tells a slow server from a busy event loop.

``asyncio.timeout`` fires as soon as a loop that was held up (an import, a large reply, a starved core) gets
going again, although the server's answer has long been in the socket. A breaker would then call a healthy
server down.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_STEPS = 4
LONGEST = 4 / 3
"""How much later than asked the deadline may come, as a factor."""


@asynccontextmanager
async def answered_within(seconds: float) -> AsyncIterator[None]:
    """Cancel the block after ``seconds`` in which the event loop ran; at most ``LONGEST`` times that by the clock.

    After a stall that is longer still, what has arrived meanwhile is looked at before the block is cancelled.

    Raises:
        TimeoutError: the block was cancelled by this deadline.
    """
    loop = asyncio.get_running_loop()
    last = loop.time() + seconds * LONGEST
    handle: asyncio.TimerHandle | None = None
    async with asyncio.timeout(None) as timeout:

        def step(left: int) -> None:
            nonlocal handle
            if left == 0 or loop.time() >= last:
                # In effect in the next round of the loop, behind the reader that data has just woken.
                timeout.reschedule(loop.time())
            else:
                handle = loop.call_at(min(loop.time() + seconds / _STEPS, last), step, left - 1)

        handle = loop.call_later(seconds / _STEPS, step, _STEPS - 1)
        try:
            yield
        finally:
            if handle is not None:
                handle.cancel()
