"""A small synchronous HTTP GET and HEAD that cannot be led astray.

Every connection goes through ``addresses.connect``, redirects included; redirects stay on http(s) and
never fall from https to http; a body is read up to a limit and the whole exchange up to a deadline,
however slowly the server drips. No proxy, no cookies, no content coding. Ours rather than fsspec's
client, which reads a body of any length and follows a redirect to any address.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from rag_platform.backends.sources import addresses

_MAX_REDIRECTS = 5
_READ_BYTES = 65_536


class BodyTooLarge(Exception):
    """The body is larger than was allowed."""


class ExchangeFailed(Exception):
    """No usable answer: connection, protocol or deadline. The message holds no address."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A final answer. ``url`` is where it came from after redirects; header names are lower case."""

    status: int
    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpClient:
    """Makes one connection a request; safe for threads.

    Attributes:
        allow_private: reach addresses that are not public.
        timeout_s: for one request with its redirects, in seconds.
    """

    allow_private: bool
    timeout_s: float = 60.0

    def request(self, method: str, url: str, *, max_bytes: int) -> Answer:
        """Return the answer after redirects.

        Raises:
            BodyTooLarge, ExchangeFailed: as they say.
            addresses.AddressRefused: the host, or one that it redirects to, is not public.
        """
        deadline = time.monotonic() + self.timeout_s
        for _ in range(_MAX_REDIRECTS + 1):
            try:
                answer = self._once(method, url, max_bytes, deadline)
            except addresses.AddressRefused:
                raise
            except (OSError, http.client.HTTPException, ValueError) as e:
                raise ExchangeFailed(type(e).__name__) from e
            location = answer.headers.get("location")
            if answer.status not in (301, 302, 303, 307, 308) or not location:
                return answer
            target = urljoin(url, location)
            if urlsplit(target).scheme not in ("http", "https") or (url[:5] == "https" and target[:5] != "https"):
                raise ExchangeFailed("redirected away from https or http")
            url = target
        raise ExchangeFailed("too many redirects")

    def _once(self, method: str, url: str, max_bytes: int, deadline: float) -> Answer:
        parts = urlsplit(url)
        if not parts.hostname:
            raise ExchangeFailed("no host in the URL")
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        left = _left(deadline)
        opened = addresses.connect(parts.hostname, port, left, allow_private=self.allow_private)
        # A socket's timeout restarts with every byte; a server that drips is cut off by this timer.
        timer = threading.Timer(_left(deadline), _shut, (opened,))
        timer.daemon = True
        timer.start()
        connection = http.client.HTTPConnection(parts.hostname, port, timeout=left)
        try:
            if secure:
                opened = ssl.create_default_context().wrap_socket(opened, server_hostname=parts.hostname)
            connection.sock = opened
            path = parts.path or "/"
            connection.request(
                method,
                f"{path}?{parts.query}" if parts.query else path,
                headers={"Accept-Encoding": "identity", "User-Agent": "rag-platform", "Connection": "close"},
            )
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            body = b"" if method == "HEAD" else _body(response, max_bytes)
            _left(deadline)  # a connection that the timer shut looks like one that ended
            return Answer(response.status, url, headers, body)
        finally:
            timer.cancel()
            connection.close()
            opened.close()


def _body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    declared = response.length
    if declared is not None and declared > max_bytes and response.status == 200:
        raise BodyTooLarge
    data = bytearray()
    while part := response.read1(_READ_BYTES):
        data += part
        if len(data) > max_bytes:
            raise BodyTooLarge
    if declared is not None and len(data) < declared:
        raise ExchangeFailed("the answer ended early")
    return bytes(data)


def _shut(opened: socket.socket) -> None:
    with contextlib.suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
