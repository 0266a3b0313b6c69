"""The OpenAPI document, made from what each handler says about itself and from the structs that it decodes.

Handlers take bytes (the hot path decodes by itself), so Litestar cannot know their shapes; and its pages for
OpenAPI load their scripts from foreign hosts. Both are replaced here: ``documented`` is what a handler says,
``document`` collects it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from rag_platform import __version__
from rag_platform.query.events import Final, Passages, StageDone, TextDelta
from serve.schemas import MAX_DEADLINE_MS, ProblemBody

_KEY = "openapi"
_REF = "#/components/schemas/{name}"
_JSON = "application/json"
_PROBLEM = "application/problem+json"

Shape = type[msgspec.Struct] | Mapping[str, Any]
"""A struct, or a schema as it stands."""

_TITLES = {
    400: "The request is not valid.",
    401: "A valid API key is needed.",
    403: "The API key does not allow this.",
    404: "There is no such thing, or the caller may not know of it.",
    408: "The request did not arrive in time.",
    413: "The body is too large.",
    415: "The body must be JSON.",
    422: "The idempotency key belongs to another request.",
    429: "A limit of the API key is reached; see `Retry-After`.",
    503: "Not now; see `Retry-After`.",
}
_HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-ID": {
        "description": "An id for this request, 1 to 128 of A–Z a–z 0–9 . _ : -; echoed, or made up here.",
        "schema": {"type": "string", "maxLength": 128, "pattern": "^[A-Za-z0-9._:-]+$"},
    },
    "X-Deadline-Ms": {
        "description": "Milliseconds after which no answer is of use.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_DEADLINE_MS},
    },
    "Idempotency-Key": {
        "description": "The same key with the same body has an effect once, for a day.",
        "schema": {"type": "string", "maxLength": 128},
    },
}


@dataclass(frozen=True)
class _Documented:
    summary: str
    description: str
    body: Shape | None
    returns: Shape
    media_type: str
    streams: bool
    errors: Sequence[int]
    headers: Sequence[str]
    also: Mapping[int, Shape]


def documented(
    summary: str,
    description: str,
    *,
    returns: Shape,
    body: Shape | None = None,
    media_type: str = _JSON,
    streams: bool = False,
    errors: Sequence[int] = (),
    headers: Sequence[str] = (),
    also: Mapping[int, Shape] | None = None,
) -> dict[str, Any]:
    """Return the ``opt`` of a handler that the document shall list.

    Args:
        streams: the response may be server-sent events.
        errors: statuses that come with a problem.
        headers: request headers besides ``X-Request-ID``.
        also: further statuses with a body of their own.
    """
    found = _Documented(summary, description, body, returns, media_type, streams, errors, headers, also or {})
    return {_KEY: found}


def document(app: Litestar) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of every documented route."""
    listed = [(route, handler, handler.opt[_KEY]) for route, handler in _handlers(app) if _KEY in handler.opt]
    shapes: set[type[msgspec.Struct]] = {ProblemBody, StageDone, Passages, TextDelta, Final}
    for _, _, doc in listed:
        shapes |= {s for s in (doc.body, doc.returns, *doc.also.values()) if isinstance(s, type)}
    ordered = sorted(shapes, key=lambda s: s.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route, handler, doc in sorted(listed, key=lambda entry: entry[0].path_format):
        for method in sorted(set(handler.http_methods) - {"OPTIONS", "HEAD"}):
            paths.setdefault(route.path_format, {})[method.lower()] = _operation(route, handler, doc)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "rag-platform",
            "version": __version__,
            "description": "Questions answered from your documents, with citations, within permissions.",
        },
        "security": [{"key": []}, {}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "`rag keys create` makes one. Not needed on loopback while there are none.",
                }
            },
        },
    }


def _handlers(app: Litestar) -> list[tuple[HTTPRoute, HTTPRouteHandler]]:
    return [(route, h) for route in app.routes if isinstance(route, HTTPRoute) for h in route.route_handlers]


def _operation(route: HTTPRoute, handler: HTTPRouteHandler, doc: _Documented) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in route.path_parameters
    ]
    parameters += [{"name": name, "in": "header", **_HEADERS[name]} for name in ("X-Request-ID", *doc.headers)]
    success: dict[str, Any] = {doc.media_type: _content(doc.returns)}
    if doc.streams:
        success["text/event-stream"] = {"schema": {"type": "string"}}
    responses: dict[str, Any] = {"200": {"description": "It worked.", "content": success}}
    for status in doc.errors:
        problem = {"schema": {"$ref": _REF.format(name=ProblemBody.__name__)}}
        responses[str(status)] = {"description": _TITLES[status], "content": {_PROBLEM: problem}}
    for status, shape in doc.also.items():
        responses[str(status)] = {"description": "See above.", "content": {_JSON: _content(shape)}}
    operation: dict[str, Any] = {
        "operationId": handler.handler_name,
        "summary": doc.summary,
        "description": doc.description,
        "parameters": parameters,
        "responses": responses,
    }
    if doc.body is not None:
        operation["requestBody"] = {"required": True, "content": {_JSON: _content(doc.body)}}
    return operation


def _content(shape: Shape) -> dict[str, Any]:
    from serve.examples import example_of  # stands above this module: it knows every shape

    if not isinstance(shape, type):
        return {"schema": dict(shape)}
    content: dict[str, Any] = {"schema": {"$ref": _REF.format(name=shape.__name__)}}
    example = example_of(shape)
    return content if example is None else {**content, "example": example}
