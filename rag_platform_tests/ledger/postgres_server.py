"""A private PostgreSQL on loopback, from the binaries of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ACCOUNT = "postgres"
"""PostgreSQL refuses to run as root; its own account runs it then."""


def binaries() -> Path | None:
    """Return the folder with initdb and pg_ctl, of the newest version; None without one."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return None if on_path is None else Path(on_path).parent


class PostgresServer:
    """A running server. What is committed survives ``kill``: its files are in the kernel's hands.

    Attributes:
        url: without a database.
        port: of loopback.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder, self._root, self._data = folder, root, root / "data"
        self.port = _free_port()
        self.url = f"postgresql+psycopg2://rag@127.0.0.1:{self.port}/"

    def create(self) -> None:
        self._call("initdb", "-D", str(self._data), "-A", "trust", "-U", "rag", "-E", "UTF8", "--no-sync")

    def start(self) -> None:
        """Start it, for the first time or after ``kill``, on the same port; returns when it accepts connections."""
        # fsync is for power failures, which do not happen here.
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self._call("pg_ctl", *self._control, "-l", str(self._root / "log"), "-o", options, "start")

    def stop(self) -> None:
        self.thaw()
        self._call("pg_ctl", *self._control, "-m", "immediate", "stop")

    def kill(self) -> None:
        """SIGKILL, the server and every process of it."""
        pids = self.freeze()
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while any(map(_lives, pids)):
            assert time.monotonic() < deadline, "it does not die"
            time.sleep(0.005)
        self._pid_file.unlink()  # its number may be a zombie's, or another's by now

    def freeze(self) -> list[int]:
        """SIGSTOP: the kernel goes on to accept connections, and nobody answers; returns the process ids."""
        first, *_ = self._processes()
        _signal(first, signal.SIGSTOP)  # from now on it starts no further ones
        pids = self._processes()
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        return pids

    def thaw(self) -> None:
        for pid in reversed(self._processes()):
            _signal(pid, signal.SIGCONT)

    def is_up(self) -> bool:
        return self._pid_file.exists() and _lives(self._processes()[0])

    @property
    def _pid_file(self) -> Path:
        return self._data / "postmaster.pid"

    @property
    def _control(self) -> tuple[str, ...]:
        return ("-D", str(self._data), "-w")

    def _processes(self) -> list[int]:
        """Return the ids of the server's first process and of its children."""
        first = int(self._pid_file.read_text().split()[0])
        with contextlib.suppress(OSError):
            return [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]
        return [first]

    def _call(self, program: str, *arguments: str) -> None:
        as_other = ["runuser", "-u", ACCOUNT, "--"] if os.geteuid() == 0 else []
        command = [*as_other, str(self._folder / program), *arguments]
        subprocess.run(command, check=True, cwd=self._root, stdout=subprocess.DEVNULL, timeout=120)


@contextlib.contextmanager
def started(folder: Path) -> Iterator[PostgresServer]:
    """Run a fresh server with the binaries of ``folder``."""
    root = Path(tempfile.mkdtemp(prefix="rag-postgres-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(root, ACCOUNT)
        server = PostgresServer(folder, root)
        server.create()
        server.start()
        try:
            yield server
        finally:
            if server.is_up():
                server.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run a fresh server with the binaries of ``folder``; yields its URL without a database."""
    with started(folder) as server:
        yield server.url


def create_database(server: str, name: str) -> str:
    """Make an empty database; returns its URL.

    Args:
        server: URL without a database, ending with a slash.
    """
    import sqlalchemy as sa

    engine = sa.create_engine(f"{server}postgres", isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
    finally:
        engine.dispose()
    return f"{server}{name}"


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
