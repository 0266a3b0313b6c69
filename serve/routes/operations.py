"""``/health/live``, ``/health/ready`` and ``/metrics``: for whoever runs the service."""

from __future__ import annotations

import msgspec
from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from rag_platform import metrics
from rag_platform.query.readiness import answerable
from serve import call
from serve.api import Api
from serve.openapi import documented
from serve.reply import Reply
from serve.schemas import ReadyResponse

_encoder = msgspec.json.Encoder()


def routes(api: Api) -> list[HTTPRouteHandler]:
    @get(
        "/health/live",
        opt=documented(
            "Is the process alive?",
            "Looks at nothing outside the process.",
            returns={"type": "object", "properties": {"status": {"const": "live"}}},
        ),
    )
    async def live() -> ASGIApp:
        return Reply(b'{"status":"live"}')

    @get(
        "/health/ready",
        opt=documented(
            "Can questions be answered?",
            "200, or 503 while no question can be answered, or while the server is being stopped. What else is missing "
            "is named with 200: answers degrade, and a server out of rotation would give none.",
            returns=ReadyResponse,
            also={503: ReadyResponse},
        ),
    )
    async def ready() -> ASGIApp:
        if api.stopping:
            return Reply(_encoder.encode(ReadyResponse(status="stopping", dependencies={}, missing=[])), status=503)
        states = await api.service.ready()
        missing = [name for name, state in states.items() if state != "ok"]
        good = answerable(states)
        report = ReadyResponse(status="ready" if good else "not_ready", dependencies=states, missing=missing)
        return Reply(_encoder.encode(report), status=200 if good else 503)

    @get(
        "/metrics",
        opt=documented(
            "Metrics for Prometheus",
            "Needs a key with the scope `admin`, once there are keys.",
            returns={"type": "string"},
            media_type="text/plain",
            errors=(401, 403),
        ),
    )
    async def prometheus(request: Request) -> ASGIApp:  # type: ignore[type-arg]
        await api.admit(call.of(request.scope), "admin", counted=False)
        await api.scores.refresh()
        return Reply(generate_latest(metrics.REGISTRY), content_type=CONTENT_TYPE_LATEST.encode())

    return [live, ready, prometheus]
