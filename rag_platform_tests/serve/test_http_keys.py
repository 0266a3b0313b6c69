"""API keys over HTTP: who is let in, to what, and how often."""

from __future__ import annotations

from collections.abc import Callable

from rag_platform.ledger import open_ledger
from rag_platform.ledger.keys import KeyLimits, Scope
from rag_platform.records import Principal
from rag_platform_tests.serve.api_server import ApiServer, eventually


def make_key(api: ApiServer, *scopes: Scope, tenant: str = "acme", per_minute: int | None = None) -> dict[str, str]:
    """Create a key in the API's ledger and return the headers that use it."""
    ledger = open_ledger(api.settings)
    try:
        _, secret = ledger.keys.create(
            name="test",
            tenant=tenant,
            groups=("staff",),
            scopes=scopes,
            limits=KeyLimits(requests_per_minute=per_minute),
        )
    finally:
        ledger.close()
    headers = {"Authorization": f"Bearer {secret}"}
    eventually(
        lambda: (
            api.http.get("/v1/models").status_code == 401
            and api.http.get("/v1/models", headers=headers).status_code != 401
        ),
        "the key is known",
    )
    return headers


def test_with_keys_nobody_else_is_let_in(start_api: Callable[..., ApiServer]) -> None:
    """As soon as a key exists, every route but health and the pages needs one; the refusal is no oracle."""
    api = start_api()
    good = make_key(api, "query")
    for method, path in (
        ("POST", "/v1/query"),
        ("POST", "/v1/retrieve"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/feedback"),
        ("GET", "/v1/models"),
        ("GET", "/v1/citations/1b9f5a52-7c0e-5a0a-9d58-3f1c7e0f4b11"),
        ("GET", "/metrics"),
    ):
        for headers in ({}, {"Authorization": "Bearer rag_wrong"}, {"Authorization": "Basic eDp5"}):
            response = api.http.request(method, path, json={"question": "q"}, headers=headers)
            assert response.status_code == 401, path
            assert response.headers["www-authenticate"].startswith("Bearer")
            assert "rag_wrong" not in response.text
    for path in ("/", "/health/live", "/health/ready", "/schema", "/schema/openapi.json"):
        assert api.http.get(path).status_code == 200
    assert api.http.post("/v1/query", json={"question": "q"}, headers=good).status_code == 200


def test_the_keys_principal_asks(start_api: Callable[..., ApiServer]) -> None:
    """Tenant and groups come from the key, whatever the body says; Authorization and X-API-Key are both read."""
    api = start_api()
    headers = make_key(api, "query", tenant="acme")
    assert api.http.post("/v1/query", json={"question": "q", "tenant": "other"}, headers=headers).status_code == 400
    api.http.post("/v1/query", json={"question": "q"}, headers=headers)
    secret = headers["Authorization"].removeprefix("Bearer ")
    api.http.post("/v1/query", json={"question": "q"}, headers={"X-API-Key": secret})
    assert len(api.service.questions) == 2
    for question in api.service.questions:
        assert question.principal == Principal("acme", frozenset({"staff"})) and question.key_id


def test_scopes(start_api: Callable[..., ApiServer]) -> None:
    """Metrics need ``admin``, questions need ``query``; one does not include the other."""
    api = start_api()
    asking, running = make_key(api, "query"), make_key(api, "admin")
    assert api.http.get("/metrics", headers=asking).status_code == 403
    assert api.http.get("/metrics", headers=running).status_code == 200
    refused = api.http.post("/v1/query", json={"question": "q"}, headers=running)
    assert refused.status_code == 403 and refused.headers["content-type"] == "application/problem+json"


def test_a_rate_limit_is_429_with_a_time(start_api: Callable[..., ApiServer]) -> None:
    """Beyond its rate a key is told when to come back; another key is not."""
    api = start_api()
    limited, free = make_key(api, "query", per_minute=2), make_key(api, "query")
    codes = [api.http.post("/v1/query", json={"question": "q"}, headers=limited).status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    response = api.http.post("/v1/query", json={"question": "q"}, headers=limited)
    assert int(response.headers["retry-after"]) >= 1 and response.json()["retry_after_s"] >= 1
    assert api.http.post("/v1/query", json={"question": "q"}, headers=free).status_code == 200


def test_a_spoofed_address_does_not_reset_a_limit(start_api: Callable[..., ApiServer]) -> None:
    """Limits belong to the key: X-Forwarded-For changes nothing."""
    api = start_api()
    limited = make_key(api, "query", per_minute=1)
    codes = [
        api.http.post(
            "/v1/query", json={"question": "q"}, headers={**limited, "X-Forwarded-For": f"10.0.0.{n}"}
        ).status_code
        for n in range(3)
    ]
    assert codes == [200, 429, 429]


def test_with_keys_any_host_name_is_right(start_api: Callable[..., ApiServer]) -> None:
    """Behind a reverse proxy on the same machine, Host is the public name: the key protects."""
    api = start_api()
    headers = {**make_key(api, "query"), "Host": "rag.example.com", "Origin": "https://app.example.com"}
    assert api.http.post("/v1/query", json={"question": "q"}, headers=headers).status_code == 200


def test_odd_authorization_headers(start_api: Callable[..., ApiServer]) -> None:
    """Whatever stands in the header, the answer is 401 and not an error."""
    api = start_api()
    make_key(api, "query")
    for authorization in ("Bearer", "Bearer a b", "bearer \xff", "x" * 5000, ""):
        headers = [(b"Authorization", authorization.encode("latin-1"))]
        assert api.http.post("/v1/query", json={"question": "q"}, headers=headers).status_code == 401
