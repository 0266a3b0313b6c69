"""What enters the answer cache, what comes out, and what a failing cache costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rag_platform.backends.caches.base import Cache, Vector
from rag_platform.backends.caches.in_process import InProcessCache
from rag_platform.backends.caches.redis import RedisCache
from rag_platform.backends.caches.redis import Settings as RedisSettings
from rag_platform.errors import DependencyError, DependencyTimeout
from rag_platform.ledger import Ledger, open_ledger
from rag_platform.ledger.documents import IndexEntry
from rag_platform.query.answer import Answer, Citation, Degradation, Usage
from rag_platform.query.cache import _WORDS_THRESHOLD, AnswerCache, CacheGuard
from rag_platform.query.degrade import Notes
from rag_platform.query.freshness import Freshness
from rag_platform.query.wording.vector import word_vector
from rag_platform.settings import Settings
from rag_platform_tests.backends import redis_server
from rag_platform_tests.contracts.caches import unit

RELEASE = "r-1"
QUESTION = "How do I drain a node before maintenance?"
WORDING = "How can I drain nodes before maintenance?"
CITED, SILENT = "doc-cited", "doc-silent"
VERSIONS = {CITED: "v1", SILENT: "v1"}
VECTOR = unit(1, 32)[0]
NEAR = (lambda v: (v / np.linalg.norm(v)).astype(np.float32))(VECTOR + 0.05 * unit(1, 32, seed=9)[0])


def answer(**changes: Any) -> Answer:
    citation = Citation(
        number=1, chunk_id="c", document_id=CITED, source="docs", uri="a.md", title="A", page=None, heading_path="",
        start=0, end=5, quote="Drain", score=1.0, version_id="v1", snapshot_id="s", run_id="r",
    )  # fmt: skip
    made = Answer(
        request_id="q1", answer="“Drain” [1]", citations=[citation], mode="full", generator="extractive", degraded=[],
        cache="miss", refused=False, usage=Usage(prompt_tokens=7), cost_usd=0.5, timings_ms={"total": 9.0},
        release_id=RELEASE, profile="balanced",
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


class Bench:
    """An answer cache over a real cache and a real ledger."""

    def __init__(self, cache: Cache | None, ledger: Ledger, settings: Settings) -> None:
        self.cache, self.ledger = cache, ledger
        self.guard = CacheGuard(cache, first_pause_s=0.05)
        self.answers = AnswerCache(cache, self.guard, Freshness(ledger, timeout_s=20.0), settings)
        self.index({CITED: "v1", SILENT: "v1"})

    def index(self, versions: dict[str, str]) -> None:
        entries = [(IndexEntry(d, v, "c", "m", 1), "0") for d, v in versions.items()]
        self.ledger.documents.mark_indexed(RELEASE, entries, "run")

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            try:
                await work()
            finally:
                await self.guard.aclose()
                if self.cache is not None:
                    await self.cache.aclose()

        asyncio.run(main())

    async def admit(
        self, made: Answer | None = None, *, scope: str = "s", question: str = QUESTION, **changes: Any
    ) -> Notes:
        notes = changes.pop("notes", Notes())
        given_ = {"history_digest": "", "vector": VECTOR, "versions": VERSIONS, **changes}
        await self.answers.admit(
            scope, question, given_["history_digest"], given_["vector"], made or answer(), given_["versions"], notes
        )
        return notes

    async def found(self, *, scope: str = "s", question: str = QUESTION, history: str = "") -> set[str]:
        """By which ways an answer is found."""
        notes = Notes()
        ways = {
            "exact": await self.answers.exact(scope, question, history, notes),
            "semantic": await self.answers.semantic(scope, question, NEAR, notes),
            "words": await self.answers.nearest_by_words(scope, question, notes),
        }
        assert not notes
        return {way for way, got in ways.items() if got is not None}


@pytest.fixture(params=["in_process", "redis", "redis_vectors"])
def bench(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Bench]:
    ledger = open_ledger(settings)
    try:
        if request.param == "in_process":
            yield Bench(InProcessCache(100, 100, 2**20), ledger, settings)
            return
        binary = redis_server.plain_binary() if request.param == "redis" else redis_server.vector_binary()
        if binary is None:
            pytest.skip("no such Redis server here")
        with redis_server.running(binary) as server:
            yield Bench(RedisCache(RedisSettings(url=server.url, timeout_s=5.0)), ledger, settings)
    finally:
        ledger.close()


@pytest.fixture
def local(settings: Settings) -> Iterator[Bench]:
    ledger = open_ledger(settings)
    yield Bench(InProcessCache(100, 100, 2**20), ledger, settings)
    ledger.close()


def test_an_answer_comes_back_as_from_the_cache(bench: Bench) -> None:
    """The same answer, marked, free of charge: by its words, by a near vector, by most of its words."""

    async def work() -> None:
        assert await bench.found() == set()
        assert not await bench.admit()
        assert await bench.found() == {"exact", "semantic", "words"}
        assert await bench.found(question=WORDING) == {"semantic", "words"}
        exact = await bench.answers.exact("s", QUESTION, "", Notes())
        semantic = await bench.answers.semantic("s", WORDING, NEAR, Notes())
        assert exact == answer(cache="exact", usage=Usage(), cost_usd=0.0)
        assert semantic == answer(cache="semantic", usage=Usage(), cost_usd=0.0)

    bench.run(work)


def test_scopes_do_not_meet(bench: Bench) -> None:
    """P10: another scope finds nothing, in any way."""

    async def work() -> None:
        await bench.admit(scope="s")
        assert await bench.found(scope="t") == set()
        assert await bench.found(scope="s") == {"exact", "semantic", "words"}

    bench.run(work)


@pytest.mark.parametrize("document", [CITED, SILENT])
def test_a_changed_document_takes_its_answers_with_it(bench: Bench, document: str) -> None:
    """P11: after any document of the context has changed, cited or not, no way leads to the answer; it is removed."""

    async def work() -> None:
        await bench.admit()
        bench.index({document: "v2"})
        assert await bench.found() == set()
        bench.index({document: "v1"})
        assert await bench.found() == set(), "it was hidden and not removed"
        await bench.admit()
        bench.ledger.documents.forget_entries(RELEASE, [document])
        assert await bench.found(question=WORDING) == set()
        bench.index({document: "v1"})
        assert await bench.found() == set()

    bench.run(work)


NOT_ADMITTED: dict[str, dict[str, Any]] = {
    "degraded": {"degraded": [Degradation("reranker", "DependencyTimeout")]},
    "refused": {"refused": True},
    "keyword_only": {"mode": "keyword_only"},
    "context_only": {"mode": "context_only"},
    "cached": {"mode": "cached"},
    "from the cache": {"cache": "semantic"},
    "ungrounded": {"citations": []},
    "empty": {"answer": " "},
    "huge": {"answer": "x" * 600_000},
}


@pytest.mark.parametrize("why", NOT_ADMITTED)
def test_what_is_not_admitted(local: Bench, why: str) -> None:
    """Only a whole, grounded, generated answer is given again."""

    async def work() -> None:
        await local.admit(answer(**NOT_ADMITTED[why]))
        assert await local.found() == set()

    local.run(work)


def test_what_is_not_admitted_because_of_its_circumstances(local: Bench) -> None:
    """A context that does not hold what is cited, in that version, and a question with a note of degradation."""

    async def work() -> None:
        for versions in ({}, {SILENT: "v1"}, {CITED: "v0", SILENT: "v1"}):
            await local.admit(versions=versions)
        notes = Notes()
        notes.add("rewrite", "timeout")
        await local.admit(notes=notes)
        assert await local.found() == set()

    local.run(work)


def test_a_conversation_is_found_by_itself_only(bench: Bench) -> None:
    """With a history the same words mean something else: exact, and only after the same history."""

    async def work() -> None:
        await bench.admit(history_digest="h1")
        assert await bench.found(history="h1") == {"exact"}
        assert await bench.found(history="h2") == set() == await bench.found()

    bench.run(work)


def test_near_is_not_enough(local: Bench) -> None:
    """Another number, a "not" or another subject is another question, however near; and near has a limit."""

    async def work() -> None:
        await local.admit(question="How do I drain 3 nodes?")
        for other in ("How do I drain 4 nodes?", "How do I not drain 3 nodes?", "How do I label 3 nodes?"):
            assert await local.answers.semantic("s", other, VECTOR, Notes()) is None
            assert await local.answers.nearest_by_words("s", other, Notes()) is None
        assert await local.answers.semantic("s", "How can I drain three nodes?", NEAR, Notes()) is not None
        assert await local.answers.semantic("s", "How can I drain three nodes?", unit(1, 32, 5)[0], Notes()) is None

    local.run(work)


def test_the_nearest_that_agrees_is_found_behind_one_that_does_not(local: Bench) -> None:
    """Four neighbours are looked at."""

    async def work() -> None:
        for n in range(2, 5):
            await local.admit(question=f"How do I drain {n} nodes?", vector=VECTOR)
        await local.admit(question="How do I drain 9 nodes?", vector=NEAR)
        assert await local.answers.semantic("s", "How can I drain nine nodes?", VECTOR, Notes()) is not None

    local.run(work)


def test_semantic_can_be_switched_off(settings: Settings) -> None:
    """A threshold above one; exact hits go on."""
    ledger = open_ledger(settings)
    off = Settings.from_env({"RAG_HOME": str(settings.home), "RAG_SEMANTIC_THRESHOLD": "1.01"})
    bench = Bench(InProcessCache(10, 10, 2**20), ledger, off)

    async def work() -> None:
        await bench.admit()
        assert "semantic" not in await bench.found() and "exact" in await bench.found()

    bench.run(work)
    ledger.close()


def test_no_cache(settings: Settings) -> None:
    """``RAG_CACHE=none`` finds nothing, keeps nothing and is no degradation."""
    ledger = open_ledger(settings)
    bench = Bench(None, ledger, settings)

    async def work() -> None:
        assert not await bench.admit()
        await bench.answers.keep_vector("e", QUESTION, VECTOR, Notes())
        assert await bench.answers.question_vector("e", QUESTION, Notes()) is None
        assert await bench.found() == set()

    bench.run(work)
    ledger.close()


def test_question_vectors(bench: Bench) -> None:
    """By embedder and question, to the bit; what is no vector is absent."""

    async def work() -> None:
        notes = Notes()
        await bench.answers.keep_vector("e1", QUESTION, VECTOR, notes)
        found = await bench.answers.question_vector("e1", QUESTION, notes)
        assert found is not None and found.dtype == np.float32
        np.testing.assert_array_equal(found, VECTOR)
        assert await bench.answers.question_vector("e2", QUESTION, notes) is None
        assert await bench.answers.question_vector("e1", WORDING, notes) is None
        for bad in (VECTOR * 0, VECTOR * 3, np.full(32, np.nan, np.float32)):
            await bench.answers.keep_vector("e1", QUESTION, bad, notes)
            assert await bench.answers.question_vector("e1", QUESTION, notes) is None
        assert not notes

    bench.run(work)


@given(st.binary(max_size=300))
@hypothesis_settings(max_examples=200, deadline=None)
def test_any_bytes_in_an_entry_are_a_miss(raw: bytes) -> None:
    """What another version of the program wrote is removed, not a crash."""

    class OneValue(InProcessCache):
        async def get(self, key: str) -> bytes | None:
            return raw

    cache = OneValue(10, 10, 2**20)
    notes = Notes()
    answers = AnswerCache(cache, CacheGuard(cache), None, Settings())  # type: ignore[arg-type]
    assert asyncio.run(answers.exact("s", QUESTION, "", notes)) is None
    assert not notes


def test_a_member_without_its_entry_is_forgotten(bench: Bench) -> None:
    """An entry that was evicted does not leave a name behind that is looked up for ever."""

    async def work() -> None:
        cache = bench.cache
        assert cache is not None
        await cache.remember("q1:s", "a1:gone", VECTOR, ttl_s=1000)
        assert await bench.answers.semantic("s", QUESTION, VECTOR, Notes()) is None
        assert await cache.nearest("q1:s", VECTOR) == []

    bench.run(work)


def test_a_frozen_redis_costs_its_timeout_once(settings: Settings) -> None:
    """Of many questions at once and many after them, all together wait for it once; each says so; nobody's
    question is needed for it to come back."""
    binary = redis_server.plain_binary()
    if binary is None:
        pytest.skip("no redis-server here")
    ledger = open_ledger(settings)
    with redis_server.running(binary) as server:
        bench = Bench(RedisCache(RedisSettings(url=server.url)), ledger, settings)

        async def ask() -> Notes:
            notes = Notes()
            for look in (
                lambda: bench.answers.exact("s", QUESTION, "", notes),
                lambda: bench.answers.question_vector("e", QUESTION, notes),
                lambda: bench.answers.semantic("s", QUESTION, VECTOR, notes),
            ):
                assert await look() is None
            return notes

        async def healthy() -> None:
            async with asyncio.timeout(60):
                while True:
                    notes = Notes()
                    await bench.answers.keep_vector("e", QUESTION, VECTOR, notes)
                    if not notes:
                        return
                    await asyncio.sleep(0.02)

        async def frozen() -> tuple[float, float]:
            """Seconds of fifty questions at once, and of fifty one after the other."""
            await healthy()
            server.freeze()
            try:
                started = time.monotonic()
                together = await asyncio.gather(*(ask() for _ in range(50)))
                between = time.monotonic()
                later = [await ask() for _ in range(50)]
                ended = time.monotonic()
                await bench.admit()
            finally:
                server.thaw()
            for notes in [*together, *later]:
                assert [(d.stage, d.reason) for d in notes.as_list()] == [("cache", "DependencyTimeout")]
            async with asyncio.timeout(30):
                while bench.guard.error is not None:
                    await asyncio.sleep(0.02)
            await healthy()
            return between - started, ended - between

        async def work() -> None:
            taken = [await frozen() for _ in range(3)]  # another process may have had the processor meanwhile
            assert any(together < 0.2 + 0.25 and later < 0.2 for together, later in taken), taken

        bench.run(work)
    ledger.close()


class Flaky:
    """A shared cache that hangs or fails on demand."""

    shared = True

    def __init__(self) -> None:
        self.broken, self.calls, self.pings = False, 0, 0
        self.hang: asyncio.Event | None = None

    async def get(self, key: str) -> bytes | None:
        self.calls += 1
        if self.hang is not None:
            await self.hang.wait()
        if self.broken:
            raise DependencyTimeout("cache:flaky", "down")
        return None

    async def ping(self) -> None:
        self.pings += 1
        if self.broken:
            raise DependencyError("cache:flaky", "down")


def test_the_guard_lets_go_of_those_in_flight() -> None:
    """One failure frees everybody who waits, at once, and nobody is sent there again until a probe succeeds."""

    async def work() -> None:
        cache = Flaky()
        guard = CacheGuard(cache, first_pause_s=0.01, max_pause_s=0.02)  # type: ignore[arg-type]
        cache.hang = asyncio.Event()
        waiting = [asyncio.create_task(guard.call(lambda: cache.get("k"))) for _ in range(20)]
        while cache.calls < 20:
            await asyncio.sleep(0)
        cache.hang, cache.broken = None, True
        with pytest.raises(DependencyTimeout):
            await guard.call(lambda: cache.get("k"))
        done, pending = await asyncio.wait(waiting, timeout=20)
        assert not pending and all(isinstance(t.exception(), DependencyTimeout) for t in done)
        calls = cache.calls
        for _ in range(5):
            with pytest.raises(DependencyTimeout):
                await guard.call(lambda: cache.get("k"))
        assert cache.calls == calls and guard.error is not None
        async with asyncio.timeout(20):
            while cache.pings < 3:
                await asyncio.sleep(0.005)
            cache.broken = False
            while guard.error is not None:
                await asyncio.sleep(0.005)
        assert await guard.call(lambda: cache.get("k")) is None
        await guard.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(work())


def test_the_guard_passes_a_caller_s_own_cancellation_on() -> None:
    """A question that is given up says nothing about the cache; a bug is no outage."""

    async def work() -> None:
        cache = Flaky()
        guard = CacheGuard(cache)  # type: ignore[arg-type]
        cache.hang = asyncio.Event()
        task = asyncio.create_task(guard.call(lambda: cache.get("k")))
        while not cache.calls:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await guard.call(lambda: cache.get("k"))

        async def bug() -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await guard.call(bug)
        assert guard.error is None
        await guard.aclose()

    asyncio.run(work())


def test_the_guard_probes_from_whichever_loop_runs() -> None:
    """An event loop that ended with the cache down does not leave it down for the next one."""
    cache = Flaky()
    guard = CacheGuard(cache, first_pause_s=0.01)  # type: ignore[arg-type]
    cache.broken = True

    async def fail() -> None:
        with pytest.raises(DependencyTimeout):
            await guard.call(lambda: cache.get("k"))

    asyncio.run(fail())
    cache.broken = False

    async def recover() -> None:
        async with asyncio.timeout(20):
            while True:
                try:
                    return await guard.call(lambda: cache.get("k"))
                except DependencyError:
                    await asyncio.sleep(0.01)

    asyncio.run(recover())


def test_the_words_threshold_needs_most_words() -> None:
    """Questions that share a subject but not most words are no neighbours by words."""
    a: Vector | None = word_vector("How do I drain a node?")
    b: Vector | None = word_vector("Which taints does a drained node get from the scheduler?")
    assert a is not None and b is not None and float(a @ b) < _WORDS_THRESHOLD
