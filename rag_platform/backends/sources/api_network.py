"""Sockets for httpcore: to addresses that may be reached, and never waiting beyond a deadline."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from typing import Any

import httpcore

from rag_platform.backends.sources import addresses


class Deadline(threading.local):
    """When the exchange of this thread must be over; a connection serves one thread at a time."""

    at = 0.0

    def start(self, at: float) -> float:
        """Set it, by ``time.monotonic``; return the seconds left."""
        self.at = at
        return self.left()

    def left(self) -> float:
        """Return the seconds left. Raises ``TimeoutError`` when there are none."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class CheckedNetwork(httpcore.NetworkBackend):
    """Opens connections through ``addresses.connect``, until the deadline of the thread's exchange."""

    def __init__(self, deadline: Deadline, allow_private: bool) -> None:
        self._deadline, self._allow_private = deadline, allow_private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        opened = addresses.connect(host, port, self._deadline.left(), allow_private=self._allow_private)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _Stream(opened, self._deadline)


class _Stream(httpcore.NetworkStream):
    """A socket whose every wait ends at the exchange's deadline."""

    def __init__(self, opened: socket.socket, deadline: Deadline) -> None:
        self._socket, self._deadline = opened, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._socket.settimeout(self._deadline.left())
        try:
            return self._socket.recv(max_bytes)
        except TimeoutError:
            raise
        except OSError as e:
            raise httpcore.ReadError(type(e).__name__) from e

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            while buffer:
                self._socket.settimeout(self._deadline.left())
                buffer = buffer[self._socket.send(buffer) :]
        except TimeoutError:
            raise
        except OSError as e:  # httpcore reads on after this: a server may answer before it has read all
            raise httpcore.WriteError(type(e).__name__) from e

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            self._socket.settimeout(self._deadline.left())
            return _Stream(ssl_context.wrap_socket(self._socket, server_hostname=server_hostname), self._deadline)
        except BaseException:
            self._socket.close()
            raise

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # an idle connection that has something to read has been closed
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            return bool(poll.poll(0))
        return {"socket": self._socket}.get(info)
