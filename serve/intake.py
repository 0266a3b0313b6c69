"""From the bytes of a request to a checked struct."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

import msgspec
from litestar.types import Receive

from serve import problems
from serve.call import Call, ClientGone
from serve.problems import Problem, invalid, validation_problem
from serve.schemas import MAX_BODY_BYTES, MAX_DEADLINE_MS

T = TypeVar("T")


class Intake(Generic[T]):
    """Reads the JSON bodies of one route.

    Args:
        shape: the struct to decode into.
        timeout_s: seconds in which the body must have arrived.
        max_bytes: largest body.
    """

    def __init__(self, shape: type[T], timeout_s: float, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._decoder = msgspec.json.Decoder(shape)
        self._timeout_s, self._max_bytes = timeout_s, max_bytes

    async def read(self, call: Call, receive: Receive) -> T:
        """
        Raises:
            Problem: 400, 408, 413 or 415; names the field where there is one.
            ClientGone: it hung up.
        """
        return self.decode(await self.body(call, receive))

    async def body(self, call: Call, receive: Receive) -> bytes:
        """Return the raw body; raises as ``read``."""
        check_content_type(call)
        length = call.headers.get(b"content-length")
        if length is not None and length.isdigit() and int(length) > self._max_bytes:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise ClientGone
                    parts.append(message["body"])
                    size += len(message["body"])
                    if size > self._max_bytes:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return parts[0] if len(parts) == 1 else b"".join(parts)
        except TimeoutError as e:
            detail = f"the whole body must arrive within {self._timeout_s:g} s"
            raise Problem(problems.REQUEST_TIMEOUT, detail, headers=(("Connection", "close"),)) from e

    def decode(self, body: bytes) -> T:
        """Return the struct; raises ``Problem`` (400)."""
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as e:
            raise validation_problem(e) from None
        except msgspec.DecodeError:
            raise Problem(problems.MALFORMED, "the body is not well-formed JSON") from None
        except UnicodeDecodeError:
            raise Problem(problems.MALFORMED, "the body is not UTF-8") from None
        except RecursionError:
            raise Problem(problems.MALFORMED, "the body is nested too deeply") from None

    def _too_large(self) -> Problem:
        return Problem(problems.TOO_LARGE, f"the body may hold at most {self._max_bytes} bytes")


def check_content_type(call: Call) -> None:
    """Only JSON: a foreign web page can make a browser send anything else to us without asking first.

    Raises:
        Problem: 415.
    """
    given = call.headers.get(b"content-type", b"")
    if given != b"application/json" and given.partition(b";")[0].strip().lower() != b"application/json":
        raise Problem(problems.UNSUPPORTED_MEDIA_TYPE, "send Content-Type: application/json")
    if call.headers.get(b"content-encoding", b"identity") not in (b"identity", b""):
        raise Problem(problems.UNSUPPORTED_MEDIA_TYPE, "compressed bodies are not read here")


def deadline_s(call: Call, deadline_ms: int | None) -> float | None:
    """Return the shorter of the header's and the body's deadline in seconds; None without both.

    Raises:
        Problem: the header is not a number of milliseconds within the limits.
    """
    header = call.headers.get(b"x-deadline-ms")
    if header is not None:
        if not header.isdigit() or len(header) > 9 or not 1 <= int(header) <= MAX_DEADLINE_MS:
            raise invalid("X-Deadline-Ms", f"must be a number of milliseconds between 1 and {MAX_DEADLINE_MS}")
        deadline_ms = int(header) if deadline_ms is None else min(int(header), deadline_ms)
    return None if deadline_ms is None else deadline_ms / 1000
