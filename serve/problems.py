"""The one table from errors to HTTP, as problem details (RFC 9457).

A problem says what to do and names the field that is wrong. It never holds document text, a question, a
secret, or the message of an error that this table does not know.
"""

from __future__ import annotations

import logging
import math
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, MethodNotAllowedException

from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.query.service import Unanswerable
from serve import call
from serve.auth import Forbidden, Unauthenticated
from serve.limits import TooManyRequests
from serve.schemas import FieldError, ProblemBody

logger = logging.getLogger("rag_platform.http")

CONTENT_TYPE = b"application/problem+json"
MAX_RETRY_AFTER_S = 86_400

_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of problem: its stable name, status and title."""

    name: str
    status: int
    title: str


MALFORMED = Kind("malformed-body", 400, "The body cannot be read")
INVALID = Kind("invalid-request", 400, "The request is not valid")
UNAUTHENTICATED = Kind("unauthenticated", 401, "A valid API key is needed")
FORBIDDEN = Kind("forbidden", 403, "The API key does not allow this")
NOT_FOUND = Kind("not-found", 404, "Not found")
METHOD_NOT_ALLOWED = Kind("method-not-allowed", 405, "Not allowed on this resource")
REQUEST_TIMEOUT = Kind("request-timeout", 408, "The request did not arrive in time")
TOO_LARGE = Kind("body-too-large", 413, "The body is too large")
UNSUPPORTED_MEDIA_TYPE = Kind("unsupported-media-type", 415, "The body must be JSON")
IDEMPOTENCY_MISMATCH = Kind("idempotency-key-reused", 422, "The idempotency key belongs to another request")
GONE = Kind("client-gone", 499, "Nobody waits for this any more")
"""Only ever counted: nginx' number for a client that hung up."""
TOO_MANY_REQUESTS = Kind("limit-reached", 429, "A limit of the API key is reached")
INTERNAL = Kind("internal-error", 500, "Something went wrong in the server")
OVERLOADED = Kind("overloaded", 503, "Too many questions are being answered now")
UNAVAILABLE = Kind("unavailable", 503, "The question cannot be answered now")


