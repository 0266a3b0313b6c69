"""A real HTTP server on loopback that speaks OpenAI's ``/v1/chat/completions`` and ``/v1/models``, and can be
told to misbehave. In this process, or in one of its own::

    python misbehaving_llm.py --port 0 [--fault frozen]

which prints its port, and is then told more by ``POST /control`` (``{"fault": …, "faulty_calls": …,
"answers": […]}``) and asked by ``GET /control``.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import re
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "misbehaving-1"

STATUS_FAULTS: dict[str, tuple[int, dict[str, str], dict[str, Any]]] = {
    "rate_limited": (429, {"Retry-After": "1"}, {"code": "rate_limit_exceeded", "type": "requests"}),
    "rate_limited_long": (429, {"Retry-After": "90"}, {"code": "rate_limit_exceeded", "type": "requests"}),
    "unauthorized": (401, {}, {"code": "invalid_api_key", "type": "invalid_request_error"}),
    "model_not_found": (404, {}, {"code": "model_not_found", "type": "invalid_request_error"}),
    "insufficient_quota": (429, {}, {"code": "insufficient_quota", "type": "insufficient_quota"}),
    "server_error": (500, {}, {"code": None, "type": "server_error"}),
    "overloaded": (503, {"Retry-After": "1"}, {"code": None, "type": "server_error"}),
    "refuse_content": (400, {}, {"code": "content_filter", "type": "invalid_request_error", "param": "messages"}),
    "context_too_long": (400, {}, {"code": "context_length_exceeded", "type": "invalid_request_error"}),
    "too_large": (413, {}, {"code": None, "type": "invalid_request_error"}),
}
NONSENSE_FAULTS = ("html", "html_json_type", "malformed_json", "json_null", "json_list", "empty_body", "no_choices", "no_finish")  # fmt: skip
STREAM_FAULTS = ("cut_stream", "reset_stream", "error_in_stream")
SILENT_FAULTS = ("frozen", "slow", "dripping")
MIDWAY_FAULTS = ("frozen_midway", "dripping_midway")
HARMLESS_FAULTS = ("no_usage", "usage_in_last_chunk", "hang_after_finish", "hang_after_usage", "role_only_first", "ignores_stream_options")  # fmt: skip
REFUSED_PARAMETERS = {
    "refuses_stream_options": "stream_options",
    "refuses_max_tokens": "max_tokens",
    "refuses_temperature": "temperature",
}
REFUSES_FORMAT = "refuses_response_format"
LENGTH = "length"
_UNFINISHED = (*SILENT_FAULTS, *MIDWAY_FAULTS, *STREAM_FAULTS, "hang_after_finish", "hang_after_usage")
"""Faults under which a client gives a request up while it is in flight."""
FAULTS = (
    *STATUS_FAULTS, *NONSENSE_FAULTS, *STREAM_FAULTS, *SILENT_FAULTS, *MIDWAY_FAULTS, *HARMLESS_FAULTS,
    *REFUSED_PARAMETERS, LENGTH,
)  # fmt: skip
HOLD_S = 120.0


def scripted(messages: list[dict[str, str]]) -> str:
    """What the server answers when nobody told it what to: the first sentence of the first passage with
    ``[1]``; without passages the prompt's last line, without its label."""
    last = messages[-1]["content"]
    marker = re.search(r"begins with (\S+):", last)
    if marker is None:
        return last.strip().splitlines()[-1].removeprefix("Last question:").strip()
    blocks = re.split(rf"^{re.escape(marker.group(1))} .*\n", last, flags=re.M)
    if len(blocks) < 3:
        return "NO_ANSWER"
    [sentence] = re.findall(r"\A.*?[.!?](?=\s|\Z)|\A.+\Z", blocks[1].strip(), re.S)[:1] or ["NO_ANSWER"]
    return re.sub(r"([.!?]?)$", r" [1]\1", " ".join(sentence.split()), count=1)


