"""A private PostgreSQL on loopback, from the binaries of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
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


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run a fresh server with the binaries of ``folder``; yields its URL without a database."""
    root = Path(tempfile.mkdtemp(prefix="rag-postgres-"))
    as_other = ["runuser", "-u", ACCOUNT, "--"] if os.geteuid() == 0 else []
    try:
        if as_other:
            shutil.chown(root, ACCOUNT)
        data, port = root / "data", _free_port()

        def call(*command: str) -> None:
            subprocess.run([*as_other, *command], check=True, cwd=root, stdout=subprocess.DEVNULL, timeout=120)

        call(str(folder / "initdb"), "-D", str(data), "-A", "trust", "-U", "rag", "-E", "UTF8", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={root} -c fsync=off"
        control = (str(folder / "pg_ctl"), "-D", str(data), "-w")
        call(*control, "-l", str(root / "log"), "-o", options, "start")
        try:
            yield f"postgresql+psycopg2://rag@127.0.0.1:{port}/"
        finally:
            call(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
