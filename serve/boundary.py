"""The outermost layer: what holds for every request, whatever Litestar makes of it, also for unknown routes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from rag_platform import metrics
from serve import call
from serve.problems import GONE

logger = logging.getLogger("rag_platform.http")

SECURITY_HEADERS = ((b"x-content-type-options", b"nosniff"),)
"""On every response; pages for browsers add their own (``routes/playground.py``)."""


class Aborted(Exception):
    """A response broke off; told to the server so that it closes the connection. Holds no message on purpose."""


class Boundary:
    """Request ids, HEAD, security headers, the request counter, and a last catch around ``app``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._counters: dict[tuple[str, int], Callable[[], None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.WEBSOCKET:
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        if scope["method"] == "HEAD":  # as GET; the server itself leaves the body out
            scope = cast("HTTPScope", {**scope, "method": "GET"})
        current = call.begin(scope)
        fixed = ((b"x-request-id", current.request_id.encode()), *SECURITY_HEADERS)
        status = 0

        async def labelled(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *fixed]
            await send(message)

        try:
            await self._app(scope, receive, labelled)
        except Exception as e:
            # The response has begun, or its error page failed. What Litestar chains to this may hold texts.
            logger.error("request %s broke off: %s", current.request_id, type(e.__cause__ or e).__name__)
            status = status or 500
            raise Aborted from None
        finally:
            self._count(str(scope.get("path_template", "unknown")), GONE.status if current.gone else status)

    def _count(self, route: str, status: int) -> None:
        count = self._counters.get((route, status))
        if count is None:
            count = self._counters[route, status] = metrics.HTTP_REQUESTS.labels(route, str(status)).inc
        count()
