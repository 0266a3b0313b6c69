"""A real HTTP server on loopback that speaks OpenAI's ``/v1/embeddings`` and can be told to misbehave."""

from __future__ import annotations

import base64
import contextlib
import gc
import hashlib
import json
import random
import socket
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

POISON = "\u2620poison\u2620"
"""A text that holds this is refused under the fault ``poison`` (and every other text accepted)."""

STATUS_FAULTS: dict[str, tuple[int, dict[str, str], dict[str, Any]]] = {
    "rate_limited": (429, {"Retry-After": "1"}, {"code": "rate_limit_exceeded", "type": "requests"}),
    "rate_limited_long": (429, {"Retry-After": "90"}, {"code": "rate_limit_exceeded", "type": "requests"}),
    "rate_limited_silent": (429, {}, {"code": "rate_limit_exceeded", "type": "requests"}),
    "unauthorized": (401, {}, {"code": "invalid_api_key", "type": "invalid_request_error"}),
    "forbidden": (403, {}, {"code": "forbidden", "type": "invalid_request_error"}),
    "model_not_found": (404, {}, {"code": "model_not_found", "type": "invalid_request_error"}),
    "bad_dimensions": (400, {}, {"code": None, "type": "invalid_request_error", "param": "dimensions"}),
    "insufficient_quota": (429, {}, {"code": "insufficient_quota", "type": "insufficient_quota"}),
    "server_error": (500, {}, {"code": None, "type": "server_error"}),
    "overloaded": (503, {"Retry-After": "1"}, {"code": None, "type": "server_error"}),
    "teapot": (418, {}, {"code": None, "type": "teapot"}),
    "refuse_all": (400, {}, {"code": "content_refused", "type": "invalid_request_error", "param": "input"}),
    "too_large": (413, {}, {"code": None, "type": "invalid_request_error"}),
}
NONSENSE_FAULTS = (
    "html", "html_json_type", "malformed_json", "json_null", "json_list", "no_data", "empty_body", "too_few", "too_many",
    "shuffled_no_index", "wrong_dimension", "ragged", "nan", "infinity", "zero", "strings", "cut_body",
)  # fmt: skip
SILENT_FAULTS = ("frozen", "dripping", "slow")
FAULTS = (*STATUS_FAULTS, *NONSENSE_FAULTS, *SILENT_FAULTS, "closed", "reset", "poison", "shuffled")


