"""The transport under every vendor's API: httpx speaks through it, and so do SDKs that take an httpx client.

It holds what such clients lack. Every socket goes through ``addresses.connect``; one exchange, waits and
retries included, ends at a hard deadline however slowly the server drips; a body is read up to a limit;
requests keep a pace; a 429 or 503 waits as long as ``Retry-After`` asks, when that still fits. Retries are
safe because sources only read.
"""

from __future__ import annotations

import email.utils
import functools
import random
import ssl
import threading
import time
import weakref

import httpcore
import httpx

from rag_platform.backends.retry_after import retry_after_s
from rag_platform.backends.sources import addresses
from rag_platform.backends.sources.api_network import CheckedNetwork, Deadline
from rag_platform.backends.sources.http_client import BodyTooLarge, ExchangeFailed

MAX_JSON_BYTES = 64_000_000
FIRST_PAUSE_S = 0.5
"""Before the first retry that the server set no time for; doubles."""
_ATTEMPTS = 4
_RETRIED = (429, 500, 502, 503, 504)
_CONNECTIONS = 8
_IDLE_S = 20.0


class ExchangeTimeout(ExchangeFailed):
    """No complete answer before the deadline."""


class SourceTransport(httpx.BaseTransport):
    """Safe for threads. Its connections close when it is collected, so nobody has to.

    A request's extension ``max_bytes`` sets the largest body; the default is ``MAX_JSON_BYTES``.

    Args:
        allow_private: reach addresses that are not public.
        timeout_s: for one request with its waits and retries.
        per_s: requests that may start a second, on average and at most.
    """

    def __init__(self, *, allow_private: bool, timeout_s: float, per_s: float) -> None:
        self._timeout_s = timeout_s
        self._pace = _Pace(per_s)
        self._deadline = Deadline()
        self._pool = httpcore.ConnectionPool(
            ssl_context=_tls(),
            max_connections=_CONNECTIONS,
            max_keepalive_connections=_CONNECTIONS,
            keepalive_expiry=_IDLE_S,
            network_backend=CheckedNetwork(self._deadline, allow_private),
        )
        self.clock_offset_s = 0.0
        """The server's clock less ours, by its last Date header."""
        weakref.finalize(self, self._pool.close)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer, whatever its status.

        Raises:
            ExchangeFailed, BodyTooLarge: no usable answer; the message holds no address.
            addresses.AddressRefused: the host is not public.
        """
        deadline = time.monotonic() + self._timeout_s
        body = request.read()
        for attempt in range(1, _ATTEMPTS + 1):
            response: httpx.Response | None = None
            failure: ExchangeFailed | None = None
            self._pace.wait(deadline)
            try:
                response = self._once(request, body, deadline)
            except ExchangeTimeout:
                raise
            except ExchangeFailed as e:
                failure = e
            if response is not None and response.status_code not in _RETRIED:
                return response
            pause = FIRST_PAUSE_S * 2 ** (attempt - 1) * random.uniform(0.8, 1.2)
            asked = retry_after_s(response.headers) if response is not None else None
            pause = pause if asked is None else asked
            if attempt < _ATTEMPTS and time.monotonic() + pause < deadline:
                if asked is not None:
                    self._pace.hold(pause)  # all calls of this client wait, not this one only
                time.sleep(pause)
                continue
            if response is not None:
                return response
            assert failure is not None
            raise failure
        raise AssertionError("unreachable")

    def close(self) -> None:
        self._pool.close()

    def _once(self, request: httpx.Request, body: bytes, deadline: float) -> httpx.Response:
        left = self._deadline.start(deadline)
        limit = int(request.extensions.get("max_bytes", MAX_JSON_BYTES))
        url = request.url
        headers = [(k, v) for k, v in request.headers.raw if k.lower() != b"accept-encoding"]
        asked = httpcore.Request(
            method=request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=[*headers, (b"Accept-Encoding", b"identity")],  # a coded body could unfold beyond its limit
            content=body,
            extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), left)},
        )
        try:
            answer = self._pool.handle_request(asked)
            try:
                data = _read(answer, limit)
            finally:
                answer.close()
        except (httpcore.TimeoutException, TimeoutError) as e:
            raise ExchangeTimeout(f"no answer within {self._timeout_s:g} s") from e
        except addresses.AddressRefused:
            raise
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError, ValueError) as e:
            raise ExchangeFailed(type(e).__name__) from e
        response = httpx.Response(answer.status, headers=answer.headers, content=data, request=request)
        self._note_clock(response.headers)
        return response

    def _note_clock(self, headers: httpx.Headers) -> None:
        try:
            date = email.utils.parsedate_to_datetime(headers["date"])
            self.clock_offset_s = date.timestamp() - time.time()
        except (KeyError, ValueError):
            pass


@functools.cache
def _tls() -> ssl.SSLContext:
    """Loading the system's certificates takes 20 ms; they do not change."""
    return ssl.create_default_context()


def _read(answer: httpcore.Response, limit: int) -> bytes:
    if any(name.lower() == b"content-encoding" and value.lower() != b"identity" for name, value in answer.headers):
        raise ExchangeFailed("the body is compressed though it should not be")
    data = bytearray()
    for part in answer.iter_stream():
        data += part
        if len(data) > limit:
            raise BodyTooLarge
    return bytes(data)


class _Pace:
    """Spreads the starts of requests evenly; shared by all threads of a client."""

    def __init__(self, per_s: float) -> None:
        self._gap = 1 / per_s
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self, deadline: float) -> None:
        with self._lock:
            at = max(self._next, time.monotonic())
            if at >= deadline:
                raise ExchangeTimeout("the allowed pace of requests leaves no time for it")
            self._next = at + self._gap
        time.sleep(max(0.0, at - time.monotonic()))

    def hold(self, seconds: float) -> None:
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)
