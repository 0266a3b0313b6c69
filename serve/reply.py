"""A finished response: the shortest way from bytes to ASGI."""

from __future__ import annotations

from collections.abc import Sequence

from litestar.types import Receive, Scope, Send

JSON = b"application/json"
NO_STORE = (b"cache-control", b"no-store")


class Reply:
    """A response whose body is there already. Litestar calls it as it is, without its own ``Response``."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        body: bytes,
        headers: Sequence[tuple[bytes, bytes]] = (NO_STORE,),
        *,
        status: int = 200,
        content_type: bytes = JSON,
    ) -> None:
        self.body, self.headers, self.status, self.content_type = body, headers, status, content_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", self.content_type), (b"content-length", b"%d" % len(self.body)), *self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})
