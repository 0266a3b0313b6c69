"""The proxy of the fault tests does what its modes say; otherwise those tests would prove nothing."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from rag_platform_tests.faults.unruly_proxy import DRIP_S, UnrulyProxy, proxied

QUIET_S = 0.3
"""Long enough to tell silence from an answer, which takes a millisecond."""
PATIENCE_S = 20.0


class _Echo(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(4096):
                self.request.sendall(data.upper())


@pytest.fixture(scope="module")
def proxy() -> Iterator[UnrulyProxy]:
    with _Echo(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        with proxied(server.server_address[1]) as running:
            yield running
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def connected(proxy: UnrulyProxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE_S) as client:
        yield client


def say(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    return heard(client, len(text))


def heard(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := client.recv(count - len(data))):
        data += more
    return data


def test_ok_forwards_and_counts(proxy: UnrulyProxy) -> None:
    """Bytes pass both ways; connections and requests are counted, also those made of several pieces."""
    proxy.become("ok")
    proxy.counts(reset=True)
    with connected(proxy) as client:
        assert say(client, b"one") == b"ONE"
        assert say(client, b"two") == b"TWO"
    seen = proxy.counts()
    assert (seen.connections, seen.requests) == (1, 2)


def test_closed_refuses_and_opens_again(proxy: UnrulyProxy) -> None:
    """Open connections are reset, new ones refused; afterwards it listens on the same port."""
    proxy.become("ok")
    with connected(proxy) as client:
        assert say(client, b"one") == b"ONE"
        proxy.become("closed")
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
    with pytest.raises(ConnectionRefusedError), connected(proxy):
        pass
    proxy.become("ok")
    with connected(proxy) as client:
        assert say(client, b"two") == b"TWO"


def test_frozen_says_nothing_until_it_thaws(proxy: UnrulyProxy) -> None:
    """Connections are accepted and stay open; what was asked is answered when another mode lets it go on."""
    proxy.become("frozen")
    with connected(proxy) as client:
        client.sendall(b"one")
        client.settimeout(QUIET_S)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(PATIENCE_S)
        proxy.become("ok")
        assert heard(client, 3) == b"ONE"


def test_slow_delays_each_answer(proxy: UnrulyProxy) -> None:
    """Nothing comes before the delay is over, then everything."""
    proxy.become("slow", 2 * QUIET_S)
    with connected(proxy) as client:
        client.sendall(b"one")
        client.settimeout(QUIET_S)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(PATIENCE_S)
        assert heard(client, 3) == b"ONE"


def test_dripping_comes_a_byte_at_a_time(proxy: UnrulyProxy) -> None:
    """No read times out, and nothing is complete."""
    proxy.become("dripping")
    with connected(proxy) as client:
        client.sendall(b"one two three")
        client.settimeout(max(PATIENCE_S, 10 * DRIP_S))
        assert [client.recv(100) for _ in range(3)] == [b"O", b"N", b"E"]
        proxy.become("ok")
        assert heard(client, 10) == b" TWO THREE"


def test_garbage_is_no_answer(proxy: UnrulyProxy) -> None:
    """Something comes at once, which the upstream never said, and then the end."""
    proxy.become("garbage")
    with connected(proxy) as client:
        client.sendall(b"one")
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while more := client.recv(4096):
                data += more
    assert data and b"ONE" not in data
    proxy.become("ok")
