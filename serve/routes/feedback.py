"""``POST /v1/feedback``: a thumb for an answer."""

from __future__ import annotations

import msgspec
from litestar import Request, post
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from serve import call
from serve.api import Api
from serve.intake import Intake
from serve.openapi import documented
from serve.problems import NOT_FOUND, Problem
from serve.reply import Reply
from serve.schemas import FeedbackRequest, FeedbackResponse

_encoder = msgspec.json.Encoder()


def routes(api: Api) -> list[HTTPRouteHandler]:
    opinions = Intake(FeedbackRequest, api.http.read_timeout_s)

    @post(
        "/v1/feedback",
        status_code=200,
        opt=documented(
            "Rate an answer",
            "Again for the same answer by the same caller, it replaces the opinion before. An `Idempotency-Key` makes "
            "it safe to send the same request twice.",
            body=FeedbackRequest,
            returns=FeedbackResponse,
            errors=(400, 401, 403, 404, 408, 413, 415, 422, 429, 503),
            headers=("Idempotency-Key",),
        ),
    )
    async def feedback(request: Request) -> ASGIApp:  # type: ignore[type-arg]
        now = call.of(request.scope)
        caller = await api.admit(now)
        body = await opinions.body(now, request.receive)
        given = opinions.decode(body)

        async def keep() -> Reply:
            rating = 1 if given.rating == "up" else -1
            if not await api.service.feedback(given.request_id, rating, given.comment or None, caller.key_id):
                raise Problem(NOT_FOUND, "there is no answer with this request_id")
            return Reply(_encoder.encode(FeedbackResponse(request_id=given.request_id, rating=given.rating)))

        return await api.idempotent.once(now, caller.key_id, body, keep)

    return [feedback]
