"""``/`` and ``/ui/…``: the playground's files out of this package. Nothing is loaded from anywhere else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePosixPath

from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from serve import call
from serve.problems import NOT_FOUND, Problem
from serve.reply import Reply

INDEX = "index.html"
_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".png": b"image/png",
    ".ico": b"image/x-icon",
    ".woff2": b"font/woff2",
}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    content_type: bytes
    etag: bytes


def page_headers(*, style: str = "'self'", script: str = "'self'") -> list[tuple[bytes, bytes]]:
    """Return the headers of a page for browsers: what it may load, and that nobody may frame it."""
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return [
        (b"content-security-policy", policy.encode()),
        (b"referrer-policy", b"no-referrer"),
        (b"x-frame-options", b"DENY"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
        (b"cache-control", b"no-store"),
    ]


def routes() -> list[HTTPRouteHandler]:
    files = _load()
    page = page_headers()
    asset = [header for header in page if header[0] != b"cache-control"] + [(b"cache-control", b"no-cache")]

    @get("/")
    async def playground() -> ASGIApp:
        return _reply(files.get(INDEX), page, b"")

    @get("/ui/{name:str}")
    async def playground_file(request: Request) -> ASGIApp:  # type: ignore[type-arg]
        return _reply(
            files.get(request.path_params["name"]), asset, call.of(request.scope).headers.get(b"if-none-match", b"")
        )

    return [playground, playground_file]


def _load() -> dict[str, _File]:
    found = {}
    for entry in resources.files("serve").joinpath("ui").iterdir():
        content_type = _TYPES.get(PurePosixPath(entry.name).suffix)
        if content_type is not None and entry.is_file():
            body = entry.read_bytes()
            etag = b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode()
            found[entry.name] = _File(body, content_type, etag)
    return found


def _reply(file: _File | None, headers: list[tuple[bytes, bytes]], known: bytes) -> Reply:
    if file is None:
        raise Problem(NOT_FOUND, "there is nothing at this address; /schema lists what there is")
    tagged = [*headers, (b"etag", file.etag)]
    if file.etag in known:
        return Reply(b"", tagged, status=304, content_type=file.content_type)
    return Reply(file.body, tagged, content_type=file.content_type)