def vector_of(text: str, dimensions: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The vector that the server gives this text; of length 3, so that normalising is seen."""
    seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8], "big")
    v = np.random.default_rng(seed).standard_normal(dimensions)
    return (3 * v / np.linalg.norm(v)).astype(np.float32)


class MisbehavingOpenAI:
    """The server. Set ``fault`` at any time; None behaves well.

    Attributes:
        calls: requests received; inputs: texts of each request in order.
        faulty_calls: after so many faulty answers it behaves well again (None: never).
        max_inputs: larger requests are refused with 400, whatever the fault.
        concurrent, most_concurrent: requests being answered now, and at most.
    """

    def __init__(self, dimensions: int = 8) -> None:
        self.dimensions = dimensions
        self.fault: str | None = None
        self.faulty_calls: int | None = None
        self.max_inputs = 2048
        self.hold_s = 0.0
        self.calls = 0
        self.inputs: list[list[str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.concurrent = self.most_concurrent = 0
        self.released = threading.Event()
        self.lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def open(self) -> None:
        """Listen (again, on the same port)."""
        outer = self

        class Handler(_Handler):
            api = outer

        self.released.clear()
        self._server = _Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening: connections are refused."""
        self.released.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None
        # The SDK's HTTP library leaves the transport of a request that was cancelled in flight to the
        # garbage collector. Collected here, it cannot complain in the middle of somebody else's test.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()

    @contextlib.contextmanager
    def running(self) -> Iterator[MisbehavingOpenAI]:
        self.open()
        try:
            yield self
        finally:
            self.close()

    def take_fault(self) -> str | None:
        with self.lock:
            if self.fault is not None and self.faulty_calls is not None:
                if self.faulty_calls == 0:
                    return None
                self.faulty_calls -= 1
            return self.fault


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that left in the middle of a fault are no news."""


class _Handler(BaseHTTPRequestHandler):
    api: MisbehavingOpenAI
    protocol_version = "HTTP/1.1"
    timeout = 30

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        api = self.api
        with api.lock:
            api.calls += 1
            api.inputs.append(body["input"])
            api.bodies.append(body)
            api.concurrent += 1
            api.most_concurrent = max(api.most_concurrent, api.concurrent)
        try:
            self.answer(body)
        finally:
            with api.lock:
                api.concurrent -= 1

    def answer(self, body: dict[str, Any]) -> None:
        api, fault, texts = self.api, self.api.take_fault(), body["input"]
        if api.hold_s:
            api.released.wait(api.hold_s)
        if fault in STATUS_FAULTS:
            status, headers, error = STATUS_FAULTS[fault]
            return self.send(status, {"error": {"message": f"no: {texts[0]}", "param": None, **error}}, headers)
        if fault == "poison" and any(POISON in t for t in texts):
            error = {"message": f"refused: {texts}", "type": "invalid_request_error", "param": "input", "code": None}
            return self.send(400, {"error": error})
        if len(texts) > api.max_inputs:
            return self.send(400, {"error": {"message": "batch too large", "type": "invalid_request_error"}})
        if fault == "reset":
            # Close with unread state so that the client sees a reset instead of an answer.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.close_connection = True
            self.connection.close()
            return None
        if fault == "frozen":
            api.released.wait(60)
            self.close_connection = True
            return None
        if fault == "slow":
            api.released.wait(60)
        good = self.good(body)
        if fault == "dripping":
            return self.drip(json.dumps(good).encode())
        if fault in ("html", "html_json_type"):
            kind = "text/html" if fault == "html" else "application/json"
            return self.send_raw(200, b"<html><body>502 Bad Gateway</body></html>", kind)
        if fault == "malformed_json":
            return self.send_raw(200, json.dumps(good).encode()[:-7])
        if fault == "empty_body":
            return self.send_raw(200, b"")
        if fault == "json_null":
            return self.send_raw(200, b"null")
        if fault == "json_list":
            return self.send_raw(200, b"[1, 2]")
        if fault == "cut_body":
            raw = json.dumps(good).encode()
            self.send_raw(200, raw[: len(raw) // 2], length=len(raw))
            self.close_connection = True
            return None
        return self.send(200, self.spoiled(good, fault))

    def good(self, body: dict[str, Any]) -> dict[str, Any]:
        rows = []
        for i, text in enumerate(body["input"]):
            rows.append(
                {
                    "object": "embedding",
                    "index": i,
                    "embedding": self.encoded(vector_of(text, self.api.dimensions), body),
                }
            )
        tokens = sum(len(t.split()) for t in body["input"])
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": rows, "model": body["model"], "usage": usage}

    def encoded(self, v: np.ndarray[Any, Any], body: dict[str, Any]) -> Any:
        if body.get("encoding_format") == "base64":
            return base64.b64encode(v.astype("<f4").tobytes()).decode()
        return v.tolist()

    def spoiled(self, answer: dict[str, Any], fault: str | None) -> dict[str, Any]:
        data, n = answer["data"], self.api.dimensions
        fill = {"nan": np.nan, "infinity": np.inf, "zero": 0.0}
        body = self.api.bodies[-1]
        if fault == "no_data":
            return {"object": "list", "model": "m"}
        if fault == "too_few":
            answer["data"] = data[:-1]
        elif fault == "too_many":
            answer["data"] = [*data, data[0]]
        elif fault == "shuffled":
            random.Random(7).shuffle(data)
        elif fault == "shuffled_no_index":
            random.Random(7).shuffle(data)
            for row in data:
                row["index"] = 0 if len(data) > 1 else 5
        elif fault == "wrong_dimension":
            for row in data:
                row["embedding"] = self.encoded(np.ones(n + 1, np.float32), body)
        elif fault == "ragged":
            data[-1]["embedding"] = self.encoded(np.ones(n - 1, np.float32), body)
        elif fault == "strings":
            data[-1]["embedding"] = "?" * 7
        elif fault in fill:
            data[-1]["embedding"] = self.encoded(np.full(n, fill[fault], np.float32), body)
        return answer

    def drip(self, raw: bytes) -> None:
        """Keep the connection busy with one byte now and then: no read ever times out."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        for byte in raw:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            if self.api.released.wait(0.1):
                self.close_connection = True
                return

    def send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        self.send_raw(status, json.dumps(answer).encode(), headers=headers)

    def send_raw(
        self,
        status: int,
        raw: bytes,
        kind: str = "application/json",
        headers: dict[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw) if length is None else length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)