class MisbehavingLLM:
    """The server. Set ``fault`` at any time; None behaves well.

    Attributes:
        calls, model_calls: requests for completions and for the list of models.
        bodies: each completion request.
        faulty_calls: after so many faulty answers it behaves well again (None: never).
        answers: texts to answer with, first to last; then ``scripted`` ones.
        delay_s: before each piece of a stream.
        cut: number of streams whose client left before the end.
        concurrent, most_concurrent: requests being answered now, and at most.
    """

    def __init__(self, port: int = 0) -> None:
        self.fault: str | None = None
        self.faulty_calls: int | None = None
        self.answers: list[str] = []
        self.delay_s = 0.0
        self.calls = self.model_calls = self.cut = 0
        self.bodies: list[dict[str, Any]] = []
        self.concurrent = self.most_concurrent = 0
        self.released = threading.Event()
        self.lock = threading.Lock()
        self._left_in_flight = False
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.port = port

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def open(self) -> None:
        """Listen (again, on the same port)."""
        outer = self

        class Handler(_Handler):
            api = outer

        self.released.clear()
        self._server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
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
        if not self._left_in_flight:
            return
        # The SDK's HTTP library leaves the transport of a request that was cancelled in flight to the
        # garbage collector. Collected here, it cannot complain in the middle of somebody else's test.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()

    @contextlib.contextmanager
    def running(self) -> Iterator[MisbehavingLLM]:
        self.open()
        try:
            yield self
        finally:
            self.close()

    def take_fault(self) -> str | None:
        with self.lock:
            fault = self.fault
            if fault is not None and self.faulty_calls is not None:
                if self.faulty_calls == 0:
                    fault = None
                else:
                    self.faulty_calls -= 1
            self._left_in_flight |= bool(self.delay_s) or fault in _UNFINISHED
            return fault

    def take_answer(self, messages: list[dict[str, str]]) -> str:
        with self.lock:
            if self.answers:
                return self.answers.pop(0)
        return scripted(messages)

    def wait_for_cut(self, count: int = 1, timeout_s: float = 10.0) -> None:
        """Wait until ``count`` clients have left in the middle."""
        deadline = time.monotonic() + timeout_s
        while self.cut < count:
            assert time.monotonic() < deadline, "the connection was not closed"
            time.sleep(0.01)

    def state(self) -> dict[str, Any]:
        with self.lock:
            return {"calls": self.calls, "model_calls": self.model_calls, "cut": self.cut, "fault": self.fault}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that left in the middle of a fault are no news."""


class _Handler(BaseHTTPRequestHandler):
    api: MisbehavingLLM
    protocol_version = "HTTP/1.1"
    timeout = 30
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        if self.path == "/control":
            return self.send(200, self.api.state())
        with self.api.lock:
            self.api.model_calls += 1
        if not self.path.endswith("/models"):
            return self.send(404, {"error": {"message": "no such path"}})
        models = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "tests"}]}
        return self.misbehave(self.api.take_fault(), models) or self.send(200, models)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        api = self.api
        if self.path == "/control":
            for name, value in body.items():
                setattr(api, name, value)
            return self.send(200, api.state())
        with api.lock:
            api.calls += 1
            api.bodies.append(body)
            api.concurrent += 1
            api.most_concurrent = max(api.most_concurrent, api.concurrent)
        try:
            return self.answer(body)
        finally:
            with api.lock:
                api.concurrent -= 1

    def answer(self, body: dict[str, Any]) -> Any:
        fault = self.api.take_fault()
        parameter = "response_format" if fault == REFUSES_FORMAT else REFUSED_PARAMETERS.get(fault or "")
        if parameter is not None and parameter in body:
            message = f"Unsupported parameter: '{parameter}'"
            return self.send(400, {"error": {"message": message, "type": "invalid_request_error", "param": parameter}})
        text = self.api.take_answer(body["messages"])
        finish = "length" if fault == LENGTH else "stop"
        usage = {"prompt_tokens": sum(len(m["content"].split()) for m in body["messages"])}
        usage |= {"completion_tokens": len(text.split()), "total_tokens": usage["prompt_tokens"] + len(text.split())}
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
        whole: dict[str, Any] = {"id": "c", "object": "chat.completion", "created": 0, "model": MODEL}
        whole |= {"choices": [choice], "usage": usage}
        if fault == "no_usage":
            del whole["usage"]
        if self.misbehave(fault, whole):
            return None
        if not body.get("stream"):
            if fault in ("frozen_midway", "dripping_midway"):
                return self.drip(json.dumps(whole).encode(), frozen=fault == "frozen_midway")
            if fault in STREAM_FAULTS:
                return self.cut_body(json.dumps(whole).encode())
            return self.send(200, whole)
        return self.stream(text, finish, usage, fault, bool(body.get("stream_options", {}).get("include_usage")))

    def misbehave(self, fault: str | None, good: dict[str, Any]) -> bool:
        """Do what ``fault`` says in the place of an answer; False when it says nothing about that."""
        if fault in STATUS_FAULTS:
            status, headers, error = STATUS_FAULTS[fault]
            body = {"error": {"message": f"no: {json.dumps(good)}", "param": None, **error}}
            self.send(status, body, headers)
        elif fault == "frozen":
            self.api.released.wait(HOLD_S)
            self.close_connection = True
        elif fault == "slow":
            self.api.released.wait(HOLD_S)
            self.send(200, good)
        elif fault == "dripping":
            self.drip(json.dumps(good).encode())
        elif fault in ("html", "html_json_type"):
            kind = "text/html" if fault == "html" else "application/json"
            self.send_raw(200, b"<html><body>502 Bad Gateway</body></html>", kind)
        elif fault == "malformed_json":
            self.send_raw(200, json.dumps(good).encode()[:-7])
        elif fault == "empty_body":
            self.send_raw(200, b"")
        elif fault == "json_null":
            self.send_raw(200, b"null")
        elif fault == "json_list":
            self.send_raw(200, b"[1, 2]")
        elif fault == "no_choices":
            self.send(200, {"id": "c", "object": "chat.completion"})
        elif fault == "no_finish" and "choices" in good:
            good["choices"][0]["finish_reason"] = None
            self.send(200, good)
        else:
            return False
        return True

    def stream(self, text: str, finish: str, usage: dict[str, int], fault: str | None, wants_usage: bool) -> None:
        api, pieces = self.api, re.findall(r"\S+\s*|\s+", text)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            if fault == "role_only_first":
                self.event({"role": "assistant", "content": ""})
            for number, piece in enumerate(pieces):
                if number and number == max(1, len(pieces) // 2) and self.spoil(fault):
                    return
                if api.delay_s:
                    api.released.wait(api.delay_s)
                self.event({"content": piece})
            with_usage = fault == "usage_in_last_chunk"
            self.event({}, finish, usage if with_usage else None)
            if fault == "hang_after_finish":
                api.released.wait(HOLD_S)
            if wants_usage and not with_usage and fault not in ("no_usage", "ignores_stream_options"):
                self.event(None, None, usage)
            if fault == "hang_after_usage":
                api.released.wait(HOLD_S)
            self.chunk(b"data: [DONE]\n\n")
            self.chunk(b"")
        except OSError:
            with api.lock:
                api.cut += 1
            self.close_connection = True

    def spoil(self, fault: str | None) -> bool:
        """Do what ``fault`` says in the middle of a stream; whether that ended it."""
        if fault == "cut_stream":
            self.chunk(b"")
        elif fault == "reset_stream":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.close()
            self.close_connection = True
        elif fault == "error_in_stream":
            self.chunk(b'data: {"error": {"message": "out of memory", "type": "server_error"}}\n\n')
            self.chunk(b"")
        elif fault == "frozen_midway":
            self.api.released.wait(HOLD_S)
            self.close_connection = True
        elif fault == "dripping_midway":
            while not self.api.released.wait(0.05):
                self.chunk(b": still here\n\n")
            self.close_connection = True
        else:
            return False
        return True

    def event(self, delta: dict[str, Any] | None, finish: str | None = None, usage: Any = None) -> None:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
        body = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": MODEL, "choices": choices}
        if usage is not None:
            body["usage"] = usage
        self.chunk(f"data: {json.dumps(body)}\n\n".encode())

    def chunk(self, raw: bytes) -> None:
        self.wfile.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")
        self.wfile.flush()

    def drip(self, raw: bytes, *, frozen: bool = False) -> None:
        """Keep the connection busy with one byte now and then, so that no read ever times out; or stop midway."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        for byte in raw:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            if self.api.released.wait(HOLD_S if frozen else 0.1):
                self.close_connection = True
                return

    def cut_body(self, raw: bytes) -> None:
        self.send_raw(200, raw[: len(raw) // 2], length=len(raw))
        self.close_connection = True

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
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fault", choices=FAULTS)
    options = parser.parse_args()
    server = MisbehavingLLM(options.port)
    server.fault = options.fault
    server.open()
    print(server.port, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


if __name__ == "__main__":
    main()
