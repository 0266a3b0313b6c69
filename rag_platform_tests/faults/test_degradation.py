"""DESIGN §8's degradation table, asked of the real server while one real dependency after the other misbehaves."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import pytest

from rag_platform_tests.faults.corpus import Asked
from rag_platform_tests.faults.platform_process import DEPENDENCIES, Api, Dependency, Platform, Reply

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("platform")]

DEADLINE_S = 3.0
LLM_DEADLINE_S = 2.0
"""Shorter where all of it is waited for."""
SHORT_S = 1.2
FAULTS = ("closed", "frozen", "stopped", "slow", "dripping", "garbage")
SILENT = ("frozen", "stopped", "slow", "dripping")
"""Faults that show only in that nothing comes."""
SLOW_S = 20.0

EXPECTED: dict[Dependency, tuple[str, str]] = {
    "vector_store": ("keyword_only", "vector_store"),
    "embedder": ("keyword_only", "embed"),
    "reranker": ("full", "reranker"),
    "llm": ("context_only", "llm"),
    "redis": ("full", "cache"),
}
"""Mode and declared stage."""
REASONS = {"DependencyTimeout", "DependencyError"}


def assert_answers(reply: Reply, asked: Asked) -> None:
    """The answer is right, and cites the document that says so."""
    assert reply.status == 200
    assert not reply.body["refused"]
    assert any(c["uri"] == asked.uri and asked.fact in c["quote"] for c in reply.body["citations"]), reply.body
    assert asked.fact in reply.body["answer"]


@pytest.mark.parametrize(("dependency", "fault"), [*itertools.product(DEPENDENCIES, FAULTS)])
def test_one_dependency_misbehaves(
    platform: Platform, api: Api, fresh: Iterator[Asked], dependency: Dependency, fault: str
) -> None:
    """Whatever one dependency does, the answer comes in time, is right, says in body and header what is missing
    and why, and is not cached; when the dependency is well again the answers are full again."""
    asked = next(fresh)
    mode, stage = EXPECTED[dependency]
    with platform.broken(dependency, fault, SLOW_S):
        reply = api.ask(asked.text, deadline_s=LLM_DEADLINE_S if dependency == "llm" else DEADLINE_S)
    assert_answers(reply, asked)
    assert (reply.body["mode"], reply.body["cache"], set(reply.degraded)) == (mode, "miss", {stage}), reply
    reason = reply.degraded[stage]
    assert reason == "DependencyTimeout" if fault in SILENT else reason in REASONS
    assert reply.headers["x-rag-mode"] == mode
    assert reply.headers["x-rag-degraded"] == f"{stage};reason={reason}"
    after = api.until_full(asked.text, deadline_s=DEADLINE_S)
    assert {r.body["cache"] for r in after} == {"miss"}, "a degraded answer came from the cache"
    assert_answers(after[-1], asked)
    assert api.ask(asked.text, deadline_s=DEADLINE_S).body["cache"] == "exact"


@pytest.mark.parametrize("dependency", DEPENDENCIES)
def test_a_short_deadline(platform: Platform, api: Api, fresh: Iterator[Asked], dependency: Dependency) -> None:
    """Who gives less time than a stage may take gets an answer all the same: no stage uses up what its
    replacement needs. (On a busy machine others may run out of time too.)"""
    asked = next(fresh)
    with platform.broken(dependency, "frozen"):
        reply = api.ask(asked.text, deadline_s=SHORT_S)
    assert reply.status == 200, reply.body
    assert EXPECTED[dependency][1] in reply.degraded
    api.until_full(asked.text, deadline_s=DEADLINE_S)


@pytest.mark.parametrize("dependency", ["vector_store", "llm"])
def test_a_stream_ends_in_time(platform: Platform, api: Api, fresh: Iterator[Asked], dependency: Dependency) -> None:
    """A stream that met a frozen dependency ends before the deadline with the same degraded answer."""
    asked = next(fresh)
    with platform.broken(dependency, "frozen"):
        events = api.stream(asked.text, deadline_s=DEADLINE_S)
    name, last = events[-1]
    answer = last["answer"]
    mode, stage = EXPECTED[dependency]
    assert (name, answer["mode"], [d["stage"] for d in answer["degraded"]]) == ("answer", mode, [stage])
    assert asked.fact in answer["answer"]
    api.until_full(asked.text, deadline_s=DEADLINE_S)


@pytest.mark.parametrize("dependency", ["vector_store", "embedder", "reranker"])
def test_retrieval_degrades_too(platform: Platform, api: Api, fresh: Iterator[Asked], dependency: Dependency) -> None:
    """Passages alone come in time as well, and say what they lack."""
    asked = next(fresh)
    with platform.broken(dependency, "stopped"):
        reply = api.ask(asked.text, deadline_s=DEADLINE_S, path="/v1/retrieve", k=3)
    assert reply.status == 200
    assert reply.degraded == {EXPECTED[dependency][1]: "DependencyTimeout"}
    assert reply.body["mode"] == ("hybrid" if dependency == "reranker" else "keyword")
    assert reply.body["results"][0]["uri"] == asked.uri
    api.until_full(asked.text, deadline_s=DEADLINE_S)


def test_everything_is_down(platform: Platform, api: Api, fresh: Iterator[Asked]) -> None:
    """When nothing answers, not even the keyword replica, the reply is a problem with a time to come back, no
    invented answer; afterwards the same server answers in full."""
    asked = next(fresh)
    replica, away = platform.home / "keyword_replica", platform.home / "keyword_replica.away"
    with contextlib.ExitStack() as broken:
        replica.rename(away)
        broken.callback(away.rename, replica)
        for dependency in DEPENDENCIES:
            broken.enter_context(platform.broken(dependency, "closed"))
        for _ in range(2):
            reply = api.ask(asked.text, deadline_s=DEADLINE_S)
            assert reply.status == 503
            assert reply.headers["content-type"] == "application/problem+json"
            assert int(reply.headers["retry-after"]) >= 1
            assert reply.body["title"] and "answer" not in reply.body and asked.fact not in str(reply.body)
    after = api.until_full(asked.text, deadline_s=DEADLINE_S)
    assert_answers(after[-1], asked)


def test_all_but_the_replica_is_down(platform: Platform, api: Api, fresh: Iterator[Asked]) -> None:
    """The local keyword index alone still gives the right passages, and an honest sentence."""
    asked = next(fresh)
    with contextlib.ExitStack() as broken:
        for dependency in DEPENDENCIES:
            broken.enter_context(platform.broken(dependency, "closed"))
        reply = api.ask(asked.text, deadline_s=DEADLINE_S)
        assert_answers(reply, asked)
        assert reply.body["mode"] == "context_only"
        assert {"embed", "vector_store", "llm", "cache"} <= set(reply.degraded)
    api.until_full(asked.text, deadline_s=DEADLINE_S)


def test_the_embedder_is_down_and_the_question_was_embedded_before(
    platform: Platform, api: Api, fresh: Iterator[Asked]
) -> None:
    """A question whose vector is cached is answered in full without the embedder."""
    asked = next(fresh)
    assert api.ask(asked.text, deadline_s=DEADLINE_S, k=3).is_full
    with platform.broken("embedder", "closed"):
        reply = api.ask(asked.text, deadline_s=DEADLINE_S, k=4)  # another k is another answer
    assert (reply.is_full, reply.body["cache"]) == (True, "miss")
    assert_answers(reply, asked)


def test_the_embedder_is_down_and_a_similar_question_was_answered_before(
    platform: Platform, api: Api, fresh: Iterator[Asked]
) -> None:
    """Without a vector, an earlier answer to nearly the same words is given, and declared; a question about
    something else is not taken for it."""
    asked, other = next(fresh), next(fresh)
    assert api.ask(asked.text, deadline_s=DEADLINE_S).is_full
    with platform.broken("embedder", "closed"):
        again = api.ask(f"Please tell me: {asked.text}", deadline_s=DEADLINE_S)
        assert_answers(again, asked)
        assert (again.body["mode"], again.body["cache"], set(again.degraded)) == ("cached", "semantic", {"embed"})
        unknown = api.ask(other.text, deadline_s=DEADLINE_S)
        assert_answers(unknown, other)
        assert (unknown.body["mode"], unknown.body["cache"]) == ("keyword_only", "miss")
    api.until_full(other.text, deadline_s=DEADLINE_S)


@pytest.mark.parametrize("dependency", DEPENDENCIES)
def test_a_dependency_that_is_a_little_slow_costs_only_time(
    platform: Platform, api: Api, fresh: Iterator[Asked], dependency: Dependency
) -> None:
    """Within its budget a slow dependency is waited for."""
    asked = next(fresh)
    with platform.broken(dependency, "slow", 0.03 if dependency == "redis" else 0.2):
        reply = api.ask(asked.text, deadline_s=10)
    assert reply.is_full, reply
    assert_answers(reply, asked)


def test_a_frozen_cache_is_asked_once(platform: Platform, api: Api, fresh: Iterator[Asked]) -> None:
    """The first question that meets a frozen Redis waits 200 ms for it; the ones after it do not ask."""
    with platform.broken("redis", "stopped"):
        first = api.ask(next(fresh).text, deadline_s=DEADLINE_S)
        assert first.degraded["cache"] == "DependencyTimeout"
        before = platform.upstreams["redis"].proxy.counts(reset=True)
        assert before.requests >= 1
        for _ in range(5):
            assert "cache" in api.ask(next(fresh).text, deadline_s=DEADLINE_S).degraded
        # A probe now and then asks whether it is back, beside the questions.
        assert platform.upstreams["redis"].proxy.counts().requests <= 5
    api.until_full(next(fresh).text, deadline_s=DEADLINE_S)
