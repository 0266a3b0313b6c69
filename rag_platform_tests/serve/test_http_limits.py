"""Clients that send too much, too slowly, or nonsense: each costs its own connection and nobody else's time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import pytest

from rag_platform_tests.serve.api_server import ApiServer, eventually, read_all

HEAD = b"POST /v1/query HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


def test_a_body_that_says_it_is_too_large_is_not_read(api: ApiServer) -> None:
    """413 comes before the body does."""
    connection = api.connect()
    connection.sendall(HEAD + b"Content-Length: 99999999999\r\n\r\n")
    assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
    connection.close()


def test_a_body_that_becomes_too_large_is_given_up(api: ApiServer) -> None:
    """A chunked body of unknown length is refused when it passes the limit."""
    connection = api.connect()
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(70):
        connection.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
    assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
    connection.close()


def test_a_whole_large_body_gets_its_problem(api: ApiServer) -> None:
    """A client that sends everything before it reads still sees the 413, not a broken connection."""
    content = json.dumps({"question": "x" * 3_000_000}).encode()
    response = api.http.post("/v1/query", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 413 and response.json()["status"] == 413
    assert api.query("q").status_code == 200


def test_chat_bodies_may_be_longer(api: ApiServer) -> None:
    """A chat client sends the whole conversation; what is too long for the history is left out, the oldest first."""
    old = [{"role": "user" if n % 2 == 0 else "assistant", "content": f"{n} " + "x" * 3000} for n in range(60)]
    body = {"model": "rag-fast", "messages": [*old, {"role": "user", "content": "q"}]}
    assert api.http.post("/v1/chat/completions", json=body).status_code == 200
    history = api.service.questions[-1].history
    assert len(history) == 20 and history[-1].text.startswith("59 ")


def test_a_body_that_does_not_arrive_is_408(start_api: Callable[..., ApiServer]) -> None:
    """Half a body, and then nothing: 408, and the connection is closed."""
    api = start_api(RAG_HTTP_READ_TIMEOUT_S="0.2")
    connection = api.connect()
    connection.sendall(HEAD + b'Content-Length: 50\r\n\r\n{"question"')
    received = read_all(connection)
    assert received.startswith(b"HTTP/1.1 408 ") and b"connection: close" in received.lower()
    connection.close()


@pytest.mark.parametrize("sent", [b"", HEAD, b"\r\n"])
def test_a_request_that_does_not_arrive_is_closed(start_api: Callable[..., ApiServer], sent: bytes) -> None:
    """A connection that sends nothing, or a head without an end, is closed by the sweep."""
    api = start_api(RAG_HTTP_READ_TIMEOUT_S="0.2")
    connection = api.connect()
    connection.sendall(sent)
    with contextlib.suppress(ConnectionResetError):
        assert connection.recv(1) == b""
    connection.close()


def test_slow_clients_do_not_slow_others(api: ApiServer) -> None:
    """While a hundred clients dribble, somebody else is served."""
    slow = [api.connect() for _ in range(100)]
    for connection in slow:
        connection.sendall(HEAD + b'Content-Length: 50\r\n\r\n{"quest')
    assert api.query("q").status_code == 200
    for connection in slow:
        connection.close()


def test_endless_headers_are_refused(api: ApiServer) -> None:
    """Request line and headers may not fill the memory."""
    for start, more in (
        (b"GET / HTTP/1.1\r\nX-Filler: ", b"x" * 1000),
        (b"GET /", b"x" * 1000),
        (b"GET / HTTP/1.1\r\n", b"A: b\r\n" * 200),
    ):
        connection = api.connect()
        received = b""
        try:
            connection.sendall(start)
            for _ in range(10_000):  # ten megabytes
                connection.sendall(more)
            received = read_all(connection)
        except (ConnectionResetError, BrokenPipeError):
            pass  # closed while we were still sending
        else:
            assert received.startswith(b"HTTP/1.1 431 ")
        connection.close()
    assert api.query("q").status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"POST /v1/query HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/query HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost : b\r\n\r\n",
        bytes(range(256)),
    ],
)
def test_nonsense_is_400_or_a_closed_connection(api: ApiServer, sent: bytes) -> None:
    """Whatever comes over the wire, the next client is served."""
    connection = api.connect()
    connection.sendall(sent)
    with contextlib.suppress(ConnectionResetError):
        assert connection.recv(65536)[:12] in (b"HTTP/1.1 400", b"")
    connection.close()
    assert api.query("q").status_code == 200


def test_websockets_are_not_served(api: ApiServer) -> None:
    """An upgrade is not made; the request is answered as what it otherwise is."""
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x"}
    assert api.http.get("/v1/query", headers=headers).status_code == 405


def test_pipelined_requests_are_answered_in_order(api: ApiServer) -> None:
    """Two requests in one packet get two responses."""
    body = b'{"question": "q"}'
    one = HEAD + b"Content-Length: %d\r\n" % len(body)
    connection = api.connect()
    connection.sendall(one + b"X-Request-ID: first\r\n\r\n" + body + one + b"X-Request-ID: second\r\n\r\n" + body)
    received = b""
    while received.count(b'"profile":"balanced"}') < 2:
        received += connection.recv(65536)
    assert received.index(b"x-request-id: first") < received.index(b"x-request-id: second")
    connection.close()


def test_closed_connections_leave_nothing_behind(api: ApiServer) -> None:
    """After a crowd of clients has come and gone, the server holds no connection and no task of theirs."""
    for _ in range(50):
        api.begin("q").close()
        api.connect().close()
    state = api.server.server_state
    eventually(lambda: len(state.connections) <= 1 and len(state.tasks) == 0, "everything is closed")


def test_a_small_response_is_one_packet(api: ApiServer) -> None:
    """Head and body go out together, also for HEAD, 304, and a client that waits for 100 Continue."""
    body = b'{"question": "cached q"}'
    with api.connect() as connection:
        for _ in range(20):
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            received = connection.recv(65536)
            assert received.startswith(b"HTTP/1.1 200 ") and received.endswith(b"}")
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(65536).endswith(b"}")
        connection.sendall(b"HEAD /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(65536).endswith(b"\r\n\r\n")
