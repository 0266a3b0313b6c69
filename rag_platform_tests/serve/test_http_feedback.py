"""POST /v1/feedback and GET /v1/citations."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from rag_platform_tests.serve.api_server import ApiServer
from rag_platform_tests.serve.fake_service import CHUNK_ID, HIT


def test_a_thumb_is_kept(api: ApiServer) -> None:
    """Up is 1, down is -1; the comment is optional."""
    assert api.http.post("/v1/feedback", json={"request_id": "a", "rating": "up"}).json()["rating"] == "up"
    api.http.post("/v1/feedback", json={"request_id": "a", "rating": "down", "comment": "no"})
    assert api.service.thumbs == [("a", 1, None, None), ("a", -1, "no", None)]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"request_id": "unknown", "rating": "up"}, 404),
        ({"request_id": "a", "rating": "sideways"}, 400),
        ({"request_id": "a"}, 400),
        ({"request_id": "x" * 129, "rating": "up"}, 400),
        ({"request_id": "a", "rating": "up", "comment": "x" * 2001}, 400),
    ],
)
def test_bad_feedback(api: ApiServer, body: dict[str, str], status: int) -> None:
    """What makes no sense is refused; an answer that nobody gave is not found."""
    assert api.http.post("/v1/feedback", json=body).status_code == status


def test_the_same_key_counts_once(api: ApiServer) -> None:
    """A repeated request has the first one's response and no effect; another body under the same key is refused."""
    headers = {"Idempotency-Key": "k-1"}
    body = {"request_id": "a", "rating": "up"}
    first = api.http.post("/v1/feedback", json=body, headers=headers)
    again = api.http.post("/v1/feedback", json=body, headers=headers)
    assert first.content == again.content and again.status_code == 200 and len(api.service.thumbs) == 1
    other = api.http.post("/v1/feedback", json={**body, "rating": "down"}, headers=headers)
    assert other.status_code == 422 and len(api.service.thumbs) == 1
    api.http.post("/v1/feedback", json=body, headers={"Idempotency-Key": "k-2"})
    assert len(api.service.thumbs) == 2


def test_a_failure_is_not_kept(api: ApiServer) -> None:
    """A key whose request failed may be sent again, and is tried again."""
    headers = {"Idempotency-Key": "k-3"}
    for _ in range(2):
        response = api.http.post("/v1/feedback", json={"request_id": "unknown", "rating": "up"}, headers=headers)
        assert response.status_code == 404
    assert len(api.service.thumbs) == 2


@pytest.mark.parametrize("key", ["", "x" * 129, "a b", "é"])
def test_a_bad_key_is_named(api: ApiServer, key: str) -> None:
    """A key that is no key is refused rather than ignored: the client counts on it."""
    headers = [(b"Idempotency-Key", key.encode())]
    response = api.http.post("/v1/feedback", json={"request_id": "a", "rating": "up"}, headers=headers)
    assert response.status_code == 400 and response.json()["errors"][0]["field"] == "Idempotency-Key"


def test_many_at_once_count_once(api: ApiServer) -> None:
    """Twenty clients with the same key at the same time have one effect and one response."""

    def send(_: int) -> bytes:
        body = {"request_id": "a", "rating": "up"}
        return api.http.post("/v1/feedback", json=body, headers={"Idempotency-Key": "k-4"}).content

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(send, range(20)))) == 1
    assert len(api.service.thumbs) == 1


def test_a_citation_leads_back_to_its_document(start_api: Callable[..., ApiServer]) -> None:
    """The passage with its surroundings, its version and snapshot, and a link to the run that indexed it."""
    api = start_api(RAG_DAGSTER_URL="http://127.0.0.1:3000/")
    body = api.http.get(f"/v1/citations/{CHUNK_ID}").json()
    assert body["text"] == HIT.text and body["uri"] == HIT.uri and body["page"] == 3
    assert body["before"] == "x" * 2000 and body["after"] == "y" * 2000
    assert body["snapshot_id"] == "s1" and body["run_url"] == "http://127.0.0.1:3000/runs/run-1"


@pytest.mark.parametrize(
    "chunk_id", ["1b9f5a52-7c0e-5a0a-9d58-3f1c7e0f4b12", "nonsense", "..%2f..%2fetc", CHUNK_ID.upper()]
)
def test_an_unknown_citation_is_not_found(api: ApiServer, chunk_id: str) -> None:
    """What does not exist, what may not be read and what is no id at all are answered alike."""
    response = api.http.get(f"/v1/citations/{chunk_id}")
    assert response.status_code == 404 and response.headers["content-type"] == "application/problem+json"
