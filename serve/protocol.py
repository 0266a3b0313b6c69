"""The HTTP/1.1 connection: uvicorn's, with the limits that it leaves to others, and one packet where it sends two.

uvicorn with httptools reads headers of any size and waits for them for ever. The size is checked here; the
time by ``close_stuck``, which the server calls every second, so that no request pays for a timer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 32 * 1024
"""Of the request line and all headers, where they do not come in one piece (which the socket's buffer bounds)."""
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n"
    b"x-content-type-options: nosniff\r\n\r\n"
)


class _Joining:
    """A transport that keeps back a response's head until the body's first piece: one system call and one packet
    for both, a fifth of the time of a small response. Nothing is kept back once the response is complete."""

    __slots__ = ("_head", "_transport", "expects_head")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None
        self.expects_head = False

    def write(self, data: bytes) -> None:
        if self._head is not None:
            data, self._head = self._head + data, None
        elif self.expects_head and not data.startswith(b"HTTP/1.1 100 "):
            self._head, self.expects_head = data, False
            return
        self._transport.write(data)

    def flush(self) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            if not self._transport.is_closing():
                self._transport.write(head)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Connection(HttpToolsProtocol):
    """One connection.

    Attributes:
        began: ``time.monotonic`` of the connection or of its latest request.
        arrived: whether that request is here completely.
    """

    began = 0.0
    arrived = False
    _in_head = True
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = self._joining = _Joining(transport)  # type: ignore[assignment]
        self.began = time.monotonic()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.began, self.arrived, self._in_head, self._head_bytes = time.monotonic(), False, True, 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self.arrived = True
        super().on_message_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._joining.expects_head = True  # of this response; a pipelined one starts when the one before is complete
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self._joining.flush()  # a response without a body
        super().on_response_complete()


def close_stuck(connections: Iterable[Any], read_timeout_s: float, max_request_s: float) -> int:
    """Close connections whose request has not arrived, or whose response has not been read, for too long.

    Args:
        read_timeout_s: for a request to arrive, counted from its first byte or from the connection's beginning.
        max_request_s: for everything.

    Returns:
        How many were closed.
    """
    now = time.monotonic()
    closed = 0
    for connection in list(connections):
        if not isinstance(connection, Connection) or connection.transport.is_closing():
            continue
        age = now - connection.began
        answering = connection.cycle is not None and not connection.cycle.response_complete
        limit_s = max_request_s if answering else 2 * max_request_s  # idle ones are closed by uvicorn, as a rule
        if (not connection.arrived and age > read_timeout_s) or age > limit_s:
            connection.transport.abort()
            closed += 1
    return closed
