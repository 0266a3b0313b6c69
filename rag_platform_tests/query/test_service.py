"""The query service on a real index: default parts, nothing replaced."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rag_platform.backends.vector_stores import filters
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger import open_ledger
from rag_platform.query.answer import Answer
from rag_platform.query.events import Final, Passages, StageDone
from rag_platform.query.question import Question, Turn
from rag_platform.query.service import QueryService, Unanswerable
from rag_platform.records import Principal
from rag_platform.settings import Settings
from rag_platform_tests import harness
from serve.documents import DocumentTexts

T = TypeVar("T")
STAFF = Principal("default", frozenset({"staff"}))
EVERYBODY = Principal("default")
_ids = itertools.count()

HANDBOOK = """# Operations handbook

## Signing keys

The signing key is rotated every 90 days by the platform team. A rotation takes eleven minutes.

## Restore drill

The restore drill at Harbour took 47 minutes in March. The target is one hour.
"""
SALARIES = "The salary band of a senior engineer starts at 91,000 euros. Bands are reviewed in May.\n"
GARDEN = "The roof garden opens at eight. Bees live in the two hives near the north wall.\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a RAG_HOME in which three documents are indexed."""
    folder = tmp_path_factory.mktemp("service")
    settings = harness.settings(folder / "home")
    tree, secret = harness.Tree(folder / "docs"), harness.Tree(folder / "secret")
    tree.write("handbook.md", HANDBOOK)
    tree.write("garden.txt", GARDEN)
    secret.write("salaries.txt", SALARIES)
    with Workbench(settings) as bench:
        harness.ingest(bench, [tree.spec(), secret.spec("hr", acl=("staff",))], "run-1")
    return settings


def asked(text: str, principal: Principal = EVERYBODY, **more: Any) -> Question:
    return Question(text, principal, f"request-{next(_ids)}", **more)


def using(settings: Settings, work: Callable[[QueryService], Awaitable[T]]) -> T:
    """Run ``work`` on a service of its own."""

    async def run() -> T:
        ledger = open_ledger(settings)
        service = QueryService(settings, ledger=ledger, document_text=DocumentTexts(settings, ledger))
        try:
            return await work(service)
        finally:
            await service.aclose()

    return asyncio.run(run())


async def until_cached(service: QueryService, text: str, principal: Principal = EVERYBODY) -> Answer:
    """Ask until the cache answers. On a machine busy with other tests a step may miss its budget of time, and an
    answer that is not whole is rightly not kept; or the ledger does not confirm a hit in time."""
    for _ in range(10):
        answer = await service.answer(asked(text, principal))
        if answer.cache != "miss":
            return answer
    return answer


def test_an_answer_quotes_its_document_and_says_where(home: Settings) -> None:
    """Without any key: the sentence that answers, cited to the character, with all that leads back to it."""
    answer = using(home, lambda s: s.answer(asked("How often is the signing key rotated?")))
    assert "every 90 days" in answer.answer and "[1]" in answer.answer
    first = answer.citations[0]
    assert HANDBOOK[first.start : first.end] == first.quote
    assert (first.source, first.uri, first.run_id) == ("docs", "handbook.md", "run-1")
    assert (answer.mode, answer.cache, answer.refused, answer.degraded) == ("full", "miss", False, [])
    assert answer.generator == "extractive" and answer.cost_usd == 0.0
    assert {"embed", "search", "generate", "total"} <= set(answer.timings_ms)


def test_the_same_question_is_answered_from_the_cache_and_costs_nothing(home: Settings) -> None:
    """White space aside, the same words give the same answer, with a request id of its own."""

    async def twice(service: QueryService) -> tuple[Answer, Answer]:
        first = await service.answer(asked("How long did the restore drill take?"))
        return first, await until_cached(service, "  How long did the restore   drill take? ")

    first, second = using(home, twice)
    assert (first.cache, second.cache) == ("miss", "exact")
    assert second.answer == first.answer and second.citations == first.citations
    assert second.request_id != first.request_id
    assert set(second.timings_ms) == {"total"} and second.usage.embedding_tokens == 0


def test_another_wording_is_answered_from_the_cache_only_when_it_asks_the_same(home: Settings) -> None:
    """A near wording hits; one that differs in a number does not."""
    lenient = dataclasses.replace(home, semantic_threshold=0.8)

    async def three(service: QueryService) -> list[Answer]:
        texts = (
            "How long did the restore drill at Harbour take?",
            "How long did Harbour's restore drill take?",
            "How long did the 2 restore drills at Harbour take?",
        )
        first = await until_cached(service, texts[0])
        return [first, await until_cached(service, texts[1]), await service.answer(asked(texts[2]))]

    first, near, other = using(lenient, three)
    assert (first.cache, near.cache, other.cache) == ("exact", "semantic", "miss")
    assert near.answer == first.answer


def test_what_the_documents_do_not_say_is_refused_and_not_cached(home: Settings) -> None:
    """A refusal has no citation and is made anew each time."""

    async def twice(service: QueryService) -> list[Answer]:
        return [await service.answer(asked("What is the capital of Mongolia?")) for _ in range(2)]

    for answer in using(home, twice):
        assert answer.refused and not answer.citations and answer.cache == "miss"


