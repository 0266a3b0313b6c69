"""All API keys in memory, read again every two seconds by a thread of its own.

Neither a slow ledger nor a busy event loop delays the other; and a ledger that hangs holds up this thread alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from rag_platform.errors import DependencyError
from rag_platform.ledger import Ledger
from rag_platform.ledger.keys import ApiKey

T = TypeVar("T")

MIN_REREAD_S = 0.25
"""Unknown keys make us look again (they may be new), but not more often than this, whoever sends them."""
MAX_WAITING = 64
READ_WAIT_S = 2.0
READ_ALL_S = 30.0
"""Keys are read in full when their stamp moves, and this often all the same: somebody may have changed rows by hand."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[T]):
    """What is kept of each key, by the hash of its secret.

    ``checked_at``: when the ledger last said that this is still so; ``read_at``: when all of it was read.
    """

    by_hash: Mapping[str, T]
    stamp: tuple[int, int]
    checked_at: float
    read_at: float


class KeyReader(Generic[T]):
    """
    Args:
        keep: makes of a key what is kept of it.
        refresh_s: seconds between two looks at the ledger.
        max_age_s: how old a snapshot may become while the ledger does not answer.
    """

    def __init__(self, ledger: Ledger, keep: Callable[[ApiKey], T], *, refresh_s: float, max_age_s: float) -> None:
        self._ledger, self._keep = ledger, keep
        self._refresh_s, self._max_age_s = refresh_s, max_age_s
        self._snapshot: Snapshot[T] | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._failing = False

    def start(self) -> None:
        """Begin to read; ``current`` and ``renewed`` do it too. A no-op when started or closed."""
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="api-keys", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop reading. A read that hangs is left to itself."""
        with self._lock:
            self._closed.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(READ_WAIT_S)

    async def current(self) -> Snapshot[T]:
        """Return what is known; waits only when nothing is, or nothing recent enough.

        Raises:
            DependencyError: the ledger does not answer.
        """
        snapshot = self._snapshot
        if snapshot is not None and time.monotonic() - snapshot.checked_at <= self._max_age_s:
            return snapshot
        return await self.renewed()

    async def renewed(self) -> Snapshot[T]:
        """Return what the ledger said after this call.

        Raises:
            DependencyError: it did not answer in time, or too many are waiting for it.
        """
        before = time.monotonic()
        self.start()
        loop = asyncio.get_running_loop()
        with self._lock:
            crowded = len(self._waiting) >= MAX_WAITING or self._closed.is_set()
            if not crowded:
                future: asyncio.Future[None] = loop.create_future()
                self._waiting.append((loop, future))
        if not crowded:
            self._wake.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(READ_WAIT_S):  # wait_for of Python 3.11 can swallow a cancellation
                    await future
        snapshot = self._snapshot
        if snapshot is None or snapshot.checked_at < before:
            raise DependencyError("ledger", "API keys cannot be read now", retry_after_s=self._refresh_s)
        return snapshot

    # ── on the thread ──

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wake.clear()
            with self._lock:
                waiting, self._waiting = self._waiting, []
            self._read()
            for loop, future in waiting:
                with contextlib.suppress(RuntimeError):  # its loop has ended
                    loop.call_soon_threadsafe(_resolve, future)
            self._closed.wait(MIN_REREAD_S)
            self._wake.wait(max(0.0, self._refresh_s - MIN_REREAD_S))

    def _read(self) -> None:
        started, old = time.monotonic(), self._snapshot
        try:
            stamp = self._ledger.keys.stamp()  # before the keys: what changes in between is read again
            if old is None or stamp != old.stamp or started - old.read_at > READ_ALL_S:
                by_hash = {k.secret_hash: self._keep(k) for k in self._ledger.keys.all()}
                new = Snapshot(by_hash, stamp, started, started)
            else:
                new = dataclasses.replace(old, checked_at=started)
        except Exception as e:  # this thread must outlive everything: without it nobody is let in
            if not self._failing:
                _log.warning("API keys cannot be read now (%s); those known go on working", type(e).__name__)
            self._failing = True
            return
        self._failing = False
        self._snapshot = new


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
