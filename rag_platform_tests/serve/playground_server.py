"""A scripted query API for browser tests: serves ``serve/ui`` with the page's real headers and plays
back what a test wrote down, in the shapes of ``Answer``, the stream's events and ``serve.schemas``.

The real API cannot be made to answer with hostile titles, halves of characters or a stream that hangs up; the
flows that need none of this run against it as well (``playground_flows``).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from rag_platform.query.answer import Answer, Citation, Usage
from rag_platform.query.events import Event, Final, Passages, StageDone, TextDelta
from serve.routes.playground import page_headers

UI = Path(__file__).parents[2] / "serve" / "ui"
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
READY = (200, {"status": "ready", "dependencies": {"ledger": "ok", "vector_store": "ok"}, "missing": []})
WAIT_S = 15.0
"""Longest time that a script waits for its test; a failing test must not hang."""


@dataclass
class Gate:
    """A place in a stream where the server waits until the test has looked."""

    opened: threading.Event = field(default_factory=threading.Event)

    def open(self) -> None:
        self.opened.set()


@dataclass(frozen=True)
class Script:
    """What one request is answered with. ``pieces`` are sent and flushed one by one; a ``Gate`` among them
    waits; ``cut`` ends the connection without ending the body."""

    pieces: Sequence[bytes | Gate] = ()
    status: int = 200
    content_type: str = "text/event-stream"
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


@dataclass(frozen=True)
class Request:
    """What the page sent."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


class PlaygroundServer:
    """Listens on a free port of loopback; ``close`` ends it.

    Attributes:
        answers: scripts by question; a list is used up one by one, and its last one stays.
        citations: bodies of ``/v1/citations/{chunk_id}``, or scripts.
        feedback: scripts for the next thumbs; without one a thumb is accepted.
        ready: status and body of ``/health/ready``.
        requests: what came for ``/v1``, in order.
        hung_up: set once the page has closed a stream before its end.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Script | list[Script]] = {}
        self.citations: dict[str, Any] = {}
        self.feedback: list[Script] = []
        self.ready: tuple[int, Any] = READY
        self.requests: list[Request] = []
        self.hung_up = threading.Event()
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.playground = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join(WAIT_S)
        self._http.server_close()

    def reset(self) -> None:
        """Forget what the test before wrote down and sent."""
        with self._lock:
            self.answers, self.citations, self.feedback, self.requests = {}, {}, [], []
            self.ready = READY
            self.hung_up.clear()

    def sent(self, path: str) -> list[Request]:
        """Return the requests for ``path`` so far."""
        with self._lock:
            return [r for r in self.requests if r.path == path]

    def respond(self, request: Request) -> Script:
        """Note the request and return what it is answered with."""
        with self._lock:
            self.requests.append(request)
            if request.path == "/v1/query":
                found = self.answers.get(request.body["question"])
                if isinstance(found, list):
                    found = found.pop(0) if len(found) > 1 else found[0]
                return found or problem(404, detail="no script for this question")
            if request.path == "/v1/feedback":
                return self.feedback.pop(0) if self.feedback else json_reply(request.body)
            if request.path.startswith("/v1/citations/"):
                found = self.citations.get(unquote(request.path.removeprefix("/v1/citations/")))
                return problem(404) if found is None else found if isinstance(found, Script) else json_reply(found)
        return problem(404)


@contextmanager
def playground_server() -> Iterator[PlaygroundServer]:
    server = PlaygroundServer()
    try:
        yield server
    finally:
        server.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def _playground(self) -> PlaygroundServer:
        return self.server.playground  # type: ignore[attr-defined, no-any-return]

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the test's output is not an access log."""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/health/ready":
            status, body = self._playground.ready
            self._play(json_reply(body, status=status))
        elif path.startswith("/v1/"):
            self._play(self._playground.respond(Request("GET", path, dict(self.headers), None)))
        else:
            self._file("index.html" if path == "/" else path.removeprefix("/ui/"))

    def do_POST(self) -> None:
        body = msgspec.json.decode(self.rfile.read(int(self.headers["Content-Length"])))
        self._play(self._playground.respond(Request("POST", urlsplit(self.path).path, dict(self.headers), body)))

    def _file(self, name: str) -> None:
        path = UI / name
        if "/" in name or not path.is_file():
            self._play(problem(404))
            return
        self._play(Script([path.read_bytes()], content_type=TYPES[path.suffix]))

    def _play(self, script: Script) -> None:
        self.send_response(script.status)
        page = {name.decode(): value.decode() for name, value in page_headers()}
        headers = {**page, "Content-Type": script.content_type, "Transfer-Encoding": "chunked", **script.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for piece in script.pieces:
                if isinstance(piece, Gate):
                    self._wait(piece)
                else:
                    self._chunk(piece)
            if script.cut:
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True
            self._playground.hung_up.set()

    def _wait(self, gate: Gate) -> None:
        """Wait for the test, with comments now and then: they are how a server notices that nobody listens."""
        for _ in range(int(WAIT_S / 0.05)):
            if gate.opened.wait(0.05):
                return
            self._chunk(b": still here\r\n\r\n")

    def _chunk(self, piece: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))


