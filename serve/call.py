"""What every layer knows about the request at hand, kept in the ASGI scope."""

from __future__ import annotations

import os
import re
from typing import Any


class ClientGone(Exception):
    """The client closed its connection; nobody is left to answer."""


_KEY = "rag.call"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")


class Call:
    """One request.

    Attributes:
        request_id: the client's own ``X-Request-ID`` where that is well formed, else a new one.
        headers: raw names and values; of a repeated header the last value.
        gone: the client did not wait for the end of the response.
        waited_s: what it took to know who calls, which counts against the question's deadline.
    """

    __slots__ = ("gone", "headers", "request_id", "waited_s")

    def __init__(self, headers: dict[bytes, bytes]) -> None:
        self.headers = headers
        self.gone = False
        self.waited_s = 0.0
        given = headers.get(b"x-request-id", b"")
        self.request_id = given.decode("ascii") if _REQUEST_ID.match(given) else os.urandom(16).hex()

    def header(self, name: bytes) -> str | None:
        """Return a header's text, or None; ``name`` in lower case."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


def begin(scope: Any) -> Call:
    """Create the call of a request; only the boundary does."""
    call = scope[_KEY] = Call(dict(scope["headers"]))
    return call


def of(scope: Any) -> Call:
    """Return the call of a request."""
    found: Call = scope[_KEY]
    return found
