"""Server-sent events: framing, failures before and after the first event, and clients that leave."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from rag_platform_tests.serve.api_server import ApiServer, eventually, read_all


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of a stream as (name, data)."""
    found = []
    for frame in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in frame.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


@pytest.mark.parametrize("asked_by", ["body", "accept"])
def test_a_stream_ends_with_the_answer(api: ApiServer, asked_by: str) -> None:
    """Stages, passages and text come first, the whole answer last; asked for by the body or by Accept."""
    fields = {"stream": True} if asked_by == "body" else {}
    headers = {"Accept": "text/event-stream"} if asked_by == "accept" else {}
    response = api.http.post("/v1/query", json={"question": "q", **fields}, headers=headers)
    found = events(response.text)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store" and response.headers["x-accel-buffering"] == "no"
    assert [name for name, _ in found] == ["stage", "passages", "text", "text", "answer"]
    assert found[0][1] == {"event": "stage", "name": "embed", "ms": 1.5}
    answer = found[-1][1]["answer"]
    assert "".join(data["text"] for name, data in found if name == "text") == answer["answer"]
    assert answer["request_id"] == response.headers["x-request-id"]


def test_a_cached_answer_is_streamed_without_the_pipeline(api: ApiServer) -> None:
    """An exact hit is one event."""
    found = events(api.query("cached: q", stream=True).text)
    assert [name for name, _ in found] == ["answer"] and api.service.questions == []


def test_events_come_while_the_answer_is_made(api: ApiServer) -> None:
    """The first events are there while the work still waits."""
    with api.http.stream("POST", "/v1/query", json={"question": "hold", "stream": True}) as response:
        lines = response.iter_lines()
        assert next(lines) == "event: stage"
        assert api.service.running == 1 and api.service.finished == 0
        api.service.release()
        assert "event: answer" in list(lines)


def test_a_failure_before_the_first_event_has_a_status(api: ApiServer) -> None:
    """Nothing was sent yet, so the problem comes as it would without a stream."""
    response = api.query("fail", stream=True)
    assert response.status_code == 503 and response.headers["retry-after"] == "7"
    assert response.headers["content-type"] == "application/problem+json"


def test_a_failure_after_the_first_event_is_an_event(api: ApiServer) -> None:
    """The stream ends with an error event that holds the problem."""
    response = api.query("late fail", stream=True)
    name, data = events(response.text)[-1]
    assert response.status_code == 200 and name == "error"
    assert data["status"] == 503 and data["retry_after_s"] == 7
    assert data["request_id"] == response.headers["x-request-id"]


def test_a_client_that_leaves_cancels_the_work(api: ApiServer) -> None:
    """When the connection closes, the stream's work is cancelled and its place is free again."""
    connection = api.begin("hold", stream=True)
    assert b"event: stage" in connection.recv(65536)
    connection.close()
    eventually(lambda: api.service.cancelled == 1 and api.service.running == 0, "the work is cancelled")


def test_a_client_that_leaves_cancels_an_unstreamed_answer_too(api: ApiServer) -> None:
    """The same without a stream."""
    connection = api.begin("hold")
    eventually(lambda: api.service.running == 1, "the work has begun")
    connection.close()
    eventually(lambda: api.service.cancelled == 1 and api.service.running == 0, "the work is cancelled")


def test_silence_is_filled_with_comments(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing happens, comments keep proxies from closing the connection; clients skip them."""
    monkeypatch.setattr("serve.streaming.PING_S", 0.05)
    connection = api.begin("hold", stream=True)
    received = b""
    while received.count(b": still working") < 2:
        received += connection.recv(65536)
    api.service.release()
    while b"event: answer" not in received:
        received += connection.recv(65536)
    connection.close()


@pytest.mark.parametrize("stream", [False, True])
def test_no_response_later_than_the_deadline(api: ApiServer, stream: bool) -> None:
    """Even when the service neither answers nor gives up when told to, the client has its response in time (P7)."""
    started = time.monotonic()
    response = api.query("stubborn", stream=stream, deadline_ms=400)
    took = time.monotonic() - started
    assert took < 0.4 + 0.25 + 0.5, took  # P7, and half a second for a busy test machine
    if stream:
        name, data = events(response.text)[-1]
        assert name == "error" and data["status"] == 503
    else:
        assert response.status_code == 503 and response.headers["retry-after"]


def test_a_slow_reader_holds_no_place(start_api: Callable[..., ApiServer]) -> None:
    """The only place is free again although the client of the stream before has not read its answer."""
    api = start_api(RAG_HTTP_MAX_IN_FLIGHT="1", RAG_HTTP_MAX_WAITING="0")
    idle = api.begin("q", stream=True)
    eventually(lambda: api.service.finished == 1, "the answer is made")
    eventually(lambda: api.query("another").status_code == 200, "the place is free")
    assert b"event: answer" in idle.recv(65536)
    idle.close()


def test_a_stream_over_http_1_0(api: ApiServer) -> None:
    """A client without chunked encoding gets the events until the connection closes."""
    body = b'{"question": "q", "stream": true}'
    connection = api.connect()
    head = b"POST /v1/query HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    connection.sendall(head % len(body) + body)
    assert b"event: answer" in read_all(connection)
    connection.close()


def test_httpx_sees_the_stream_end(api: ApiServer) -> None:
    """The response is complete after the answer; the connection is used again."""
    with httpx.Client(base_url=api.url, trust_env=False) as client:
        for _ in range(3):
            text = client.post("/v1/query", json={"question": "q", "stream": True}).text
            assert events(text)[-1][0] == "answer"
