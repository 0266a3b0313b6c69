"""Servers as processes of their own, which a test can freeze."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

START_S = 60.0


class ServerProcess:
    """A running server.

    Attributes:
        port: of loopback.
        pid: process id.
    """

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process, self.port = process, port

    @property
    def pid(self) -> int:
        return self._process.pid

    def freeze(self) -> None:
        """SIGSTOP: its sockets stay open and nothing is read or answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End it, frozen or not."""
        self._process.kill()
        self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextlib.contextmanager
def printing_its_port(module: str, *arguments: str) -> Iterator[ServerProcess]:
    """Run ``python -m MODULE``, whose first line of output is its port."""
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    server = ServerProcess(process, 0)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.strip().isdigit(), f"{module} did not start"
        server.port = int(line)
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def listening(
    command: Sequence[str], port: int, environment: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """Run a command and wait until somebody listens on ``port``."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    server = ServerProcess(process, port)
    try:
        deadline = time.monotonic() + START_S
        while not accepts(port):
            assert server.alive() and time.monotonic() < deadline, f"{command[0]} did not start"
            time.sleep(0.02)
        yield server
    finally:
        server.close()


def accepts(port: int) -> bool:
    """Whether somebody listens on a port of loopback."""
    with socket.socket() as s:
        s.settimeout(1.0)
        return s.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