# ── what scripts are written with ──


def json_reply(body: Any, *, status: int = 200, **headers: str) -> Script:
    return Script([msgspec.json.encode(body)], status, "application/json", headers)


def problem(status: int, *, title: str = "Refused", detail: str = "", **headers: str) -> Script:
    """Problem details as ``serve/problems.py`` writes them; ``Retry_After="2"`` becomes a header."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"type": "urn:rag-platform:problem:x", "title": title, "status": status, "detail": detail}
    return Script([msgspec.json.encode({**body, "request_id": "req-p"})], status, "application/problem+json", named)


def sse(event: Event) -> bytes:
    """One event as it goes over the wire."""
    return b"event: %s\ndata: %s\n\n" % (str(event.__struct_config__.tag).encode(), msgspec.json.encode(event))


def stream(answer: Answer, *, before: Iterable[bytes | Gate] = (), pieces: int = 6) -> Script:
    """A whole stream: stages, passages, the text in ``pieces``, the answer."""
    step = max(1, -(-len(answer.answer) // pieces))
    events: list[bytes | Gate] = [sse(StageDone("embed", 3.1)), sse(StageDone("search", 8.4)), *before]
    events.append(sse(Passages([c.title for c in answer.citations], [c.uri for c in answer.citations])))
    events += [sse(TextDelta(answer.answer[n : n + step])) for n in range(0, len(answer.answer), step)]
    events.append(sse(Final(answer)))
    return Script(events)


def cite(number: int, quote: str, **changes: Any) -> Citation:
    """A citation of ``quote``, which starts at character 40 of its document."""
    given = {
        "number": number,
        "chunk_id": f"chunk-{number}",
        "document_id": f"document-{number}",
        "source": "handbook",
        "uri": f"guides/part-{number}.md",
        "title": f"Guide, part {number}",
        "page": 3,
        "heading_path": "Operations › Recovery",
        "start": 40,
        "end": 40 + len(quote),
        "quote": quote,
        "score": 0.81,
        "version_id": "v-3f9ac04be1",
        "snapshot_id": "s-2026-11-22",
        "run_id": "run-7c1e",
    }
    return Citation(**{**given, **changes})


def answer(text: str, citations: Sequence[Citation] = (), **changes: Any) -> Answer:
    given: dict[str, Any] = {
        "request_id": "req-1",
        "answer": text,
        "citations": list(citations),
        "mode": "full",
        "generator": "extractive",
        "degraded": [],
        "cache": "miss",
        "refused": False,
        "usage": Usage(embedding_tokens=9),
        "cost_usd": 0.0,
        "timings_ms": {"embed": 3.1, "search": 8.4, "rerank": 96.0, "compress": 0.6, "generate": 71.2, "total": 181.9},
        "release_id": "r-0042",
        "profile": "balanced",
    }
    return Answer(**{**given, **changes})


def span_of(citation: Citation, *, before: str, lead: str, tail: str, after: str, **changes: Any) -> dict[str, Any]:
    """The body of ``/v1/citations``: ``lead + quote + tail`` is the chunk, and everything starts at 0."""
    start = citation.start - len(lead)
    text = lead + citation.quote + tail
    named = ("chunk_id", "document_id", "source", "uri", "title", "page", "heading_path")
    known = {name: getattr(citation, name) for name in (*named, "version_id", "snapshot_id", "run_id")}
    return {
        **known,
        "start": start,
        "end": start + len(text),
        "before": before,
        "text": text,
        "after": after,
        "mime_type": "text/markdown",
        "content_hash": "c-91d2",
        "run_url": None,
        "url": None,
        **changes,
    }
