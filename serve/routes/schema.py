"""``/schema``: the OpenAPI document as JSON and YAML, and as a page that loads nothing from anywhere."""

from __future__ import annotations

import functools
import json
from html import escape
from typing import Any

from litestar import Litestar, Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from serve.openapi import document
from serve.reply import Reply
from serve.routes.playground import page_headers

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
h2{margin-top:2.5rem;font:600 1.1rem/1.4 ui-monospace,monospace}
pre{overflow:auto;padding:.75rem;border:1px solid #8886;border-radius:.4rem;font-size:.85rem}
table{border-collapse:collapse}td{padding:.15rem 1rem .15rem 0;vertical-align:top}code{font-size:.9em}
"""


def routes() -> list[HTTPRouteHandler]:
    @functools.cache
    def bodies(app: Litestar) -> tuple[bytes, bytes, bytes]:
        import yaml

        found = document(app)
        as_json = json.dumps(found, ensure_ascii=False, indent=1)
        as_yaml = yaml.safe_dump(json.loads(as_json), sort_keys=False, allow_unicode=True, width=110)
        return as_json.encode(), as_yaml.encode(), _page(found).encode()

    @get("/schema/openapi.json")
    async def openapi_json(request: Request) -> ASGIApp:  # type: ignore[type-arg]
        return Reply(bodies(request.app)[0])

    @get("/schema/openapi.yaml")
    async def openapi_yaml(request: Request) -> ASGIApp:  # type: ignore[type-arg]
        return Reply(bodies(request.app)[1], content_type=b"application/yaml; charset=utf-8")

    @get("/schema")
    async def schema_page(request: Request) -> ASGIApp:  # type: ignore[type-arg]
        headers = page_headers(style="'unsafe-inline'", script="'none'")
        return Reply(bodies(request.app)[2], headers, content_type=b"text/html; charset=utf-8")

    return [openapi_json, openapi_yaml, schema_page]


def _page(openapi: dict[str, Any]) -> str:
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>API · rag-platform</title>',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<style>{_STYLE}</style><h1>rag-platform {escape(openapi['info']['version'])}</h1>",
        '<p>Also as <a href="schema/openapi.json">openapi.json</a> and <a href="schema/openapi.yaml">openapi.yaml</a>',
        ' (OpenAPI 3.1). <a href="./">Playground</a></p>',
    ]
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            parts.append(_operation(path, method.upper(), operation))
    parts.append("<h1>Schemas</h1>")
    for name, schema in sorted(openapi["components"]["schemas"].items()):
        shown = escape(json.dumps(schema, ensure_ascii=False, indent=1))
        parts.append(f'<h2 id="{escape(name)}">{escape(name)}</h2><pre>{shown}</pre>')
    return "\n".join(parts)


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{status}</td><td>{escape(answer['description'])}</td><td>{_links(answer)}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    parts = [
        f"<h2>{method} {escape(path)}</h2><p><b>{escape(operation['summary'])}.</b> ",
        f"{escape(operation['description'])}</p>",
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if body:
        example = escape(json.dumps(body.get("example", {}), ensure_ascii=False, indent=1))
        parts.append(f"<p>Body: {_links({'content': {'application/json': body}})}</p><pre>{example}</pre>")
    parts.append(f"<table>{rows}</table>")
    return "".join(parts)


def _links(answer: dict[str, Any]) -> str:
    names = {c["schema"]["$ref"].rsplit("/", 1)[1] for c in answer["content"].values() if "$ref" in c["schema"]}
    return ", ".join(f'<a href="#{escape(n)}">{escape(n)}</a>' for n in sorted(names))
