"""POST /v1/query and /v1/retrieve: bodies, headers, and what is refused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import msgspec
import pytest

from rag_platform.query.answer import Answer
from rag_platform_tests.serve.api_server import ApiServer
from rag_platform_tests.serve.fake_service import HIT, QUOTE
from serve.auth import Authenticator, Caller

PROBLEM = "application/problem+json"


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """Return the body of a problem, checked for what all of them have."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    body: dict[str, Any] = response.json()
    assert body["status"] == status and body["type"].startswith("urn:rag-platform:problem:") and body["title"]
    assert body["request_id"] == response.headers["x-request-id"]
    return body


def test_an_answer_is_the_body_and_its_state_the_headers(api: ApiServer) -> None:
    """The body decodes as an Answer; mode and cache state are headers too; nothing may be stored on the way."""
    response = api.query("How are chunks cut?")
    answer = msgspec.json.decode(response.content, type=Answer)
    assert response.status_code == 200 and response.headers["content-type"] == "application/json"
    assert answer.citations[0].quote == QUOTE and answer.profile == "balanced"
    assert response.headers["x-rag-mode"] == "full" and response.headers["x-rag-cache"] == "miss"
    assert "x-rag-degraded" not in response.headers
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "server" not in response.headers


def test_a_cached_answer_says_so(api: ApiServer) -> None:
    """An exact cache hit is answered without the pipeline."""
    response = api.query("cached: how are chunks cut?")
    assert response.headers["x-rag-cache"] == "exact" and api.service.questions == []


def test_degradation_is_a_header(api: ApiServer) -> None:
    """Every stage that did not do its part is named with its reason."""
    header = api.query("degraded please").headers["x-rag-degraded"]
    assert header == "reranker;reason=DependencyTimeout, llm;reason=RateLimited"
    found = api.http.post("/v1/retrieve", json={"question": "degraded please"})
    assert (
        found.headers["x-rag-degraded"] == "embed;reason=DependencyTimeout" and found.headers["x-rag-mode"] == "keyword"
    )


def test_everything_of_the_body_reaches_the_question(api: ApiServer) -> None:
    """Fields arrive as they were sent; a filter arrives as a tree, the deadline in seconds."""
    api.query(
        "q",
        history=[{"role": "user", "text": "a"}, {"role": "assistant", "text": "b"}],
        profile="thorough",
        k=7,
        mode="keyword",
        filter='source = "docs" and page >= 3',
        rerank=False,
        max_answer_tokens=99,
        deadline_ms=1500,
        use_cache=False,
    )
    [q] = api.service.questions
    assert [(t.role, t.text) for t in q.history] == [("user", "a"), ("assistant", "b")]
    assert (q.profile_name, q.k, q.mode, q.rerank, q.max_answer_tokens) == ("thorough", 7, "keyword", False, 99)
    assert q.where is not None and len(q.where.parts) == 2
    assert q.deadline_s == pytest.approx(1.5, abs=0.5) and not q.use_cache
    assert q.key_id is None and q.principal.tenant == "default"


def test_the_shorter_deadline_holds(api: ApiServer) -> None:
    """Of the header and the body, the shorter deadline counts."""
    for header, body, expected in ((2000, 9000, 2.0), (9000, 2000, 2.0)):
        headers = {"X-Deadline-Ms": str(header)}
        api.http.post("/v1/query", json={"question": "q", "deadline_ms": body}, headers=headers)
        assert api.service.questions[-1].deadline_s == pytest.approx(expected, abs=0.5)


