"""A loopback HTTP server for doubles of vendors' APIs: JSON replies, a log of requests, faults on demand."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Reply:
    """``body``: bytes, or what is sent as JSON. ``cut``: the connection ends before the last byte.
    ``drip_s``: bytes come one by one, so far apart, until ``stop`` is set."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    drip_s: float = 0.0


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


Fault = Callable[[Asked], Reply | None]


class ApiDouble:
    """Answers by ``answer``, which a double overrides. ``fault`` may answer instead; ``asked`` is the log."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.asked: list[Asked] = []
        self.stop = threading.Event()
        self.lock = threading.RLock()
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                raw = self.rfile.read(length)
                url = urlsplit(self.path)
                asked = Asked(
                    self.command,
                    url.path,
                    {k: v[0] for k, v in parse_qs(url.query).items()},
                    {k.lower(): v for k, v in self.headers.items()},
                    json.loads(raw) if raw else None,
                )
                with double.lock:
                    double.asked.append(asked)
                    reply = (double.fault(asked) if double.fault else None) or double.answer(asked)
                self._send(reply)

            do_POST = do_GET

            def _send(self, reply: Reply) -> None:
                body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if reply.cut:
                    self.wfile.write(body[: len(body) // 2])
                    self.close_connection = True
                elif reply.drip_s:
                    for byte in body:
                        self.wfile.write(bytes([byte]))
                        if double.stop.wait(reply.drip_s):
                            break
                    self.close_connection = True
                else:
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign, assignment]
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.origin = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, asked: Asked) -> Reply:
        raise NotImplementedError

    def paths(self) -> list[str]:
        """Return the paths asked for since the log was last cleared."""
        with self.lock:
            return [a.path for a in self.asked]

    def forget(self) -> None:
        """Clear the log and any fault."""
        with self.lock:
            self.asked.clear()
            self.fault = None

    def close(self) -> None:
        self.stop.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()
