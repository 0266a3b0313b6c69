"""Connections to PostgreSQL that answer in a bounded time and hold no lock for the dead.

The server ends a statement that takes too long, but a server that is frozen ends nothing, and its kernel goes on to
acknowledge packets, so that no TCP timer ends the wait either. So a thread of ours closes the socket under a
statement that is overdue; the driver then reports a lost connection.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from psycopg2 import extensions

from rag_platform.errors import ConfigurationError

PATIENCE = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""libpq's defaults wait two minutes for a server that does not answer, and two hours for one that is gone.
Seconds, the last in milliseconds; the same names in the URL win."""
GRACE_S = 5.0
"""How much longer than the server we wait ourselves: its message says more than a lost connection."""
IDLE_IN_TRANSACTION_S = 600
"""A transaction in which nothing happens for so long is ended by the server: its program hangs, or its machine is
gone, and holds the ledger's write lock."""


def with_driver(url: str, variable: str) -> sa.URL:
    """Return the URL with the driver that is installed: SQLAlchemy takes ``postgresql://`` for psycopg 3.

    Raises:
        ConfigurationError: no URL of a PostgreSQL for psycopg2; names ``variable`` and none of the value.
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError) as e:
        raise ConfigurationError(
            f"{variable}: is no URL; write postgresql+psycopg2://user:password@host:5432/db"
        ) from e
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg2")
    if parsed.drivername != "postgresql+psycopg2":
        raise ConfigurationError(f"{variable}: must begin with postgresql+psycopg2://")
    return parsed


class Watchdog:
    """Cuts connections on which one call takes longer than it may.

    Args:
        timeout_s: longest call in seconds. May be set at any time, and holds for calls that begin later.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._calls: dict[int, tuple[float, int]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    @contextlib.contextmanager
    def watching(self, connection: extensions.connection) -> Iterator[None]:
        """Watch the block, which is one call on ``connection``."""
        until, number = time.monotonic() + self.timeout_s, connection.fileno()
        with self._lock:
            self._calls[id(connection)] = until, number
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="ledger-watchdog", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:  # from here on the number of the socket may be another's
                self._calls.pop(id(connection), None)

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(min(1.0, self.timeout_s / 4)):
            now = time.monotonic()
            with self._lock:
                for key, (until, number) in list(self._calls.items()):
                    if now >= until:
                        del self._calls[key]
                        _cut(number)


def create_engine(url: sa.URL, watchdog: Watchdog, timeout_s: float, **options: Any) -> sa.Engine:
    """Return an engine whose connections ``watchdog`` watches, and whose server ends a statement after
    ``timeout_s`` seconds; ``options`` are SQLAlchemy's."""

    class Cursor(extensions.cursor):  # type: ignore[misc]
        def execute(self, *args: Any, **kwargs: Any) -> None:
            with watchdog.watching(self.connection):
                super().execute(*args, **kwargs)

        def executemany(self, *args: Any, **kwargs: Any) -> None:
            with watchdog.watching(self.connection):
                super().executemany(*args, **kwargs)

    class Connection(extensions.connection):  # type: ignore[misc]
        def commit(self) -> None:
            with watchdog.watching(self):
                super().commit()

        def rollback(self) -> None:
            with watchdog.watching(self):
                super().rollback()

    patience = {k: v for k, v in PATIENCE.items() if k not in url.query}
    factories = {"connection_factory": Connection, "cursor_factory": Cursor}
    engine = sa.create_engine(url, pool_pre_ping=True, connect_args={**patience, **factories}, **options)

    @sa.event.listens_for(engine, "connect")
    def configure(connection: extensions.connection, _record: object) -> None:
        # By SET, not as options of the connection: a pooler in between refuses those.
        values = {
            "statement_timeout": round(1000 * timeout_s),
            "idle_in_transaction_session_timeout": 1000 * IDLE_IN_TRANSACTION_S,
            "tcp_keepalives_idle": PATIENCE["keepalives_idle"],
            "tcp_keepalives_interval": PATIENCE["keepalives_interval"],
            "tcp_keepalives_count": PATIENCE["keepalives_count"],
        }
        with connection.cursor() as cursor:
            cursor.execute("; ".join(f"SET {name} = {value}" for name, value in values.items()))
        connection.commit()

    return engine


def _cut(number: int) -> None:
    """End every wait on a socket that somebody else has open."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)