def test_what_it_takes_to_know_the_caller_counts_against_the_deadline(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: while a ledger that does not answer holds up the look at the keys, the question's time is running."""
    quick = Authenticator.caller

    async def slow(self: Authenticator, *arguments: Any, **named: Any) -> Caller:
        await asyncio.sleep(0.3)  # what is tested: a delay
        return await quick(self, *arguments, **named)

    monkeypatch.setattr(Authenticator, "caller", slow)
    api.query("q", deadline_ms=10_000)
    assert 0 < api.service.questions[-1].deadline_s < 9.8


@pytest.mark.parametrize("value", ["0", "-5", "1e3", "soon", "99999999", "١٢"])
def test_a_bad_deadline_header_is_named(api: ApiServer, value: str) -> None:
    """A header that is no number of milliseconds within the limits is refused by name."""
    headers = [(b"X-Deadline-Ms", value.encode())]
    response = api.http.post("/v1/query", json={"question": "q"}, headers=headers)
    assert problem(response, 400)["errors"][0]["field"] == "X-Deadline-Ms"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "question"),
        ({"question": ""}, "question"),
        ({"question": "   "}, None),
        ({"question": 5}, "question"),
        ({"question": "x" * 4001}, "question"),
        ({"question": "q", "k": 0}, "k"),
        ({"question": "q", "k": 51}, "k"),
        ({"question": "q", "k": "3"}, "k"),
        ({"question": "q", "profile": "SECRETWORD"}, "profile"),
        ({"question": "q", "mode": "SECRETWORD"}, "mode"),
        ({"question": "q", "history": [{"role": "user", "text": 1}]}, "history[0].text"),
        ({"question": "q", "history": [{"role": "system", "text": "SECRETWORD"}]}, "history[0].role"),
        ({"question": "q", "history": [{"role": "user", "text": "x"}] * 21}, "history"),
        ({"question": "q", "deadline_ms": 120_001}, "deadline_ms"),
        ({"question": "q", "max_answer_tokens": 5000}, None),
        ({"question": "q", "filter": "SECRETWORD ="}, "filter"),
        ({"question": "q", "filter": 'tenant = "other"'}, "filter"),
        ({"question": "q", "questoin": "SECRETWORD"}, "questoin"),
        ({"question": "q", "SECRETWORD is the password": 1}, "(a name that is not one of ours)"),
    ],
)
def test_what_is_wrong_is_named_and_not_repeated(api: ApiServer, body: dict[str, Any], field: str | None) -> None:
    """A refused body costs no work; the problem names the field, and repeats no value of it but of a filter."""
    response = api.http.post("/v1/query", json=body)
    found = problem(response, 400)
    assert [e["field"] for e in found.get("errors", [])] == ([field] if field else [])
    assert "SECRETWORD" not in response.text or field == "filter"
    assert api.service.questions == []


def test_an_unknown_model_of_error_is_an_internal_error_without_its_text(
    api: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug's message may hold the question: neither the response nor the log repeats it; both have the request id."""
    response = api.query("bug in SECRETWORD")
    found = problem(response, 500)
    assert "SECRETWORD" not in response.text and "SECRETWORD" not in caplog.text
    assert found["request_id"] in caplog.text and "ValueError" in caplog.text


def test_nothing_to_answer_with_is_503_with_retry_after(api: ApiServer) -> None:
    """Unanswerable becomes 503 and says when to ask again."""
    response = api.query("fail now")
    assert problem(response, 503)["retry_after_s"] == 7 and response.headers["retry-after"] == "7"


def test_retrieve_returns_passages(api: ApiServer) -> None:
    """The body has each passage with its place and text."""
    body = api.http.post("/v1/retrieve", json={"question": "q", "k": 3, "filter": 'source = "docs"'}).json()
    [result] = body["results"]
    assert result["text"] == HIT.text and result["chunk_id"] == HIT.chunk_id and result["page"] == 3
    assert body["mode"] == "hybrid" and body["timings_ms"]["total"] > 0 and body["request_id"]
    assert problem(api.http.post("/v1/retrieve", json={"question": "q", "stream": True}), 400)


def test_a_request_id_is_echoed_or_made_up(api: ApiServer) -> None:
    """A well-formed X-Request-ID is used for everything; anything else is replaced, never echoed."""
    given = api.http.post("/v1/query", json={"question": "q"}, headers={"X-Request-ID": "trace-1:2.3_x"})
    assert given.headers["x-request-id"] == given.json()["request_id"] == "trace-1:2.3_x"
    ids = set()
    for bad in ("", "x" * 129, "a b", "<script>", "a,b", "é"):
        response = api.http.post("/v1/query", json={"question": "q"}, headers=[(b"X-Request-ID", bad.encode())])
        made_up = response.headers["x-request-id"]
        assert len(made_up) == 32 and set(made_up) <= set("0123456789abcdef")
        ids.add(made_up)
    assert len(ids) == 6


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'{"question": "\xff\xfe"}', 400),
        (b'{"question": "a"} trailing', 400),
        (b'{"question": "\\ud800"}', 400),
        (b"[" * 30_000, 400),
        (b'{"question": "q", "history": ' + b"[" * 30_000, 400),
        (b'{"question": "' + b"x" * 70_000 + b'"}', 413),
    ],
)
def test_malformed_bodies(api: ApiServer, content: bytes, status: int) -> None:
    """Whatever the bytes are, the response is a problem, and the next request works."""
    headers = {"Content-Type": "application/json"}
    problem(api.http.post("/v1/query", content=content, headers=headers), status)
    assert api.query("q").status_code == 200


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_only_json_is_read(api: ApiServer, content_type: str) -> None:
    """Content types that a foreign page may send without a preflight are refused."""
    body = json.dumps({"question": "q"}).encode()
    problem(api.http.post("/v1/query", content=body, headers={"Content-Type": content_type}), 415)
    gzipped = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    problem(api.http.post("/v1/query", content=body, headers=gzipped), 415)
    assert api.http.post(
        "/v1/query", content=body, headers={"Content-Type": "Application/JSON; charset=utf-8"}
    ).is_success
