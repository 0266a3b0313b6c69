"""P13: the API starts with everything down, says so, and needs no restart when it comes up."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from rag_platform_tests.faults.corpus import Asked
from rag_platform_tests.faults.platform_process import DEPENDENCIES, Api, Platform, index_corpus
from rag_platform_tests.faults.unruly_proxy import proxied
from rag_platform_tests.ledger import postgres_server

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("platform")]

READY_S = 30.0


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of a server's default database."""
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed")
    folder = postgres_server.binaries()
    if folder is None:
        pytest.skip("no PostgreSQL here")
    with postgres_server.running(folder) as url:
        yield f"{url}postgres"


def test_the_api_starts_with_everything_down(platform: Platform, postgres: str, fresh: Iterator[Asked]) -> None:
    """Without ledger, vector store, models and cache the process starts and is live; ready names each of them and
    questions are refused with 503. When they come up it becomes ready and answers, without a restart."""
    asked = next(fresh)
    home = {"RAG_HOME": str(platform.home.with_name("cold")), "RAG_INDEX_URL": "s3://faults/cold"}
    index_corpus({**platform.environment, **home, "RAG_LEDGER_URL": postgres})
    with contextlib.ExitStack() as stack:
        port = urlsplit(postgres).port
        assert port is not None
        ledger = stack.enter_context(proxied(port))
        reached = postgres.replace(f":{port}/", f":{ledger.port}/")
        with contextlib.ExitStack() as down:
            ledger.become("closed")
            down.callback(ledger.become, "ok")
            for dependency in DEPENDENCIES:
                down.enter_context(platform.broken(dependency, "closed"))
            api = stack.enter_context(platform.serving(RAG_LEDGER_URL=reached, **home))
            assert api.get("/health/live").status_code == 200
            report = api.get("/health/ready")
            assert report.status_code == 503
            missing = {"ledger", "release", "vector_store", "embedder", "llm", "reranker", "cache"}
            # The replica is in a folder, and may still be being opened.
            assert set(report.json()["missing"]) - {"keyword_replica"} == missing, report.json()
            reply = api.ask(asked.text, deadline_s=2)
            assert reply.status == 503
            assert int(reply.headers["retry-after"]) >= 1
            assert api.get("/health/live").status_code == 200
        until_ready(api)
        answer = api.until_full(asked.text, deadline_s=10)[-1]
        assert asked.fact in answer.body["answer"]


def until_ready(api: Api) -> None:
    give_up = time.monotonic() + READY_S
    while (report := api.get("/health/ready")).json()["missing"]:
        assert time.monotonic() < give_up, report.json()
        time.sleep(0.1)
    assert report.status_code == 200
