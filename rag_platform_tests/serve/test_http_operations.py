"""Health, metrics, the OpenAPI document, the playground's files, and requests that lead nowhere."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from rag_platform_tests.serve.api_server import ApiServer

EVIL = "http://evil.example"


def test_live_asks_nothing(api: ApiServer) -> None:
    """Live is about this process alone."""
    api.service.states = {"release": "DependencyError"}
    assert api.http.get("/health/live").json() == {"status": "live"}


@pytest.mark.parametrize(
    ("states", "status", "missing"),
    [
        ({"release": "ok", "llm": "ok"}, 200, []),
        ({"release": "ok", "llm": "DependencyTimeout", "cache": "DependencyError"}, 200, ["llm", "cache"]),
        ({"release": "Unanswerable", "cache": "DependencyError"}, 503, ["release", "cache"]),
        ({"vector_store": "DependencyTimeout"}, 503, ["vector_store"]),
        ({"vector_store": "DependencyTimeout", "keyword_replica": "ok"}, 200, ["vector_store"]),
        (
            {"ledger": "DependencyError", "vector_store": "DependencyTimeout", "keyword_replica": "ok"},
            503,
            ["ledger", "vector_store"],
        ),
        (
            {"vector_store": "DependencyTimeout", "keyword_replica": "DependencyError"},
            503,
            ["vector_store", "keyword_replica"],
        ),
        ({"ledger": "DependencyError", "embedder": "DependencyTimeout"}, 200, ["ledger", "embedder"]),
    ],
)
def test_ready_names_what_is_missing(api: ApiServer, states: dict[str, str], status: int, missing: list[str]) -> None:
    """503 while nothing can be found; what else is missing is named, and no reason to leave the rotation (P13)."""
    api.service.states = states
    response = api.http.get("/health/ready")
    assert response.status_code == status and response.json()["missing"] == missing
    assert response.json()["dependencies"] == states
    assert response.json()["status"] == ("ready" if status == 200 else "not_ready")


def test_metrics_count_responses_by_route(api: ApiServer) -> None:
    """Routes are counted by their pattern: what a client makes up is no label."""
    api.http.get("/v1/citations/made-up-by-me")
    api.http.get("/made-up-too")
    text = api.http.get("/metrics").text
    assert re.search(r'rag_http_requests_total\{route="/v1/citations/\{chunk_id\}",status="404"\} [1-9]', text)
    assert 'route="unknown",status="404"' in text and "made-up" not in text


def test_every_route_is_documented(api: ApiServer) -> None:
    """The OpenAPI document lists what is served; its references resolve and its examples fit their schemas."""
    spec = api.http.get("/schema/openapi.json").json()
    assert spec["openapi"] == "3.1.0" and spec == yaml.safe_load(api.http.get("/schema/openapi.yaml").text)
    served = {r.path_format for r in api.server.config.loaded_app.routes}
    assert served - set(spec["paths"]) == {"/", "/ui/{name}", "/schema", "/schema/openapi.json", "/schema/openapi.yaml"}
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(spec)))
    assert references <= set(spec["components"]["schemas"])
    operations = [o for methods in spec["paths"].values() for o in methods.values()]
    assert len({o["operationId"] for o in operations}) == len(operations)
    for operation in operations:
        if "requestBody" in operation:
            assert operation["requestBody"]["content"]["application/json"]["example"]


def test_the_documented_examples_work(api: ApiServer) -> None:
    """Every example of a request is accepted as it stands."""
    spec = api.http.get("/schema/openapi.json").json()
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            if "requestBody" in operation:
                example = operation["requestBody"]["content"]["application/json"]["example"]
                assert api.http.request(method, path, json=example).status_code == 200, path


@pytest.mark.parametrize("path", ["/", "/schema"])
def test_pages_load_nothing_from_elsewhere(api: ApiServer, path: str) -> None:
    """A strict policy, no frames, and no address of another host in the page."""
    response = api.http.get(path)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "http" not in policy
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["cache-control"] == "no-store" and response.headers["x-frame-options"] == "DENY"
    assert not re.search(r'(?:src|href)="(?:https?:)?//', response.text)
    assert "<script>" not in response.text


def test_the_playgrounds_files_are_served(api: ApiServer) -> None:
    """Every file that the page names is there, with a type that browsers accept, and is not sent twice."""
    page = api.http.get("/").text
    names = set(re.findall(r'(?:src|href)="(ui/[^"]+)"', page))
    assert names
    for name in names:
        response = api.http.get(f"/{name}")
        assert response.status_code == 200 and response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-type"].split(";")[0] in ("text/javascript", "text/css", "image/svg+xml")
        again = api.http.get(f"/{name}", headers={"If-None-Match": response.headers["etag"]})
        assert again.status_code == 304 and again.content == b""


@pytest.mark.parametrize("path", ["/ui/..%2fapp.py", "/ui/../app.py", "/ui/%2e%2e/auth.py", "/ui/nothing.js", "/ui/"])
def test_nothing_else_of_the_package_is_served(api: ApiServer, path: str) -> None:
    """Only the files of the playground's folder have an address."""
    connection = api.connect()
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    assert connection.recv(65536).startswith(b"HTTP/1.1 404 ")
    connection.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/query", 405),
        ("DELETE", "/v1/query", 405),
        ("POST", "/health/live", 405),
        ("PUT", "/", 405),
        ("BREW", "/v1/query", 400),
    ],
)
def test_requests_that_lead_nowhere(api: ApiServer, method: str, path: str, status: int) -> None:
    """Unknown addresses and methods are problems with a request id; 405 says what is allowed."""
    response = api.http.request(method, path)
    assert response.status_code == status
    if status != 400:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["request_id"] == response.headers["x-request-id"]
    if status == 405:
        assert response.headers["allow"]


