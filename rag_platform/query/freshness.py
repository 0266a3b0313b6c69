"""Whether documents are still as they were: asked of the ledger for every answer that comes from a cache.

A version covers a document's content, metadata and ACL, so an equal version means that whoever might read
it then may read it now. An index entry that is gone or being replaced is no longer current (P11).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from rag_platform.backends.throttle import CircuitBreaker
from rag_platform.errors import DependencyError, DependencyTimeout
from rag_platform.ledger import Ledger

Standing = Literal["current", "outdated", "unknown"]
Versions = Mapping[str, str | None]
"""version_id by document_id; None: being replaced; absent: not in the index."""

_ABSENT = ""
_MAX_KNOWN = 100_000
_STUCK_S = 5.0
_MAX_THREADS = 4


class Freshness:
    """Asks one ledger, off the event loop; what it said holds until an index changes.

    Where the ledger has a token for that (SQLite), an answer whose documents were looked up since the last
    change costs microseconds and no query. Elsewhere each look is a query, shared by those who ask together.
    """

    def __init__(self, ledger: Ledger, *, timeout_s: float = 0.2) -> None:
        self._ledger, self._timeout_s = ledger, timeout_s
        self._look_ups = _LookUps(ledger)
        self._token: str | None = None
        self._known: dict[tuple[str, str], str | None] = {}
        self._lock = threading.Lock()
        self._breaker = CircuitBreaker(failures=1, pause_s=0.5, max_pause_s=5.0)

    async def current(self, release_id: str, versions: Mapping[str, str]) -> bool:
        """Whether each document's entry in the release's index has exactly this version."""
        return await self.standing(release_id, versions) == "current"

    async def versions(self, release_id: str, document_ids: Collection[str]) -> Versions:
        """Return what the release's index holds of these documents.

        Raises:
            DependencyError: the ledger does not say so in time.
        """
        # Read before the rows: a change between the two makes the next caller look again.
        token = self._ledger.database.index_token()
        found = self._remembered(token, release_id, document_ids)
        if found is None:
            found = await self._look_up(release_id, document_ids)
            self._remember(token, release_id, document_ids, found)
        return found

    async def standing(self, release_id: str, versions: Mapping[str, str]) -> Standing:
        """As ``current``; ``unknown`` when the ledger does not say so in time."""
        if not versions:
            return "outdated"  # an answer that rests on nothing
        try:
            found = await self.versions(release_id, versions)
        except DependencyError:
            return "unknown"
        return "current" if all(found.get(d) == v for d, v in versions.items()) else "outdated"

    def _remembered(self, token: str | None, release_id: str, documents: Collection[str]) -> Versions | None:
        with self._lock:
            if token is None or token != self._token:
                self._known.clear()
                self._token = token
                return None
            try:
                known = {d: self._known[release_id, d] for d in documents}
            except KeyError:
                return None
        return {d: v for d, v in known.items() if v != _ABSENT}

    def _remember(self, token: str | None, release_id: str, documents: Collection[str], found: Versions) -> None:
        with self._lock:
            if token is None or token != self._token:
                return
            if len(self._known) > _MAX_KNOWN:
                self._known.clear()
            self._known.update({(release_id, d): found.get(d, _ABSENT) for d in documents})

    async def _look_up(self, release_id: str, document_ids: Collection[str]) -> Versions:
        """
        Raises:
            DependencyError: the ledger failed, has just failed, or did not answer in time.
        """
        if self._breaker.delay(self._timeout_s) > 0:
            raise DependencyError("ledger", "not asked: it has just failed")
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await self._look_ups.versions(release_id, document_ids)
        except TimeoutError as e:
            error = DependencyTimeout("ledger", f"no answer within {self._timeout_s:g} s")
            self._breaker.failed(error)
            raise error from e
        except DependencyError as e:
            self._breaker.failed(e)
            raise
        except BaseException:
            self._breaker.abandoned()
            raise
        self._breaker.succeeded()
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    release_id: str
    document_ids: Collection[str]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Versions]

    def settle(self, found: Versions | None, error: BaseException | None) -> None:
        def in_its_loop() -> None:
            if self.future.done():
                return  # nobody waits any more
            if found is not None:
                self.future.set_result(found)
            elif error is not None:
                self.future.set_exception(error)

        with contextlib.suppress(RuntimeError):  # that loop has ended
            self.loop.call_soon_threadsafe(in_its_loop)


class _LookUps:
    """Whoever asks while a query runs shares the next one, so that any number of hits is one query at a time.

    In a daemon thread of its own: a database that never answers then holds up neither the pool that others
    use nor the end of the program. A query that has not ended after ``_STUCK_S`` is left to itself.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._waiting: list[_Waiter] = []
        self._threads = 0
        self._started_at = 0.0

    async def versions(self, release_id: str, document_ids: Collection[str]) -> Versions:
        loop = asyncio.get_running_loop()
        waiter = _Waiter(release_id, document_ids, loop, loop.create_future())
        with self._lock:
            self._waiting.append(waiter)
            stuck = time.monotonic() - self._started_at > _STUCK_S
            start = self._threads == 0 or (stuck and self._threads < _MAX_THREADS)
            if start:
                self._threads += 1
                self._started_at = time.monotonic()
        if start:
            threading.Thread(target=self._work, name="freshness", daemon=True).start()
        return await waiter.future

    def _work(self) -> None:
        while batch := self._next():
            wanted: dict[str, set[str]] = defaultdict(set)
            for waiter in batch:
                wanted[waiter.release_id].update(waiter.document_ids)
            found: dict[str, Versions] = {}
            error: BaseException | None = None
            try:
                for release_id, document_ids in wanted.items():
                    found[release_id] = self._ledger.releases.versions(release_id, document_ids)
            except BaseException as e:  # to those who wait: this thread has nobody to tell
                error = e
            for waiter in batch:
                waiter.settle(found.get(waiter.release_id), error)

    def _next(self) -> list[_Waiter]:
        with self._lock:
            batch = [w for w in self._waiting if not w.future.done()]
            self._waiting = []
            self._started_at = time.monotonic()
            if not batch:
                self._threads -= 1
            return batch
