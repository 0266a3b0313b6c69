"""A PostgreSQL that is restarted, frozen or slow under an open ledger."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.ledger.database import Database
from rag_platform.ledger.locks import AdvisoryLocks
from rag_platform.settings import Settings
from rag_platform_tests.ledger import postgres_server
from rag_platform_tests.ledger.postgres_server import PostgresServer

psycopg2 = pytest.importorskip("psycopg2")

TIMEOUT_S = 1.0
SLACK_S = 20.0
"""Connection attempts (five seconds each) and a busy machine."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One that may be broken; whoever breaks it mends it."""
    folder = postgres_server.binaries()
    if folder is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    with postgres_server.started(folder) as running:
        yield running


@pytest.fixture
def database(server: PostgresServer, tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"{server.url}postgres", lock_folder=tmp_path, timeout_s=TIMEOUT_S)
    yield opened
    opened.close()


def scalar(database: Database, sql: str) -> object:
    with database.read() as c:
        return c.execute(sa.text(sql)).scalar()


def test_a_restart_is_survived(server: PostgresServer, database: Database) -> None:
    """A transaction that is open while the server dies is an outage; the next one opens a new connection, and what
    was committed is there."""
    with database.write("test") as c:
        c.execute(sa.text("CREATE TABLE kept (n int)"))
    with pytest.raises(DependencyError, match="postgresql"), database.write("test") as c:
        c.execute(sa.text("INSERT INTO kept VALUES (1)"))
        server.kill()
        server.start()
    for _ in range(3):
        assert scalar(database, "SELECT count(*) FROM kept") == 0
    with database.write("test") as c:
        c.execute(sa.text("INSERT INTO kept VALUES (1)"))
    assert scalar(database, "SELECT count(*) FROM kept") == 1


def test_locks_that_a_restart_took_away_are_missed(server: PostgresServer, database: Database, tmp_path: Path) -> None:
    """A run whose locks went with the server can write nothing more: another one may have them. Reading still works,
    and so does the next run."""
    other = Database(f"{server.url}postgres", lock_folder=tmp_path, timeout_s=TIMEOUT_S)
    with database.locks(["one", "two"]):
        with database.write("test"):
            pass
        server.kill()
        server.start()
        assert scalar(database, "SELECT 1") == 1
        with other.locks(["one"], timeout_s=0), pytest.raises(DependencyError, match="locks"), database.write("test"):
            pass
        with pytest.raises(DependencyError, match="locks"), database.write("test"):
            pass
        with other.write("test"):
            pass
    other.close()
    with database.locks(["one", "two"], timeout_s=0), database.write("test"):
        pass


def test_a_server_that_dies_while_a_lock_is_waited_for(
    server: PostgresServer, database: Database, tmp_path: Path
) -> None:
    """Some locks of several are taken, one is waited for: the outage is told as one, and the next run takes them all."""
    other = Database(f"{server.url}postgres", lock_folder=tmp_path, timeout_s=TIMEOUT_S)
    told: list[BaseException] = []

    def wait() -> None:
        try:
            with other.locks(["one", "two"]):
                pass
        except BaseException as e:
            told.append(e)

    advisory = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    waiting = threading.Thread(target=wait)
    with contextlib.suppress(DependencyError), database.lock("two"):
        waiting.start()
        while scalar(database, advisory) != 2:  # "one" is theirs, "two" is ours
            pass
        server.kill()
        waiting.join(SLACK_S)
        server.start()
    assert [type(e) for e in told] == [DependencyError], told
    with other.locks(["one", "two"], timeout_s=0):
        pass
    other.close()


def test_locks_of_dead_sessions_cost_the_pool_no_place(server: PostgresServer, database: Database) -> None:
    """A session dies between its last statement and its return to the pool, more often than a pool has places: each time
    it is an outage at most, and there is always a connection for the next lock."""
    locks = database._locks
    assert isinstance(locks, AdvisoryLocks)
    operator = psycopg2.connect(f"{server.url}postgres".replace("+psycopg2", ""))
    operator.autocommit = True
    ended: list[int] = []

    def end(connection: Any, *_: object) -> None:
        ended.append(connection.get_backend_pid())
        with operator.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 10000)", [ended[-1]])  # waits until it is gone

    sa.event.listen(locks._engine, "reset", end)
    for _ in range(20):
        with contextlib.suppress(DependencyError), database.lock("one"):
            pass
    sa.event.remove(locks._engine, "reset", end)
    operator.close()
    assert len(set(ended)) == 20
    with database.lock("one", timeout_s=0), database.write("test"):
        pass


