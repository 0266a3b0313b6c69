"""A cache that fails is left alone at once: it exists to save time.

One failure is enough. From then on no question waits for the cache, those that wait at that moment are let go,
and a task of its own asks it now and then whether it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rag_platform.backends.caches.base import Cache
from rag_platform.errors import DependencyError

T = TypeVar("T")


class CacheGuard:
    """Stands before one cache; usable from several event loops.

    Args:
        cache: whose ``ping`` says that it works again; None is never called.
        first_pause_s, max_pause_s: between two probes; doubles while they fail.
    """

    def __init__(self, cache: Cache | None, *, first_pause_s: float = 0.25, max_pause_s: float = 5.0) -> None:
        self._cache = cache
        self._first_pause_s, self._max_pause_s = first_pause_s, max_pause_s
        self._lock = threading.Lock()
        self._in_flight: dict[asyncio.Timeout, asyncio.AbstractEventLoop] = {}
        self._probe: asyncio.Task[None] | None = None
        self._error: DependencyError | None = None

    @property
    def error(self) -> DependencyError | None:
        """Why the cache is not asked at present; None while it is."""
        return self._error

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what ``work()``, one call of the cache, returns.

        Raises:
            DependencyError: the cache is known to be down, or just turned out to be.
        """
        if self._cache is not None and not self._cache.shared:
            return await work()  # our own memory does not keep us waiting
        if self._error is not None:
            self._ensure_probe()
            raise self._error.with_traceback(None)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as release:
                self._in_flight[release] = loop
                try:
                    return await work()
                finally:
                    del self._in_flight[release]
        except TimeoutError as e:
            raise self._error or DependencyError("cache", "given up with the others") from e
        except DependencyError as e:
            self._failed(e)
            raise

    async def aclose(self) -> None:
        """Stop probing."""
        probe, self._probe = self._probe, None
        if probe is not None and probe.get_loop() is asyncio.get_running_loop():
            probe.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await probe

    def _failed(self, error: DependencyError) -> None:
        # Without the traceback, which would keep the frames of this question alive as long as the error.
        self._error = error.with_traceback(None)
        here = asyncio.get_running_loop()
        for release, loop in list(self._in_flight.items()):
            if loop is here:
                _let_go(release, loop)
            else:
                with contextlib.suppress(RuntimeError):  # that loop has ended, and its questions with it
                    loop.call_soon_threadsafe(_let_go, release, loop)
        self._ensure_probe()

    def _ensure_probe(self) -> None:
        with self._lock:
            if self._error is not None and (self._probe is None or _is_over(self._probe)):
                self._probe = asyncio.get_running_loop().create_task(self._until_it_answers())

    async def _until_it_answers(self) -> None:
        pause = self._first_pause_s
        while self._cache is not None:
            await asyncio.sleep(pause)
            with contextlib.suppress(DependencyError):
                await self._cache.ping()
                self._error = None
                return
            pause = min(2 * pause, self._max_pause_s)


def _let_go(release: asyncio.Timeout, loop: asyncio.AbstractEventLoop) -> None:
    with contextlib.suppress(RuntimeError):  # it has just ended by itself
        release.reschedule(loop.time())


def _is_over(task: asyncio.Task[None]) -> bool:
    return task.done() or task.get_loop().is_closed()
