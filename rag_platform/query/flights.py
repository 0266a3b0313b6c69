"""Identical questions at the same time are one run: all of them listen to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Generic, TypeVar

E = TypeVar("E")


class _Flight(Generic[E]):
    """One run: its events so far, how it ended, and who listens."""

    def __init__(self) -> None:
        self.events: list[E] = []
        self.listeners = 0
        self.ended = False
        self.error: BaseException | None = None
        self.traceback: TracebackType | None = None
        self.task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    async def run(self, work: Callable[[], AsyncGenerator[E, None]]) -> None:
        try:
            events = work()
            try:
                async for event in events:
                    self.events.append(event)
                    self._tell()
            finally:
                await events.aclose()
        except BaseException as e:
            # Kept for the listeners; nobody awaits this task.
            self.error, self.traceback = e, e.__traceback__
            if not isinstance(e, Exception):
                raise
        finally:
            self.ended = True
            self._tell()

    async def news(self) -> None:
        await self._news.wait()

    def _tell(self) -> None:
        told, self._news = self._news, asyncio.Event()
        told.set()


class Flights(Generic[E]):
    """Runs in flight, by key. Belongs to one event loop."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[E]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def join(self, key: str | None, work: Callable[[], AsyncGenerator[E, None]]) -> AsyncGenerator[E, None]:
        """Listen to the run of ``key``: all its events from the first, its end, its exception.

        The first listener starts it, in a task of its own; it is cancelled when the last one has left
        (close the iterator: ``contextlib.aclosing``). A run that has ended is not joined: the next one
        starts anew. A listener's own deadline is its own business. ``None`` is never shared.
        """
        return work() if key is None else self._listen(key, work)

    async def aclose(self) -> None:
        """Cancel all runs and wait for their end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def running(self) -> int:
        """Runs that have not ended."""
        return len(self._tasks)

    async def _listen(self, key: str, work: Callable[[], AsyncGenerator[E, None]]) -> AsyncGenerator[E, None]:
        flight = self._flights.get(key)
        if flight is None:
            flight = self._start(key, work)
        flight.listeners += 1
        try:
            at = 0
            while True:
                while at < len(flight.events):
                    yield flight.events[at]
                    at += 1
                if flight.ended:
                    break
                await flight.news()
            if flight.error is not None:
                # One object is raised to many: each time from where the run left it, or it would grow.
                raise flight.error.with_traceback(flight.traceback)
        finally:
            flight.listeners -= 1
            if not flight.listeners and not flight.ended and flight.task is not None:
                self._forget(key, flight)
                flight.task.cancel()

    def _start(self, key: str, work: Callable[[], AsyncGenerator[E, None]]) -> _Flight[E]:
        flight = self._flights[key] = _Flight[E]()
        flight.task = task = asyncio.get_running_loop().create_task(flight.run(work))
        self._tasks.add(task)

        def landed(done: asyncio.Task[None]) -> None:
            self._tasks.discard(done)
            self._forget(key, flight)
            if not done.cancelled():
                done.exception()  # seen: the listeners were told
            elif not flight.ended:  # cancelled before its first step
                flight.ended, flight.error = True, asyncio.CancelledError()
                flight._tell()

        task.add_done_callback(landed)
        return flight

    def _forget(self, key: str, flight: _Flight[E]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
