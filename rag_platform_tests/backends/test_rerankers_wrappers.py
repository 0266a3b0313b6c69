"""Rerankers behind a guard and with a fallback, over a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_platform import backends
from rag_platform.backends.guard import Guard
from rag_platform.backends.rerankers.base import Reranker
from rag_platform.backends.rerankers.fallback import FallbackReranker
from rag_platform.backends.rerankers.guarded import GuardedReranker
from rag_platform.errors import DependencyError, DependencyTimeout
from rag_platform.settings import Settings
from rag_platform_tests.backends import tiny_cross_encoder
from rag_platform_tests.backends.misbehaving_reranker import MisbehavingReranker, overlap
from rag_platform_tests.contracts.rerankers import CANDIDATES, PATIENCE_S, QUESTION, TEXTS, RerankerContract, run


@pytest.fixture
def server() -> Iterator[MisbehavingReranker]:
    import httpx  # noqa: F401  its import would be spent from the first deadline

    with MisbehavingReranker().running() as running:
        yield running


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_cross_encoder.build(tmp_path_factory.mktemp("models") / "tiny")


def remote(server: MisbehavingReranker) -> Reranker:
    settings = Settings.from_env({"RAG_RERANK_BASE_URL": server.base_url, "RAG_RERANK_USD_PER_1000_CALLS": "2"})
    built: Reranker = backends.load("rerankers", "cohere_compatible").build(settings)
    return built


def local(model: Path) -> Reranker:
    settings = Settings.from_env({"RAG_CROSS_ENCODER_DIR": str(model), "RAG_EMBED_WORKERS": "1"})
    built: Reranker = backends.load("rerankers", "cross_encoder").build(settings)
    return built


class TestGuardedContract(RerankerContract):
    @pytest.fixture
    def reranker(self, server: MisbehavingReranker) -> Iterator[Reranker]:
        yield GuardedReranker(remote(server), Guard("reranker:cohere_compatible"))


class TestFallbackContract(RerankerContract):
    @pytest.fixture
    def reranker(self, server: MisbehavingReranker, model: Path) -> Iterator[Reranker]:
        server.fault = "500"
        yield FallbackReranker([remote(server), local(model)])


def test_they_are_no_vendors() -> None:
    """Only rerankers that a setting may name are listed."""
    assert backends.vendors("rerankers") == ["cohere_compatible", "cross_encoder", "maxsim"]


def test_guard_retries_once_and_then_stops_calling(server: MisbehavingReranker) -> None:
    """A passing fault is tried again; a dead server is soon not called at all, and is found when it is back."""
    guard = Guard("reranker:cohere_compatible", failures=3, pause_s=0.05, max_pause_s=0.05)
    reranker = GuardedReranker(remote(server), guard)

    async def main() -> None:
        server.fault = "500"
        for _ in range(30):
            with pytest.raises(DependencyError):
                await reranker.rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S)
        assert server.calls < 30
        server.fault = None
        until = time.monotonic() + 60
        while True:
            try:
                scores = await reranker.rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S)
                break
            except DependencyError:
                assert time.monotonic() < until
                await asyncio.sleep(0.02)
        assert scores == pytest.approx([overlap(QUESTION, t) for t in TEXTS])

    run(reranker, main())


def test_ping_goes_past_an_open_breaker(server: MisbehavingReranker) -> None:
    """Readiness asks the server, not the memory of it."""
    guard = Guard("reranker:cohere_compatible", failures=1, pause_s=60, max_pause_s=60)
    reranker = GuardedReranker(remote(server), guard)
    server.fault = "401"
    with pytest.raises(DependencyError, match="401"):
        run(reranker, reranker.rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S))
    server.fault = None
    with pytest.raises(DependencyError, match="not called"):
        run(reranker, reranker.rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S))
    run(reranker, reranker.ping())


@pytest.mark.parametrize("fault", ["500", "401", "html", "nan", "frozen", "dripping"])
def test_the_second_answers_when_the_first_fails(server: MisbehavingReranker, model: Path, fault: str) -> None:
    """Whatever the first does, the second's scores come back within the deadline."""
    both = FallbackReranker([remote(server), local(model)])

    async def main() -> None:
        expected = await local(model).rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S)
        server.fault = fault
        assert await both.rerank(QUESTION, CANDIDATES, timeout_s=5) == expected
        assert server.calls == 1
        server.fault = None
        server.released.set()
        assert await both.rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S) != expected
        await both.ping()

    run(both, main())


def test_all_fail(server: MisbehavingReranker) -> None:
    """The error of the last one comes back; no time left is a timeout."""
    both = FallbackReranker([remote(server), remote(server)])
    server.fault = "500"
    with pytest.raises(DependencyError, match="HTTP 500"):
        run(both, both.rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S))
    assert server.calls == 2
    with pytest.raises(DependencyError, match="HTTP 500"):
        run(both, both.ping())
    with pytest.raises(DependencyTimeout):
        run(both, both.rerank(QUESTION, CANDIDATES, timeout_s=0.0))


def test_fallback_spec(server: MisbehavingReranker, model: Path) -> None:
    """It names both, takes what the smaller one takes, and costs what the first one costs."""
    both = FallbackReranker([remote(server), local(model)]).spec
    assert both.name == "cohere_compatible+cross_encoder" and both.usd_per_call == pytest.approx(0.002)
    assert both.max_candidates == 100
    assert both.fingerprint != FallbackReranker([local(model), remote(server)]).spec.fingerprint
    with pytest.raises(ValueError, match="at least one"):
        FallbackReranker([])
