"""Promises about numbers: calls of a dead upstream (P8), goodput beyond capacity (P9), one run for many (P12)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from rag_platform_tests.faults.corpus import Asked
from rag_platform_tests.faults.platform_process import Api, Dependency, Platform, Reply

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("platform")]

QUESTIONS = 100
CONSTANT = 10
"""Calls beyond 1.1 a question: saved-up retries, and probes of a breaker."""


MODELS: tuple[Dependency, ...] = ("embedder", "reranker", "llm")


@pytest.mark.parametrize("fault", ["garbage", "stopped"])
def test_calls_of_dead_upstreams(platform: Platform, api: Api, fresh: Iterator[Asked], fault: str) -> None:
    """A hundred questions cause at most 110 calls of an upstream that is down, and a few: retries never multiply
    an outage (P8). All of them are answered."""
    about = next(fresh)
    proxies = {name: platform.upstreams[name].proxy for name in MODELS}

    def ask(number: int) -> Reply:
        # Other words each time, so that nothing is answered or embedded from a cache.
        return api.ask(f"{about.text} (case {number})", deadline_s=3.0, use_cache=False)

    for proxy in proxies.values():
        proxy.counts(reset=True)
    with contextlib.ExitStack() as broken, ThreadPoolExecutor(4) as clients:
        for name in MODELS:
            broken.enter_context(platform.broken(name, fault))
        replies = list(clients.map(ask, range(QUESTIONS)))
        calls = {name: proxy.counts().requests for name, proxy in proxies.items()}
    assert {r.status for r in replies} == {200}
    assert all({"embed", "reranker", "llm"} <= r.degraded.keys() for r in replies)
    assert all(1 <= count <= 1.1 * QUESTIONS + CONSTANT for count in calls.values()), calls
    api.until_full(about.text, deadline_s=3.0)


def test_identical_misses_are_one_run(platform: Platform, api: Api, fresh: Iterator[Asked]) -> None:
    """Two hundred readers with the same right who ask the same new question at once cause one generation (P12),
    and get the same answer, each under a request id of their own."""
    asked, crowd = next(fresh), 200
    proxies = {name: platform.upstreams[name].proxy for name in MODELS}
    for proxy in proxies.values():
        proxy.counts(reset=True)
    with platform.broken("llm", "slow", 2.5), ThreadPoolExecutor(crowd) as clients:
        replies = list(clients.map(lambda _: api.ask(asked.text, deadline_s=30), range(crowd)))
    assert {r.status for r in replies} == {200}
    assert {name: proxy.counts().requests for name, proxy in proxies.items()} == dict.fromkeys(proxies, 1)
    assert len({r.body["answer"] for r in replies}) == 1
    assert asked.fact in replies[0].body["answer"]
    assert len({r.body["request_id"] for r in replies}) == crowd
    assert sum(r.body["usage"]["completion_tokens"] > 0 for r in replies) == 1, "paid once, billed once"


# ── beyond capacity ──

PLACES = 4
LLM_S = 0.5
"""The LLM is what bounds the capacity: ``PLACES / LLM_S`` answers a second, far below what two cores can do."""
CAPACITY = PLACES / LLM_S
SECONDS = 5.0
ROUNDS = 4
"""Machines have bad seconds; a service that collapses under load does so in every round."""


@dataclass(frozen=True, slots=True)
class Load:
    """Answers a second from the first question to the last answer, and the refusals."""

    goodput: float
    refused: list[Reply]


def test_goodput_beyond_capacity(platform: Platform, fresh: Iterator[Asked]) -> None:
    """At three times what the service can do, it goes on answering at 90 % of its best rate or more; what is too
    much is refused at once, with 503 and a time to come back (P9)."""
    about = next(fresh)
    shares = []
    with platform.serving(RAG_HTTP_MAX_IN_FLIGHT=str(PLACES), RAG_HTTP_MAX_WAITING=str(PLACES)) as api:
        api.until_full(about.text, deadline_s=20, **CHEAP)
        with platform.broken("llm", "slow", LLM_S):
            for _ in range(ROUNDS):
                peak = offered(api, about.text, CAPACITY)
                beyond = offered(api, about.text, 3 * CAPACITY)
                shares.append(beyond.goodput / peak.goodput)
                check_refusals(beyond.refused)
                if shares[-1] >= 0.9:
                    break
    assert max(shares) >= 0.9, shares


def check_refusals(refused: list[Reply]) -> None:
    assert len(refused) > SECONDS * CAPACITY, "two of three are too many"
    for reply in refused:
        assert reply.status == 503
        assert int(reply.headers["retry-after"]) >= 1
        assert reply.body["type"].endswith("overloaded")
    # Refused without waiting for a place: half of them in less time than one answer takes.
    waits = sorted(r.seconds - r.stalled_s for r in refused)
    assert waits[len(waits) // 2] < LLM_S


CHEAP: dict[str, Any] = {"use_cache": False, "mode": "keyword", "rerank": False, "k": 1}
"""Nothing but the LLM shall be what there is too little of."""


def offered(api: Api, question: str, per_second: float) -> Load:
    """Ask at a fixed rate, however fast the answers come (an open loop)."""
    count = round(SECONDS * per_second)
    finished: list[float] = []
    started = time.monotonic()

    def ask(number: int) -> Reply:
        time.sleep(max(0.0, started + number / per_second - time.monotonic()))
        reply = api.ask(question, deadline_s=10, **CHEAP)
        if reply.status == 200 and reply.is_full:
            finished.append(time.monotonic())
        return reply

    with ThreadPoolExecutor(32) as clients:
        replies = list(clients.map(ask, range(count)))
    return Load(len(finished) / (max(finished) - started), [r for r in replies if r.status != 200])
