"""Migration, locks and failures of the ledger's database."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from rag_platform.errors import ConfigurationError, DependencyError, LockTimeout
from rag_platform.ledger import Ledger, open_ledger, schema
from rag_platform.ledger.database import Database
from rag_platform.settings import Settings
from rag_platform_tests import harness

_HOLDER = """
import sys
from pathlib import Path
from rag_platform.ledger.database import Database
with Database(sys.argv[1], lock_folder=Path(sys.argv[2])).locks(sys.argv[3:]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def other_process_holds(settings: Settings, *names: str) -> Iterator[subprocess.Popen[str]]:
    arguments = [settings.resolved_ledger_url, str(settings.root / "locks"), *names]
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_lock_excludes_other_processes_and_dies_with_its_holder(ledger: Ledger, ledger_settings: Settings) -> None:
    """While another process holds a lock it cannot be had, other names can; kill -9 sets it free."""
    database = ledger.database
    with other_process_holds(ledger_settings, "index-0", "index-1") as holder:
        for name in ("index-0", "index-1"):
            with pytest.raises(LockTimeout, match=name), database.lock(name, timeout_s=0):
                pass
        with pytest.raises(LockTimeout), database.locks(["index-2", "index-1"], timeout_s=0):
            pass
        with database.lock("index-2", timeout_s=0):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with database.lock("index-0", timeout_s=30), database.lock("index-1", timeout_s=30):
            pass


def test_a_lock_excludes_other_threads(ledger: Ledger) -> None:
    """The same lock cannot be held twice in one process, and is free again after an error in its block."""
    database = ledger.database
    with database.lock("a"):
        refused: list[BaseException] = []

        def take() -> None:
            try:
                with database.lock("a", timeout_s=0):
                    pass
            except LockTimeout as e:
                refused.append(e)

        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
        assert len(refused) == 1
    with pytest.raises(RuntimeError), database.lock("a", timeout_s=0):
        raise RuntimeError
    with database.lock("a", timeout_s=0):
        pass


def test_as_many_locks_as_there_can_be_buckets(ledger: Ledger) -> None:
    """A run holds a lock for each of 256 buckets and can still read and write."""
    with ledger.database.locks(f"snapshot-{n:02x}" for n in range(256)):
        ledger.runs.start("r", [])
        assert ledger.runs.get("r") is not None


def test_migration_from_nothing_and_again(ledger: Ledger, ledger_settings: Settings) -> None:
    """A new ledger gets every table; opening it again changes nothing."""
    again = open_ledger(ledger_settings)
    with again.database.read() as c:
        tables = set(sa.inspect(c).get_table_names())
        assert c.execute(sa.select(schema.ledger_version.c.version)).scalars().all() == [schema.VERSION]
    assert tables == set(schema.metadata.tables)
    again.close()


def test_a_newer_ledger_is_refused_with_the_cure(ledger: Ledger, ledger_settings: Settings) -> None:
    """A ledger that a later program has written is not touched."""
    with ledger.database.write("test") as c:
        c.execute(schema.ledger_version.update().values(version=schema.VERSION + 1))
    with pytest.raises(ConfigurationError, match=r"upgrade rag-platform"):
        open_ledger(ledger_settings)


def test_a_failed_block_writes_nothing(ledger: Ledger) -> None:
    """A write transaction is all or nothing."""
    with pytest.raises(RuntimeError), ledger.database.write("test") as c:
        c.execute(schema.runs.insert().values(run_id="r", started_at=0.0, sources="[]"))
        raise RuntimeError
    assert ledger.runs.get("r") is None


def test_a_read_sees_one_state(ledger: Ledger) -> None:
    """What another connection commits while a read is open stays unseen until the next read."""
    count = sa.select(sa.func.count()).select_from(schema.runs)
    with ledger.database.read() as c:
        assert c.execute(count).scalar() == 0
        ledger.runs.start("r", [])
        assert c.execute(count).scalar() == 0
    with ledger.database.read() as c:
        assert c.execute(count).scalar() == 1


def test_two_programs_that_create_the_ledger_at_once(ledger_settings: Settings) -> None:
    """Any number of threads may open an empty ledger together."""
    failures: list[BaseException] = []
    start = threading.Barrier(4)

    def open_it() -> None:
        start.wait()
        try:
            open_ledger(ledger_settings).close()
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert failures == []


def test_a_ledger_that_does_not_answer_is_an_outage(tmp_path: Path) -> None:
    """A refused connection and a folder that is a file are DependencyErrors; another database is refused."""
    pytest.importorskip("psycopg2")
    with pytest.raises(DependencyError, match="ledger") as caught:
        Database("postgresql+psycopg2://rag:hidden@127.0.0.1:1/x", lock_folder=tmp_path)
    assert "hidden" not in str(caught.value)
    (tmp_path / "folder").mkdir()
    with pytest.raises(DependencyError, match="ledger"):
        Database(f"sqlite:///{tmp_path / 'folder'}", lock_folder=tmp_path)
    with pytest.raises(ConfigurationError, match="RAG_LEDGER_URL"):
        Database("mysql://x", lock_folder=tmp_path)


def test_a_damaged_ledger_is_an_outage(tmp_path: Path) -> None:
    """A file that is no database is reported as a failure of the ledger, not as a bug of the program."""
    settings = harness.settings(tmp_path / "home")
    settings.root.mkdir(parents=True)
    (settings.root / "ledger.sqlite").write_bytes(b"this is not a database" * 100)
    with pytest.raises(DependencyError, match="ledger"):
        open_ledger(settings)
