"""A real HTTP server on loopback that speaks Cohere's rerank interface and can be told to misbehave.

In process: ``with MisbehavingReranker().running() as server``. As its own process, which may be stopped
or killed: ``python misbehaving_reranker.py --port 0 [--fault NAME]`` prints its port and serves; ``POST
/fault`` with ``{"fault": NAME or null}`` changes the fault, ``GET /calls`` returns ``{"calls": N}``.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import re
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STATUS_FAULTS: dict[str, tuple[int, dict[str, str]]] = {
    "400": (400, {}),
    "401": (401, {}),
    "402": (402, {}),
    "403": (403, {}),
    "404": (404, {}),
    "422": (422, {}),
    "429": (429, {"Retry-After": "1"}),
    "500": (500, {}),
    "503": (503, {"Retry-After": "1"}),
    "redirect": (307, {"Location": "/elsewhere"}),
}
NONSENSE_FAULTS = (
    "html", "malformed_json", "empty_body", "json_null", "json_list", "no_results", "too_few", "too_many",
    "duplicate_index", "index_out_of_range", "no_index", "nan", "infinity", "huge_integer", "text_score", "cut_body",
)  # fmt: skip
SILENT_FAULTS = ("frozen", "slow", "dripping")
FAULTS = (*STATUS_FAULTS, *NONSENSE_FAULTS, *SILENT_FAULTS, "closed")

_WORD = re.compile(r"\w+")


def overlap(query: str, document: str) -> float:
    """The score that the server gives: the share of the query's words that the document holds."""
    wanted = set(_WORD.findall(query.lower()))
    return len(wanted & set(_WORD.findall(document.lower()))) / max(1, len(wanted))


class MisbehavingReranker:
    """The server. Set ``fault`` at any time; None behaves well. ``closed`` resets every connection; for a
    port on which nobody listens, call ``close``.

    Attributes:
        calls: rerank requests received; bodies, paths and headers: of each, in order.
        slow_s: how long ``slow`` takes to answer.
    """

    def __init__(self, port: int = 0) -> None:
        self.fault: str | None = None
        self.slow_s = 60.0
        self.calls = 0
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self.released = threading.Event()
        self._port = port
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        return self._port

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

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
        # The HTTP library leaves the transport of a request that was cancelled in flight to the garbage
        # collector. Collected here, it cannot complain in the middle of somebody else's test.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()

    @contextlib.contextmanager
    def running(self) -> Iterator[MisbehavingReranker]:
        self.open()
        try:
            yield self
        finally:
            self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that left in the middle of a fault are no news."""


class _Handler(BaseHTTPRequestHandler):
    api: MisbehavingReranker
    protocol_version = "HTTP/1.1"
    timeout = 5
    """Seconds that an idle connection is kept; bounds how long closing waits for it."""

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.send(200, {"calls": self.api.calls})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/fault":
            self.api.fault = body["fault"]
            return self.send(200, {})
        api = self.api
        with api.lock:
            api.calls += 1
            api.bodies.append(body)
            api.paths.append(self.path)
            api.headers.append({k.lower(): v for k, v in self.headers.items()})
        return self.answer(body, api.fault)

    def answer(self, body: dict[str, Any], fault: str | None) -> None:
        api = self.api
        if fault in STATUS_FAULTS:
            status, headers = STATUS_FAULTS[fault]
            return self.send(status, {"message": f"no: {body['query']}"}, headers)
        if fault in ("closed", "frozen"):
            if fault == "frozen":
                api.released.wait(60)
            self.close_connection = True
            return None
        if fault == "slow":
            api.released.wait(api.slow_s)
        good = self.good(body)
        raw = json.dumps(self.spoiled(good, fault)).encode()
        if fault == "dripping":
            return self.drip(raw)
        if fault == "html":
            return self.send_raw(200, b"<html><body>502 Bad Gateway</body></html>", "text/html")
        if fault == "malformed_json":
            return self.send_raw(200, raw[:-7])
        if fault == "empty_body":
            return self.send_raw(200, b"")
        if fault == "cut_body":
            self.send_raw(200, raw[: len(raw) // 2], length=len(raw))
            self.close_connection = True
            return None
        return self.send_raw(200, raw)

    def good(self, body: dict[str, Any]) -> Any:
        """Best first, as the real ones answer; a list under the names of TEI when asked in its way."""
        tei = "texts" in body
        documents = body["texts"] if tei else body["documents"]
        name = "score" if tei else "relevance_score"
        rows = [{"index": i, name: overlap(body["query"], d)} for i, d in enumerate(documents)]
        rows.sort(key=lambda row: -row[name])
        return rows if tei else {"id": "r1", "results": rows[: body["top_n"]], "meta": {"api_version": "2"}}

    def spoiled(self, answer: Any, fault: str | None) -> Any:
        rows = answer if isinstance(answer, list) else answer["results"]
        values = {"nan": float("nan"), "infinity": float("inf"), "huge_integer": 10**400, "text_score": "0.5"}
        if fault == "json_null":
            return None
        if fault == "json_list":
            return [1, 2]
        if fault == "no_results":
            return {"id": "r1"}
        if fault == "too_few":
            rows.pop()
        elif fault == "too_many":
            rows.append(dict(rows[0]))
        elif fault == "duplicate_index":
            rows[-1]["index"] = rows[0]["index"] if len(rows) > 1 else 7
        elif fault == "index_out_of_range":
            rows[-1]["index"] = len(rows)
        elif fault == "no_index":
            del rows[-1]["index"]
        elif fault in values:
            rows[-1]["relevance_score"] = values[fault]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fault", choices=FAULTS)
    options = parser.parse_args()
    server = MisbehavingReranker(options.port)
    server.fault = options.fault
    with server.running():
        print(server.port, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
