"""The real application on a real port: uvicorn in a thread of the test."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import httpx

from rag_platform.settings import Settings
from rag_platform_tests.serve.fake_service import FakeService
from serve.server import make_server
from serve.service_protocol import AnsweringService

PATIENCE_S = 30.0


class ApiServer:
    """A context manager; inside it the API answers at ``url``. ``service`` is a ``FakeService`` unless one is given."""

    def __init__(self, settings: Settings, service: AnsweringService | None = None, *, host: str = "127.0.0.1") -> None:
        self.settings = settings
        self.service: Any = service or FakeService(settings)
        self._up = threading.Event()
        self.url = ""
        self.server = make_server(settings, host, 0, self._announce, self.service)
        self._thread = threading.Thread(target=self.server.run, name="api-under-test")

    def _announce(self, url: str) -> None:
        self.url = url
        self._up.set()

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def __enter__(self) -> ApiServer:
        self._thread.start()
        assert self._up.wait(PATIENCE_S), "the API did not start"
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE_S, trust_env=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.http.close()
        if isinstance(self.service, FakeService):
            self.service.release()
        if self._thread.is_alive():
            self.server.stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the API did not stop"

    def query(self, question: str, **fields: Any) -> httpx.Response:
        """POST /v1/query."""
        return self.http.post("/v1/query", json={"question": question, **fields})

    def connect(self) -> socket.socket:
        """Open a bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def begin(self, question: str, path: str = "/v1/query", **fields: Any) -> socket.socket:
        """Send a question over a connection of its own and do not wait for the answer."""
        body = httpx.Request("POST", "http://x", json={"question": question, **fields}).content
        connection = self.connect()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return connection


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Return when ``condition`` holds; fail when it does not come true."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.005)


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)
