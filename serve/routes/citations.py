"""``GET /v1/citations/{chunk_id}``: from a citation back to its document and to the run that read it."""

from __future__ import annotations

import re
from urllib.parse import quote

import msgspec
from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from rag_platform.query.citing import CitedSpan
from serve import call
from serve.api import Api
from serve.openapi import documented
from serve.problems import NOT_FOUND, Problem
from serve.reply import Reply
from serve.schemas import CitationResponse

SURROUNDING_CHARS = 2000
"""Of the document, shown on each side of the chunk."""

_encoder = msgspec.json.Encoder()
_CHUNK_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


def routes(api: Api) -> list[HTTPRouteHandler]:
    @get(
        "/v1/citations/{chunk_id:str}",
        opt=documented(
            "Look a citation up",
            "The passage with what stands around it, its document, and the snapshot and run that it comes from. "
            "What the caller may not read does not exist.",
            returns=CitationResponse,
            errors=(401, 403, 404, 429, 503),
        ),
    )
    async def citation(request: Request) -> ASGIApp:  # type: ignore[type-arg]
        chunk_id: str = request.path_params["chunk_id"]
        caller = await api.admit(call.of(request.scope))
        found = None
        if _CHUNK_ID.match(chunk_id):
            found = await api.service.citation(chunk_id, caller.principal)
        if found is None:
            raise Problem(NOT_FOUND, "there is no such passage, or it may not be read with this key")
        return Reply(_encoder.encode(as_response(found, api.settings.dagster_url)))

    return [citation]


def as_response(span: CitedSpan, dagster_url: str | None) -> CitationResponse:
    hit = span.hit
    run_url = f"{dagster_url.rstrip('/')}/runs/{quote(hit.run_id, safe='')}" if dagster_url and hit.run_id else None
    return CitationResponse(
        chunk_id=hit.chunk_id,
        document_id=hit.document_id,
        source=hit.source,
        uri=hit.uri,
        title=hit.title,
        page=hit.page,
        heading_path=hit.heading_path,
        start=hit.start,
        end=hit.end,
        before=span.before[-SURROUNDING_CHARS:],
        text=hit.text,
        after=span.after[:SURROUNDING_CHARS],
        mime_type=hit.mime_type,
        modified_at=hit.modified_at,
        version_id=hit.version_id,
        content_hash=hit.content_hash,
        snapshot_id=hit.snapshot_id,
        run_id=hit.run_id,
        run_url=run_url,
        url=span.url,
    )
