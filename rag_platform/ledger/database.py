"""Engine, transactions, migrations and locks of the ledger, on SQLite or PostgreSQL."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_platform import telemetry
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.ledger import schema
from rag_platform.ledger.locks import AdvisoryLocks, FileLocks, Locks, lock_key

if TYPE_CHECKING:
    from rag_platform.ledger.postgres import Watchdog

BUSY_TIMEOUT_MS = 60_000
MIGRATION_S = 24 * 3600.0
"""Longest statement of a migration, in seconds."""
SQL_BATCH = 500
"""Values in one IN list: below SQLite's default limit of host parameters in every build."""


def batches(values: Iterable[Any], size: int = SQL_BATCH) -> Iterator[list[Any]]:
    """Cut ``values`` into lists of at most ``size``."""
    batch: list[Any] = []
    for value in values:
        batch.append(value)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class Database:
    """One engine. Reads see a consistent snapshot; writes are serialised and durable on commit.

    SQLite runs in WAL mode with ``synchronous=FULL``: the crash protocol relies on the order of
    ledger commits and index writes, also across a power failure.
    """

    def __init__(self, url: str, *, lock_folder: Path, lazy: bool = False, timeout_s: float = 60.0) -> None:
        """
        Args:
            lazy: connect (and migrate) at first use, so that a program can start before its database does.
            timeout_s: longest statement on PostgreSQL, in seconds; waiting for other writers is part of it.
        """
        self._migrated = False
        self._migrating = threading.RLock()
        self._in_migration = False
        self._watcher: sqlite3.Connection | None = None
        self._watchers = 0
        self._seen: tuple[int, int] | None = None
        self._watching = threading.Lock()
        self._watchdog: Watchdog | None = None
        self.is_sqlite = url.startswith("sqlite")
        if self.is_sqlite:
            self.url = sa.engine.make_url(url)
            if self.url.database:
                Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
            self.engine = sa.create_engine(self.url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})
            sa.event.listen(self.engine, "connect", _configure_sqlite)
            sa.event.listen(self.engine, "begin", _begin_sqlite)
            self._locks: Locks = FileLocks(lock_folder)
        elif url.startswith("postgres"):
            try:
                from rag_platform.ledger import postgres
            except ModuleNotFoundError as e:
                raise ConfigurationError(f"the ledger needs {e.name!r}: run `pip install psycopg2-binary`") from e
            self.url = postgres.with_driver(url, "RAG_LEDGER_URL")
            self._watchdog = postgres.Watchdog(timeout_s + postgres.GRACE_S)
            self.engine = postgres.create_engine(self.url, self._watchdog, timeout_s)
            self._locks = AdvisoryLocks(
                postgres.create_engine(self.url, self._watchdog, timeout_s, isolation_level="AUTOCOMMIT")
            )
        else:
            raise ConfigurationError("RAG_LEDGER_URL: use sqlite:///… or postgresql+psycopg2://…")
        if not lazy:
            self._prepare()

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Open a transaction that only reads, all of it from one state of the database."""
        self._prepare()
        with self._guarded(), self.engine.connect() as connection:
            if not self.is_sqlite:  # its default would show each statement a newer state
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextlib.contextmanager
    def write(self, label: str) -> Iterator[sa.Connection]:
        """Open a transaction that commits at the end of the block. ``label`` names the effect."""
        self._prepare()
        with (
            self._guarded(),
            telemetry.effect(f"ledger:{label}"),
            self.engine.connect().execution_options(rag_write=True) as connection,
            connection.begin(),
        ):
            if not self.is_sqlite:  # SQLite has one writer by itself; compare-and-swap relies on it
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock_key("write"))))
                self._locks.check()
            yield connection

    def upsert(
        self,
        connection: sa.Connection,
        table: sa.Table,
        rows: Sequence[dict[str, Any]],
        update: Sequence[str] = (),
        add: Sequence[str] = (),
    ) -> None:
        """Insert rows; where the primary key exists, set the ``update`` columns and increase the ``add``
        columns by what the new row holds (neither: keep the old row)."""
        if not rows:
            return
        if self.is_sqlite:
            from sqlalchemy.dialects.sqlite import insert
        else:
            from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]
        keys = [c.name for c in table.primary_key.columns]
        statement = insert(table)
        changes: dict[str, Any] = {c: statement.excluded[c] for c in update}
        changes |= {c: table.c[c] + statement.excluded[c] for c in add}
        if changes:
            statement = statement.on_conflict_do_update(index_elements=keys, set_=changes)
        else:
            statement = statement.on_conflict_do_nothing(index_elements=keys)
        connection.execute(statement, list(rows))

    @contextlib.contextmanager
    def lock(self, name: str, *, timeout_s: float = 3600.0) -> Iterator[None]:
        """Hold an exclusive lock across processes (and threads). It ends with the process that holds it.

        Raises:
            LockTimeout: somebody else held it for ``timeout_s`` seconds.
        """
        with self.locks([name], timeout_s=timeout_s):
            yield

    @contextlib.contextmanager
    def locks(self, names: Iterable[str], *, timeout_s: float = 3600.0) -> Iterator[None]:
        """Hold several locks, taken in sorted order so that two runs cannot wait for each other."""
        with self._guarded(), self._locks.hold(sorted(set(names)), timeout_s):
            yield

    def index_token(self) -> str | None:
        """Return a token that moves with every commit, of any connection, that changes what an index holds; None
        where there is none (PostgreSQL, a database that was not opened yet). Takes microseconds: no transaction
        of the engine's, no other thread.

        Raises:
            DependencyError: the database cannot be read.
        """
        if not self.is_sqlite or not self.url.database or not self._migrated:
            return None
        with self._watching:
            try:
                if self._watcher is None:
                    # A connection of its own: its counter moves with what the others commit.
                    self._watcher = sqlite3.connect(self.url.database, timeout=0.05, check_same_thread=False)
                    self._watchers += 1
                    self._seen = None
                [version] = self._watcher.execute("PRAGMA data_version").fetchone()
                if self._seen is None or self._seen[0] != version:
                    # Most commits are the query log's: only the clock tells whether the index has changed.
                    [ticks] = self._watcher.execute("SELECT ticks FROM index_clock").fetchone()
                    self._seen = version, ticks
            except sqlite3.Error as e:
                self._stop_watching()
                raise DependencyError("ledger", "sqlite failed: its change counter cannot be read") from e
            return f"{self._watchers}:{self._seen[1]}"

    def close(self) -> None:
        with self._watching:
            self._stop_watching()
        self.engine.dispose()
        self._locks.close()
        if self._watchdog is not None:
            self._watchdog.close()

    # ── inner workings ──
    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as e:
            # A bare DatabaseError is a damaged file; its other kinds are mistakes of this program.
            # A connection that broke is an outage, whatever the driver calls it.
            outage = isinstance(e, sa.exc.OperationalError) or e.connection_invalidated
            if not outage and type(e) is not sa.exc.DatabaseError:
                raise
            # The driver's text names host and database; the statement and its values stay out.
            raise DependencyError("ledger", f"{self.url.get_backend_name()} failed: {_first_line(e.orig)}") from e
        except sa.exc.TimeoutError as e:
            raise DependencyError("ledger", "every connection is in use") from e

    def _stop_watching(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.close()

    def _prepare(self) -> None:
        if self._migrated:
            return
        with self._migrating:  # re-entered by the migration's own reads and writes
            if not self._migrated and not self._in_migration:
                self._in_migration = True
                try:
                    self._migrate()
                finally:
                    self._in_migration = False
                self._migrated = True

    def _migrate(self) -> None:
        with self.read() as connection:
            current = self._version(connection)
        if current == schema.VERSION:
            return
        if current > schema.VERSION:
            raise ConfigurationError(
                f"the ledger has schema version {current}, this program knows {schema.VERSION}: upgrade rag-platform"
            )
        with self.lock("migrate"):
            for number in range(current, schema.VERSION):
                with self._patient(), self.write("migrate") as connection:
                    if not self.is_sqlite:
                        connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
                    if self._version(connection) != number:
                        continue  # another process was faster
                    schema.MIGRATIONS[number](connection)
                    connection.execute(schema.ledger_version.delete())
                    connection.execute(schema.ledger_version.insert().values(version=number + 1))

    @contextlib.contextmanager
    def _patient(self) -> Iterator[None]:
        """Let statements take as long as a table of millions of rows needs; nobody else can use the ledger yet."""
        if self._watchdog is None:
            yield
            return
        usual, self._watchdog.timeout_s = self._watchdog.timeout_s, MIGRATION_S
        try:
            yield
        finally:
            self._watchdog.timeout_s = usual

    @staticmethod
    def _version(connection: sa.Connection) -> int:
        if not sa.inspect(connection).has_table("ledger_version"):
            return 0
        return int(connection.execute(sa.select(schema.ledger_version.c.version)).scalar() or 0)


def _configure_sqlite(dbapi_connection: Any, _record: Any) -> None:
    dbapi_connection.isolation_level = None  # we say BEGIN ourselves
    cursor = dbapi_connection.cursor()
    _write_ahead(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.close()


def _write_ahead(cursor: Any) -> None:
    """Switch a database to WAL, which it then stays in. SQLite does not wait for other connections to do that."""
    give_up_at = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as e:
            if e.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
        time.sleep(0.01)


def _begin_sqlite(connection: sa.Connection) -> None:
    # A write transaction takes the write lock at once: a later upgrade could fail with "busy".
    immediate = connection.get_execution_options().get("rag_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _first_line(error: BaseException | None) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