def test_head_is_get_without_the_body(api: ApiServer) -> None:
    """Load balancers ask with HEAD: same status and headers, no body, and the connection goes on."""
    for path in ("/health/live", "/health/ready", "/", "/nothing"):
        head, get = api.http.head(path), api.http.get(path)
        assert head.status_code == get.status_code and head.content == b""
        assert head.headers["content-type"] == get.headers["content-type"]


def test_other_origins_are_not_let_in(api: ApiServer) -> None:
    """A preflight gets no permission, no response names an allowed origin, and a foreign page's request is refused."""
    asked = {"Origin": EVIL, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    preflight = api.http.options("/v1/query", headers=asked)
    assert preflight.status_code == 204 and "POST" in preflight.headers["allow"]
    refused = api.http.post("/v1/query", json={"question": "q"}, headers={"Origin": EVIL})
    assert refused.status_code == 403
    for response in (preflight, refused, api.http.get("/health/live", headers={"Origin": EVIL})):
        assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::2]", "a b", ""])
def test_a_foreign_host_name_is_refused(api: ApiServer, host: str) -> None:
    """Without keys a loopback server answers only for loopback names: DNS rebinding leads nowhere."""
    response = api.http.post("/v1/query", json={"question": "q"}, headers={"Host": host})
    assert response.status_code in (400, 403) and api.service.questions == []
    assert api.http.get("/metrics", headers={"Host": host}).status_code in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:8000"])
def test_loopback_names_are_let_in(api: ApiServer, host: str) -> None:
    """The port in Host may be any: a tunnel or a container maps it."""
    assert api.http.post("/v1/query", json={"question": "q"}, headers={"Host": host}).status_code == 200


def test_forwarded_headers_change_nothing(api: ApiServer) -> None:
    """X-Forwarded-* of whoever sends them is not believed."""
    headers = {"X-Forwarded-For": "10.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}
    assert api.http.post("/v1/query", json={"question": "q"}, headers=headers).status_code == 200
