"""An HTTP server that stands before a real one on loopback, forwards what it is asked, and answers itself on demand."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from rag_platform_tests.backends.api_double import Asked, Reply

Fault = Callable[[Asked], Reply | None]
_HOP = ("connection", "transfer-encoding", "content-length", "keep-alive", "date", "server")
FREEZE = Reply(status=0)
"""Never answered."""


class FaultyFront:
    """``fault`` may answer instead of the upstream; ``asked`` is the log of what came, bodies left out."""

    def __init__(self, upstream: str) -> None:
        self.fault: Fault | None = None
        self.asked: list[Asked] = []
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._upstream = urlsplit(upstream).netloc
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_one_request(self) -> None:
                with contextlib.suppress(OSError):
                    super().handle_one_request()
                    return
                self.close_connection = True

            def do_GET(self) -> None:
                body = self._body()
                url = urlsplit(self.path)
                query = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
                headers = {k.lower(): v for k, v in self.headers.items()}
                asked = Asked(self.command, url.path, query, headers, None)
                with front._lock:
                    front.asked.append(asked)
                    reply = front.fault(asked) if front.fault else None
                self._send(reply or self._forwarded(body))

            do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

            def _body(self) -> bytes:
                if self.headers.get("transfer-encoding", "") != "chunked":
                    return self.rfile.read(int(self.headers.get("content-length") or 0))
                parts = bytearray()
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return bytes(parts)

            def _forwarded(self, body: bytes) -> Reply:
                connection = http.client.HTTPConnection(front._upstream, timeout=30)
                try:
                    headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
                    connection.request(self.command, self.path, body or None, headers)
                    answer = connection.getresponse()
                    kept = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP}
                    if self.command == "HEAD":
                        kept["Content-Length"] = answer.headers.get("content-length", "0")
                    return Reply(answer.status, answer.read(), kept)
                finally:
                    connection.close()

            def _send(self, reply: Reply) -> None:
                if reply is FREEZE:
                    front._over.wait(60)
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "HEAD":
                    return
                if reply.cut:
                    self.wfile.write(reply.body[: len(reply.body) // 2])
                    self.close_connection = True
                elif reply.drip_s:
                    for byte in reply.body:
                        self.wfile.write(bytes([byte]))
                        if front._over.wait(reply.drip_s):
                            break
                    self.close_connection = True
                else:
                    self.wfile.write(reply.body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign, assignment]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def forget(self) -> None:
        """Clear the log and the fault."""
        with self._lock:
            self.asked.clear()
            self.fault = None

    def nth(self, number: int, reply: Reply) -> None:
        """Answer the ``number``-th request from now (from 1) so."""
        self.forget()
        self.fault = lambda asked: reply if len(self.asked) == number else None

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def before(upstream: str) -> Iterator[FaultyFront]:
    """Run a front for the block."""
    front = FaultyFront(upstream)
    try:
        yield front
    finally:
        front.close()