class Problem(Exception):
    """A refusal with everything that its response needs."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        errors: tuple[FieldError, ...] = (),
        retry_after_s: float | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        code: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.errors, self.headers, self.code = kind, detail, errors, headers, code
        self.retry_after_s = None if retry_after_s is None else min(MAX_RETRY_AFTER_S, max(1, math.ceil(retry_after_s)))

    def body(self, request_id: str, *, openai: bool = False) -> bytes:
        """Return the JSON; with ``openai`` also in the shape that OpenAI's clients look for."""
        error: dict[str, str | None] | None = None
        if openai:
            sort = "invalid_request_error" if self.kind.status < 500 else "server_error"
            param = self.errors[0].field if self.errors else None
            error = {"message": self.detail, "type": sort, "param": param, "code": self.code or self.kind.name}
        return _encoder.encode(
            ProblemBody(
                type=f"urn:rag-platform:problem:{self.kind.name}",
                title=self.kind.title,
                status=self.kind.status,
                detail=self.detail,
                request_id=request_id,
                errors=list(self.errors),
                retry_after_s=self.retry_after_s,
                error=error,
            )
        )

    def header_list(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that belong to it, without the length."""
        found = [(b"content-type", CONTENT_TYPE)]
        found += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers]
        if self.retry_after_s is not None:
            found.append((b"retry-after", str(self.retry_after_s).encode()))
        return found


def invalid(field: str, detail: str, *, code: str | None = None) -> Problem:
    """Return the problem of one field."""
    return Problem(INVALID, f"{field}: {detail}", errors=(FieldError(field, detail),), code=code)


# ── errors of other layers ──

_Convert = Callable[..., Problem]
_CHALLENGE = 'Bearer realm="rag-platform"'


def _unanswerable(e: Unanswerable) -> Problem:
    return Problem(UNAVAILABLE, "no answer can be given now; ask again later", retry_after_s=e.retry_after_s or 2.0)


def _dependency(e: DependencyError) -> Problem:
    detail = "something that this needs does not work now; /health/ready names it"
    return Problem(UNAVAILABLE, detail, retry_after_s=e.retry_after_s or 2.0)


def _framework(e: HTTPException) -> Problem:
    if isinstance(e, MethodNotAllowedException) or e.status_code == 405:
        allow = (e.headers or {}).get("Allow") or (e.headers or {}).get("allow")
        return Problem(
            METHOD_NOT_ALLOWED, "see Allow for the methods that are", headers=(("Allow", allow),) if allow else ()
        )
    if e.status_code == 404:
        return Problem(NOT_FOUND, "there is nothing at this address; /schema lists what there is")
    if e.status_code == 413:
        return Problem(TOO_LARGE, "the body is too large")
    if e.status_code < 500:
        return Problem(INVALID, "the request cannot be read")
    return Problem(INTERNAL, "the server's log has more under this request_id")


_TABLE: tuple[tuple[type[Exception], _Convert], ...] = (
    (Unauthenticated, lambda e: Problem(UNAUTHENTICATED, str(e), headers=(("WWW-Authenticate", _CHALLENGE),))),
    (Forbidden, lambda e: Problem(FORBIDDEN, str(e))),
    (TooManyRequests, lambda e: Problem(TOO_MANY_REQUESTS, str(e), retry_after_s=e.retry_after_s)),
    (call.ClientGone, lambda e: Problem(GONE, "the client closed its connection")),
    (Unanswerable, _unanswerable),
    (DependencyError, _dependency),
    (
        ConfigurationError,
        lambda e: Problem(UNAVAILABLE, "the server is not set up for this; its log says how", retry_after_s=30),
    ),
    (HTTPException, _framework),
)
"""Read from top to bottom; the first class that fits decides. Errors of ``auth`` and ``limits`` are worded for the caller."""


def problem_of(error: Exception, request_id: str) -> Problem:
    """Return the problem that an error is answered with; logs those that an operator should see."""
    if isinstance(error, Problem):
        return error
    for kind, convert in _TABLE:
        if isinstance(error, kind):
            found = convert(error)
            if isinstance(error, ConfigurationError):
                logger.error("request %s: %s", request_id, error)
            return found
    # The message of an unknown error may hold a question: its class and place have to do.
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("request %s failed: %s\n%s", request_id, type(error).__name__, frames)
    return Problem(INTERNAL, "the server's log has more under this request_id")


def is_openai_path(path: str) -> bool:
    return path.startswith(("/v1/chat", "/v1/models"))


def respond(request: Request, error: Exception) -> Response[bytes]:  # type: ignore[type-arg]
    """Litestar's exception handler for everything."""
    request_id = call.of(request.scope).request_id
    problem = problem_of(error, request_id)
    headers = {name.decode(): value.decode() for name, value in problem.header_list()[1:]}
    return Response(
        problem.body(request_id, openai=is_openai_path(request.scope["path"])),
        status_code=problem.kind.status,
        media_type=CONTENT_TYPE.decode(),
        headers=headers,
    )


# ── what msgspec says about a body ──

_AT = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_NAMED = re.compile(r"Object (?P<what>contains unknown|missing required) field `(?P<name>.*)`$", re.DOTALL)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.\-\[\]]{1,64}\Z")


def validation_problem(error: msgspec.ValidationError) -> Problem:
    """Return what is wrong with a body, without repeating anything of it but well-formed field names."""
    message = str(error)
    at = _AT.search(message)
    path = at["path"] if at else ""
    what = message[: at.start()] if at else message
    named = _NAMED.match(what)
    if named:
        name = named["name"] if _PLAIN_NAME.match(named["name"]) else "(a name that is not one of ours)"
        path = f"{path}.{name}" if path else name
        what = "is not a field here" if named["what"].startswith("contains") else "is required"
    elif what.startswith("Invalid enum value"):
        what = "is not one of the allowed values"
    elif what.startswith("Expected"):
        what = what[0].lower() + what[1:].replace("`", "")
    else:
        what = "is not valid"
    return invalid(path if path and len(path) <= 128 else "body", what)
