"""The whole thing: documents ingested, the real query service, the real server, clients as users have them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator

import httpx
import msgspec
import openai
import pytest

from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger import open_ledger
from rag_platform.query.answer import Answer
from rag_platform.query.service import QueryService
from rag_platform_tests import harness
from rag_platform_tests.serve.api_server import ApiServer
from serve.documents import DocumentTexts

MOON = "# Moon\n\nIntroduction.\n\n# Orbit\n\nThe moon circles the earth in 27 days. It is made of rock.\n"
PAY = "# Salaries\n\nThe salary of the chief gardener is 90000 crowns a year.\n"
QUESTION = "In how many days does the moon circle the earth?"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API over two documents: one for everybody, one for the group ``hr``."""
    root = tmp_path_factory.mktemp("real")
    settings = harness.settings(root / "home", RAG_DAGSTER_URL="http://127.0.0.1:3000")
    public, private = harness.Tree(root / "public"), harness.Tree(root / "private")
    public.write("moon.md", MOON)
    private.write("pay.md", PAY)
    with Workbench(settings) as bench:
        harness.ingest(bench, [public.spec("space"), private.spec("pay", acl=("hr",))], "run-1")
    ledger = open_ledger(settings, lazy=True)
    try:
        service = QueryService(settings, document_text=DocumentTexts(settings, ledger))
        with ApiServer(settings, service) as running:
            yield running
    finally:
        ledger.close()


def test_an_answer_leads_to_its_source(real: ApiServer) -> None:
    """The answer quotes a document; its citation gives back exactly that text, its run and its surroundings."""
    answer = msgspec.json.decode(real.query(QUESTION, deadline_ms=60_000).content, type=Answer)
    assert not answer.refused and "27 days" in answer.answer and answer.mode == "full"
    [cited] = [c for c in answer.citations if "27 days" in c.quote]
    assert cited.quote == MOON[cited.start : cited.end]
    span = real.http.get(f"/v1/citations/{cited.chunk_id}").json()
    assert (span["before"] + span["text"] + span["after"]).strip() == MOON.strip()
    assert span["run_url"] == "http://127.0.0.1:3000/runs/run-1"


def test_the_second_time_it_comes_from_the_cache(real: ApiServer) -> None:
    """The same words again: an exact hit with a request id of its own; a thumb for it is kept."""
    question = "What is the moon made of?"
    first = real.query(question, deadline_ms=60_000)
    second = real.query(f"  {question} ")
    assert (first.headers["x-rag-cache"], second.headers["x-rag-cache"]) == ("miss", "exact")
    assert first.json()["answer"] == second.json()["answer"]
    assert first.json()["request_id"] != second.json()["request_id"]
    thumb = {"request_id": second.json()["request_id"], "rating": "up"}
    assert real.http.post("/v1/feedback", json=thumb).status_code == 200
    assert real.http.post("/v1/feedback", json={**thumb, "request_id": "nobody"}).status_code == 404


def test_nobody_sees_what_is_not_theirs(real: ApiServer) -> None:
    """Without the group, neither answers nor passages nor citations show the private document, in any mode."""
    for mode in ("hybrid", "vector", "keyword"):
        body = {"question": "What is the salary of the chief gardener?", "mode": mode, "deadline_ms": 60_000}
        assert "90000" not in real.http.post("/v1/query", json=body).text
        found = real.http.post("/v1/retrieve", json={**body, "k": 50}).json()["results"]
        assert {r["uri"] for r in found} <= {"moon.md"}


def test_a_filter_narrows(real: ApiServer) -> None:
    """A filter that no document satisfies leaves nothing, and the answer is a refusal."""
    answer = real.query(QUESTION, filter='source = "elsewhere"', deadline_ms=60_000).json()
    assert answer["refused"] and answer["citations"] == []


def test_openais_client(real: ApiServer) -> None:
    """The official client gets the same answer, at once and in pieces."""
    with openai.OpenAI(base_url=f"{real.url}/v1", api_key="unused", max_retries=0, timeout=60) as client:
        messages: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]
        whole = client.chat.completions.create(model="rag-fast", messages=messages).choices[0].message
        assert "27 days" in (whole.content or "") and whole.annotations
        pieces = client.chat.completions.create(model="rag-fast", messages=messages, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in pieces) == whole.content


def test_curl_sees_the_stream(real: ApiServer) -> None:
    """``curl -N`` as the README has it: events line by line, the answer last."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    body = json.dumps({"question": "Which days does the moon need for its circle?", "deadline_ms": 60_000})
    command = ["curl", "-sN", f"{real.url}/v1/query", "-H", "Content-Type: application/json"]
    command += ["-H", "Accept: text/event-stream", "-d", body]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout
    names = [line.removeprefix("event: ") for line in shown.splitlines() if line.startswith("event: ")]
    assert names[0] == "stage" and "passages" in names and names[-1] == "answer"


def test_metrics_and_health(real: ApiServer) -> None:
    """Ready with nothing missing; the metrics have counted the questions."""
    real.query(QUESTION, deadline_ms=60_000)
    assert real.http.get("/health/ready").json()["missing"] == []
    assert "rag_queries_total{" in real.http.get("/metrics").text


def test_it_starts_with_everything_down(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No ledger, no index, no cache: the API starts, is live, names what is missing, and answers 503 (P13)."""
    pytest.importorskip("psycopg2")
    root = tmp_path_factory.mktemp("down")
    closed = "127.0.0.1:9"  # the discard port: nothing listens there
    settings = harness.settings(
        root / "home",
        RAG_LEDGER_URL=f"postgresql+psycopg2://nobody@{closed}/none",
        RAG_CACHE="redis",
        RAG_REDIS_URL=f"redis://{closed}/0",
        RAG_LLM="openai_compatible",
        RAG_LLM_BASE_URL=f"http://{closed}/v1",
        RAG_LLM_MODEL="none",
        RAG_LLM_API_KEY="none",
    )
    with ApiServer(settings, QueryService(settings)) as api:
        assert api.http.get("/health/live").status_code == 200
        ready: httpx.Response = api.http.get("/health/ready")
        assert ready.status_code == 503
        assert {"ledger", "release", "cache", "llm"} <= set(ready.json()["missing"])
        response = api.query("q", deadline_ms=2000)
        assert response.status_code == 503 and response.headers["retry-after"]
        assert api.http.get("/").status_code == 200
