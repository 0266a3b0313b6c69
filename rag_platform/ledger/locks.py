"""Exclusive locks across processes, which end with the process that holds them: files, or PostgreSQL's advisory locks."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from rag_platform.errors import DependencyError, LockTimeout

_PAUSE_S = 0.1


class Locks(Protocol):
    """Where the locks of one ledger are."""

    def hold(self, names: Sequence[str], timeout_s: float) -> contextlib.AbstractContextManager[None]:
        """Hold locks, taken in this order.

        Raises:
            LockTimeout: somebody else held one for ``timeout_s`` seconds.
        """
        ...

    def check(self) -> None:
        """Raise DependencyError unless every lock of this process is still held."""
        ...

    def close(self) -> None: ...


class FileLocks:
    """A file for each lock; for processes of one machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def hold(self, names: Sequence[str], timeout_s: float) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for name in names:
                stack.enter_context(self._one(name, timeout_s))
            yield

    def check(self) -> None:
        """The kernel takes none away."""

    def close(self) -> None:
        """Nothing is open between two locks."""

    @contextlib.contextmanager
    def _one(self, name: str, timeout_s: float) -> Iterator[None]:
        import fcntl

        self._folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + timeout_s
        with (self._folder / f"{name}.lock").open("a+") as handle:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    _wait(name, deadline)
            yield  # closing the file releases the lock


class AdvisoryLocks:
    """Locks of PostgreSQL sessions; for processes of any machine.

    Args:
        engine: one of our own, whose connections commit by themselves. Switching connections of another engine to that
            would switch them back when they return to its pool; of one that broke meanwhile this fails, and the pool
            loses a place.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._holders: list[_Holder] = []

    @contextlib.contextmanager
    def hold(self, names: Sequence[str], timeout_s: float) -> Iterator[None]:
        """All on one connection: a run holds as many as there are buckets."""
        deadline = time.monotonic() + timeout_s
        with self._engine.connect() as connection:
            try:
                holder = _Holder(connection)
                for name in names:
                    key = lock_key(name)
                    while not connection.execute(sa.select(sa.func.pg_try_advisory_lock(key))).scalar():
                        _wait(name, deadline)
                self._holders.append(holder)
                try:
                    yield
                finally:
                    self._holders.remove(holder)
            finally:
                # A connection that is already gone has taken its locks with it, and SQLAlchemy refuses to use it.
                if not connection.invalidated:
                    with contextlib.suppress(sa.exc.DBAPIError):
                        connection.execute(sa.select(sa.func.pg_advisory_unlock_all()))

    def check(self) -> None:
        for holder in list(self._holders):
            holder.check()

    def close(self) -> None:
        self._engine.dispose()


class _Holder:
    """The connection to which locks belong: they are lost with it, without a word."""

    def __init__(self, connection: sa.Connection) -> None:
        self._dbapi: Any = connection.connection.dbapi_connection
        self._error: type[Exception] = connection.dialect.loaded_dbapi.Error
        self._pid = self._ask()

    def check(self) -> None:
        """Raise DependencyError unless it still is: the server may have been restarted, and another run may have
        taken the locks since."""
        if self._ask() != self._pid:
            raise DependencyError("ledger", "a pooler moved this run's locks: RAG_LEDGER_URL needs session pooling")

    def _ask(self) -> int:
        try:
            with self._dbapi.cursor() as cursor:  # the driver lets several threads share a connection
                cursor.execute("SELECT pg_backend_pid()")
                return int(cursor.fetchone()[0])
        except self._error as e:
            raise DependencyError("ledger", "postgresql ended the connection that holds this run's locks") from e


def lock_key(name: str) -> int:
    """Return the number that an advisory lock has instead of a name."""
    return int.from_bytes(hashlib.sha256(f"rag-platform:{name}".encode()).digest()[:8], "big", signed=True)


def _wait(name: str, deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise LockTimeout(f"another run holds {name!r}; try again when it has finished")
    threading.Event().wait(_PAUSE_S)