def test_nobody_gets_an_answer_from_a_document_that_is_not_theirs(home: Settings) -> None:
    """The same question of two readers: also after the one who may has put the answer into the cache."""
    question = "Where does the salary band of a senior engineer start?"

    async def both(service: QueryService) -> tuple[Answer, Answer, Answer]:
        allowed = await service.answer(asked(question, STAFF))
        cached = await until_cached(service, question, STAFF)
        return allowed, cached, await service.answer(asked(question))

    allowed, cached, denied = using(home, both)
    assert "91,000" in allowed.answer and cached.cache == "exact"
    assert "91,000" not in denied.answer
    assert all(c.source != "hr" for c in denied.citations)


def test_a_filter_narrows_what_an_answer_may_rest_on(home: Settings) -> None:
    """A filter that excludes the document leaves nothing to quote from it."""
    where = filters.parse('uri = "garden.txt"')
    answer = using(home, lambda s: s.answer(asked("How often is the signing key rotated?", where=where)))
    assert all(c.uri == "garden.txt" for c in answer.citations)


def test_a_follow_up_finds_what_it_stands_for_in_the_conversation(home: Settings) -> None:
    """Without a model the previous question is searched for as well."""
    history = (Turn("user", "How often is the signing key rotated?"), Turn("assistant", "Every 90 days [1]."))
    answer = using(home, lambda s: s.answer(asked("And how long does a rotation take?", history=history)))
    assert "eleven minutes" in answer.answer


def test_a_stream_tells_its_stages_and_ends_with_the_answer(home: Settings) -> None:
    """Stages and passages come before the answer, which comes once, last."""

    async def collect(service: QueryService) -> list[object]:
        return [event async for event in service.stream(asked("When does the roof garden open?"))]

    events = using(home, collect)
    assert isinstance(events[-1], Final) and sum(isinstance(e, Final) for e in events) == 1
    assert {e.name for e in events if isinstance(e, StageDone)} >= {"embed", "search", "generate"}
    assert any(isinstance(e, Passages) for e in events)


def test_a_citation_leads_to_its_place_in_the_document(home: Settings) -> None:
    """Before, chunk and after are the parsed document; for another reader there is nothing."""

    async def look(service: QueryService) -> None:
        answer = await service.answer(asked("Where does the salary band start?", STAFF))
        chunk = answer.citations[0].chunk_id
        span = await service.citation(chunk, STAFF)
        assert span is not None
        assert (span.before + span.hit.text + span.after).strip() == SALARIES.strip()
        assert await service.citation(chunk, EVERYBODY) is None
        assert await service.citation("no such chunk", STAFF) is None

    using(home, look)


def test_a_thumb_is_kept_for_an_answer_that_was_given(home: Settings) -> None:
    """Feedback needs a logged answer."""

    async def rate(service: QueryService) -> tuple[bool, bool]:
        answer = await service.answer(asked("When does the roof garden open?"))
        return (
            await service.feedback(answer.request_id, 1, None, None),
            await service.feedback("never-asked", 1, None, None),
        )

    assert using(home, rate) == (True, False)


@pytest.mark.parametrize("mode", ["hybrid", "vector", "keyword"])
def test_every_mode_retrieves_and_answers(home: Settings, mode: Any) -> None:
    """A mode that was asked for is no degradation."""
    question = asked("How often is the signing key rotated?", mode=mode, use_cache=False)
    found = using(home, lambda s: s.retrieve(question))
    assert found.hits[0].uri == "handbook.md" and found.mode == mode and found.degraded == ()
    assert using(home, lambda s: s.answer(question)).mode == "full"


def test_without_an_index_nothing_is_invented(tmp_path: Path) -> None:
    """An empty home is a clear refusal to answer."""

    async def ask(service: QueryService) -> None:
        with pytest.raises(Unanswerable, match="rag ingest"):
            await service.answer(asked("Anything?"))
        assert (await service.ready())["release"] == "Unanswerable"

    using(harness.settings(tmp_path / "home"), ask)


def test_identical_questions_at_once_are_answered_once(home: Settings) -> None:
    """P12: one of fifty pays, and all get the answer under their own request ids."""

    async def many(service: QueryService) -> list[Answer]:
        return await asyncio.gather(
            *(service.answer(asked("Where do the bees of the roof garden live?")) for _ in range(50))
        )

    answers = using(home, many)
    assert len({a.request_id for a in answers}) == 50
    assert len({a.answer for a in answers}) == 1
    assert sum(a.usage.embedding_tokens > 0 for a in answers) == 1


def test_a_deadline_that_cannot_be_kept_is_an_honest_failure(home: Settings) -> None:
    """No time for anything: no answer rather than half of one, and soon."""
    with pytest.raises(Unanswerable):
        using(home, lambda s: s.answer(asked("How often is the key rotated?", deadline_s=0.000001)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "  "}, "empty"),
        ({"text": "x" * 5000}, "4000 characters"),
        ({"k": 0}, "k must be"),
        ({"profile_name": "turbo"}, "profile is one of"),
        ({"deadline_s": 1000}, "deadline"),
        ({"max_answer_tokens": 10**6}, "max_answer_tokens"),
        ({"history": (Turn("user", "x"),) * 21}, "20 earlier turns"),
    ],
)
def test_a_question_out_of_its_limits_says_which(change: dict[str, Any], message: str) -> None:
    """Every limit names itself."""
    with pytest.raises(ValueError, match=message):
        Question(**{"text": "why?", "principal": EVERYBODY, "request_id": "r", **change})