def test_a_session_that_an_operator_ends(server: PostgresServer, database: Database) -> None:
    """A terminated session is the same as a lost connection: an outage, then a new one."""
    with database.lock("one"):
        with database.write("test") as c:
            c.execute(sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"))
        with pytest.raises(DependencyError), database.write("test"):
            pass
    with database.lock("one", timeout_s=0), database.write("test"):
        pass


def test_a_frozen_server_costs_a_bounded_time(server: PostgresServer, database: Database) -> None:
    """A server that keeps its sockets open and says nothing is an outage after the time that a statement may take,
    in a read, in a commit and for a new connection; afterwards the same ledger works."""
    assert scalar(database, "SELECT 1") == 1
    with database.engine.connect() as c:
        c.execute(sa.text("SELECT 1"))
        server.freeze()
        try:
            started = time.monotonic()
            with pytest.raises(sa.exc.OperationalError):
                c.commit()
            for _ in range(2):
                with pytest.raises(DependencyError, match="postgresql"):
                    scalar(database, "SELECT 1")
            assert time.monotonic() - started < 3 * (TIMEOUT_S + SLACK_S)
        finally:
            server.thaw()
    assert scalar(database, "SELECT 1") == 1
    with database.write("test"):
        pass


def test_a_writer_that_does_not_end_is_not_waited_for(
    database: Database, server: PostgresServer, tmp_path: Path
) -> None:
    """Who waits for the write lock longer than a statement may take gives up, with the server's own words."""
    other = Database(f"{server.url}postgres", lock_folder=tmp_path, timeout_s=TIMEOUT_S)
    done = threading.Event()
    holding = threading.Event()

    def hold() -> None:
        with other.write("test"):
            holding.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert holding.wait(30)
        with pytest.raises(DependencyError, match="statement timeout"), database.write("test"):
            pass
    finally:
        done.set()
        thread.join()
    with database.write("test"):
        pass
    other.close()


def test_the_server_is_told_not_to_wait_for_the_dead(database: Database) -> None:
    """A program that hangs in a transaction, or whose machine is gone, loses its locks within minutes."""
    assert scalar(database, "SHOW idle_in_transaction_session_timeout") == "10min"
    assert scalar(database, "SHOW tcp_keepalives_idle") == "30"
    assert scalar(database, "SHOW statement_timeout") == "1s"


def test_a_migration_may_take_its_time(server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of millions of rows are changed in longer than a statement may take otherwise."""
    from rag_platform.ledger import schema

    def slow(connection: sa.Connection) -> None:
        connection.execute(sa.text("SELECT pg_sleep(1.5)"))

    first, *rest = schema.MIGRATIONS
    monkeypatch.setattr(schema, "MIGRATIONS", (lambda c: (slow(c), first(c)), *rest))
    url = postgres_server.create_database(server.url, "slow")
    opened = Database(url, lock_folder=tmp_path, timeout_s=TIMEOUT_S)
    assert scalar(opened, "SELECT version FROM ledger_version") == schema.VERSION
    with pytest.raises(DependencyError, match="statement timeout"):
        scalar(opened, "SELECT pg_sleep(5)")
    opened.close()


def test_a_url_without_a_driver_means_the_one_that_is_installed(server: PostgresServer, tmp_path: Path) -> None:
    """SQLAlchemy would look for psycopg 3."""
    for scheme in ("postgresql", "postgres", "postgresql+psycopg2"):
        opened = Database(f"{scheme}{server.url.removeprefix('postgresql+psycopg2')}postgres", lock_folder=tmp_path)
        assert scalar(opened, "SELECT 1") == 1
        opened.close()
    for wrong in ("postgresql+asyncpg://u:secret@h/d", "postgresql:u:secret", "postgresql://u:secret@h:port/d"):
        with pytest.raises(ConfigurationError, match="RAG_LEDGER_URL") as caught:
            Database(wrong, lock_folder=tmp_path)
        assert "secret" not in str(caught.value)


def test_the_timeout_is_a_setting() -> None:
    """RAG_LEDGER_TIMEOUT_S, at least a second."""
    assert Settings.from_env({"RAG_LEDGER_TIMEOUT_S": "7"}).ledger_timeout_s == 7
    with pytest.raises(ConfigurationError, match="RAG_LEDGER_TIMEOUT_S"):
        Settings.from_env({"RAG_LEDGER_TIMEOUT_S": "0"})
