"""Working for a client: until it has its answer, hangs up, or its time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from litestar.types import Receive

from serve.call import ClientGone
from serve.problems import UNAVAILABLE, Problem

T = TypeVar("T")

BACKSTOP_S = 0.15
"""After the deadline, how long the service may take to say so itself (P7: deadline + 250 ms)."""


async def gone(receive: Receive) -> None:
    """Return when the client has closed its connection. Call it when the body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def attend(receive: Receive, work: Coroutine[Any, Any, T], limit_s: float) -> T:
    """Return the result of ``work``; cancel it when the client goes away or after ``limit_s`` seconds.

    Raises:
        ClientGone: nobody waits any more.
        Problem: 503; out of time.
    """
    doing = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(gone(receive))
    try:
        await asyncio.wait((doing, watching), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        if watching.done():
            raise ClientGone
        raise out_of_time()
    finally:
        # Not awaited: work that is slow to give up must not make the response late.
        for task in (doing, watching):
            if not task.done():
                task.cancel()
                task.add_done_callback(_forget)


def out_of_time() -> Problem:
    return Problem(UNAVAILABLE, "no answer was found before the deadline", retry_after_s=2.0)


def _forget(task: asyncio.Future[Any]) -> None:
    """Take note of a late error, so that asyncio does not report it as lost."""
    if not task.cancelled():
        task.exception()
