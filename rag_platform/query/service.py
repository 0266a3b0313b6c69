"""The query service: everything that answering needs, opened lazily, kept open, closed once.

Nothing here needs a dependency to be up in order to start. What is down is declared in the answer, or by
``ready``.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec

from rag_platform import identity, metrics, semconv
from rag_platform.backends.embedders.base import Embedder
from rag_platform.backends.vector_stores.base import VectorStore
from rag_platform.errors import DependencyError, DependencyTimeout, RagError
from rag_platform.ledger import Ledger, open_ledger
from rag_platform.ledger.feedback import FeedbackRow
from rag_platform.ledger.releases import Release
from rag_platform.query import accounting
from rag_platform.query.answer import Answer, Usage
from rag_platform.query.cache import AnswerCache, CacheGuard
from rag_platform.query.citing import CitedSpan, DocumentText, address, in_document
from rag_platform.query.closing import in_time
from rag_platform.query.deadline import Clock
from rag_platform.query.degrade import Notes
from rag_platform.query.events import Emit, Event, Final, relay
from rag_platform.query.flights import Flights
from rag_platform.query.freshness import Freshness
from rag_platform.query.log import QueryLog
from rag_platform.query.opening import fingerprints, open_cache, open_parts
from rag_platform.query.pipeline import Parts, Run
from rag_platform.query.question import Question
from rag_platform.query.readiness import PING_TIMEOUT_S, Check, Readiness
from rag_platform.query.release_embedders import ReleaseEmbedders
from rag_platform.query.release_stores import ReleaseIndex, ReleaseStores
from rag_platform.query.releases import ReleaseWatch
from rag_platform.query.retrieve import Retrieval
from rag_platform.query.scope import scope
from rag_platform.records import Hit, Principal
from rag_platform.settings import Settings
from rag_platform.tracing import Tracing

GRACE_S = 0.1
"""A question that ends on its own account just after its deadline still counts as in time (P7 allows 0.25)."""
LEDGER_TIMEOUT_S = 5.0
WARM_UP_S = 10.0
REPLICA_CHECK_S = 1.0
"""For the look at the ledger without which nothing of the keyword replica is shown."""
LOGGED_HITS = 20
"""Of what an answer was made from, how much the query log keeps: what a replay compares."""

T = TypeVar("T")


class Unanswerable(DependencyError):
    """No answer of any kind can be given now; worth asking again in ``retry_after_s``."""

    def __init__(self, reason: str, retry_after_s: float = 2.0) -> None:
        super().__init__("query", reason, retry_after_s=retry_after_s)


class QueryService:
    """Answers questions from the serving release of one RAG_HOME.

    Args:
        settings: the platform's settings.
        ledger: theirs, where the caller has opened it; closed with the service.
        document_text: looks up whole documents for ``citation``; without it a citation shows its chunk alone.
        stores: vector stores of the caller's, by name, beside those that names in releases mean.
        embedder: one of the caller's, for the releases that it fits.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        ledger: Ledger | None = None,
        document_text: DocumentText | None = None,
        stores: Mapping[str, VectorStore] | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        self.settings = settings
        self.ledger = ledger or open_ledger(settings, lazy=True)
        self.query_log = QueryLog(self.ledger, settings)
        self._ledger_threads = ThreadPoolExecutor(2, "ledger")
        self._document_text = document_text
        versions = Freshness(self.ledger, timeout_s=REPLICA_CHECK_S).versions
        self._stores = ReleaseStores(settings, versions, stores)
        self._embedders = ReleaseEmbedders(settings, embedder)
        self._releases = ReleaseWatch(self.ledger, settings.release_poll_s, self._switch)
        self._flights: Flights[Event] = Flights()
        self._cache = open_cache(settings)
        self._cache_guard = None if self._cache is None else CacheGuard(self._cache)
        answers = AnswerCache(self._cache, self._cache_guard, Freshness(self.ledger), settings)
        # What embeds is chosen for each question, by its release: see ``_using``.
        self._parts = open_parts(settings, answers, Tracing.from_settings(settings), embedder=self._embedders.named)
        self._readiness = Readiness(self._checks)
        self._warming: asyncio.Task[None] | None = None

    # ── life ──

    async def start(self) -> None:
        """Begin to load models and open stores, in the background. Questions that come before that is done wait
        for it a while: what has not been loaded yet is not a dependency that is down."""
        self.query_log.start()
        self._warming = asyncio.create_task(self._warm_up())

    async def _warm_up(self) -> None:
        p = self._parts
        checks: list[Awaitable[Any]] = [self._warm_release(), p.encoder.encode(["warm up"])]
        checks += [part.ping() for part in (p.reranker, p.llm) if part is not None]
        if p.llm is not None:
            checks.append(asyncio.to_thread(p.prices.load))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WARM_UP_S):
                await asyncio.gather(*checks, return_exceptions=True)  # what fails here is said by ``ready``

    async def _warm_release(self) -> None:
        with contextlib.suppress(RagError):
            await self._releases.serving(WARM_UP_S)
        await asyncio.gather(self._stores.warm_up(), self._embedders.warm_up())

    async def _switch(self, before: Release | None, release: Release) -> None:
        await self._embedders.prepare(before, release)
        await self._stores.switch(before, release)
        self._embedders.switch(release)

    async def _warm(self, clock: Clock) -> None:
        """Wait for the warm-up, for at most half of the question's time."""
        if self._warming is not None and not self._warming.done():
            with clock.stage("warm_up"):
                await asyncio.wait([self._warming], timeout=max(0.0, clock.left / 2))

    async def aclose(self) -> None:
        """Write what is still to be logged and close everything, each for a bounded time."""
        if self._warming is not None and not self._warming.done():
            self._warming.cancel()
            await asyncio.wait([self._warming])
        p = self._parts
        await self._releases.aclose()
        await self._flights.aclose()
        if self._cache_guard is not None:
            await self._cache_guard.aclose()
        closing: list[Any] = [self._embedders, self._stores, p.encoder, p.llm, p.reranker, self._cache]
        async with asyncio.TaskGroup() as group:
            for part in closing:
                if part is not None:
                    group.create_task(in_time(part.aclose()))
        await asyncio.to_thread(self.query_log.close)
        await asyncio.to_thread(p.tracing.shutdown)
        self._ledger_threads.shutdown(wait=False, cancel_futures=True)
        self.ledger.close()

    # ── answering ──

    async def cached(self, question: Question) -> Answer | None:
        """Return the answer to exactly this question of this reader if it is cached and still right. Cheap: ask
        before queueing for ``answer``."""
        return await self._exact(question, first=True)

    async def _exact(self, question: Question, *, first: bool) -> Answer | None:
        """Look into the exact cache. Of two looks for one question, the second finds what somebody else's
        identical question has left there meanwhile; only the first counts as a miss."""
        if not question.use_cache:
            return None
        clock = Clock(_deadline(question))
        release = await self._release(clock)
        found = await self._parts.cache.exact(
            self._scope(question, release), question.normalised, question.history_digest, Notes()
        )
        if found is not None or first:
            metrics.CACHE_LOOKUPS.labels("exact", "miss" if found is None else "hit").inc()
        if found is None:
            return None
        answer = msgspec.structs.replace(
            found, request_id=question.request_id, timings_ms={"total": round(clock.elapsed_ms, 3)}
        )
        accounting.answered(self.query_log, question, answer, (), None)
        return answer

    async def answer(self, question: Question) -> Answer:
        """
        Raises:
            Unanswerable: the deadline passed, nothing serves, or nothing that could answer works.
        """
        found = await self._exact(question, first=False)
        return found if found is not None else await self._drive(question, lambda _: None)

    async def stream(self, question: Question) -> AsyncGenerator[Event, None]:
        """Yield what happens until the answer, which is the last event; raises as ``answer`` does."""
        found = await self._exact(question, first=False)
        if found is not None:
            yield Final(found)
            return

        async def work(emit: Emit) -> None:
            emit(Final(await self._drive(question, emit)))

        async with contextlib.aclosing(relay(work)) as events:
            async for event in events:
                yield event

    async def _drive(self, q: Question, emit: Emit) -> Answer:
        """Join or start the run of this question, within its deadline, and account for what comes of it."""
        clock = Clock(_deadline(q))
        with metrics.IN_FLIGHT.track_inprogress(), self._parts.tracing.span("query") as span:
            span.set({semconv.REQUEST_ID: q.request_id, semconv.PROFILE: q.profile_name})
            span.content(semconv.INPUT_MESSAGES, q.text)
            try:
                async with _within(clock):
                    await self._warm(clock)
                    answer, run = await self._join(q, await self._release(clock), clock, emit)
            except BaseException as e:
                accounting.failed(self.query_log, q, clock, e, span.trace_id)
                raise
            timings = {**answer.timings_ms, "total": round(clock.elapsed_ms, 3)}
            answer = msgspec.structs.replace(answer, timings_ms=timings)
            accounting.describe(span, answer)
            accounting.answered(self.query_log, q, answer, () if run is None else run.hits[:LOGGED_HITS], span.trace_id)
        return answer

    async def _join(self, q: Question, release: Release, clock: Clock, emit: Emit) -> tuple[Answer, Run | None]:
        where = self._scope(q, release)
        led: list[Run] = []

        async def work(events: Emit) -> None:
            with self._using(release) as (parts, index):
                run = Run(parts, q, index, where, clock, events)
                led.append(run)
                events(Final(await run.answer()))

        key = identity.digest(where, q.normalised, q.history_digest) if q.use_cache else None
        async with contextlib.aclosing(self._flights.join(key, lambda: relay(work))) as events:
            async for event in events:
                if isinstance(event, Final):
                    return self._own(event.answer, q), (led[0] if led else None)
                emit(event)
        raise Unanswerable("the question was given up")

    @contextlib.contextmanager
    def _using(self, release: Release) -> Iterator[tuple[Parts, ReleaseIndex]]:
        """What answers from this release are made with, held open during the block."""
        with self._embedders.use(release) as opened, self._stores.use(release) as index:
            yield dataclasses.replace(self._parts, embedder=opened.embedder, embedder_guard=opened.guard), index

    @staticmethod
    def _own(answer: Answer, q: Question) -> Answer:
        """An answer that somebody else's identical question paid for, as this question's."""
        if answer.request_id == q.request_id:
            return answer
        return msgspec.structs.replace(answer, request_id=q.request_id, usage=Usage(), cost_usd=0.0)

    async def retrieve(self, question: Question) -> Retrieval:
        """Return the passages that an answer would rest on, reranked as the profile says.

        Raises:
            Unanswerable: as ``answer``.
        """
        clock = Clock(_deadline(question))
        async with _within(clock):
            await self._warm(clock)
            release = await self._release(clock)
            with self._using(release) as (parts, index):
                run = Run(parts, question, index, self._scope(question, release), clock, lambda _: None)
                found = await run.retrieve()
        timings = {**clock.timings_ms, "total": round(clock.elapsed_ms, 3)}
        self.query_log.use(question.key_id, tokens=run.spending.usage.embedding_tokens, usd=run.spending.usd or 0.0)
        for note in run.notes.as_list():
            metrics.DEGRADED.labels(note.stage, note.reason).inc()
        k = question.k or question.profile.k
        return dataclasses.replace(found, hits=found.hits[:k], timings_ms=timings)

    # ── around it ──

    async def citation(self, chunk_id: str, principal: Principal) -> CitedSpan | None:
        """Return a chunk that ``principal`` may read, with its surroundings; None when there is none such.

        Raises:
            DependencyError: the store or the ledger failed.
        """
        release = await self._release(Clock(PING_TIMEOUT_S * 5))
        with self._stores.use(release) as index:
            hits = await self._chunk(index, chunk_id, principal)
        if not hits:
            return None
        span = await in_document(hits[0], release, self._document_text)
        with contextlib.suppress(RagError):  # worth showing without its address
            return dataclasses.replace(span, url=await self._in_ledger(lambda: address(self.ledger, hits[0])))
        return span

    async def _chunk(self, index: ReleaseIndex, chunk_id: str, principal: Principal) -> list[Hit]:
        name = index.release.index_name
        try:
            return await index.guard.call(lambda _: index.store.get(name, [chunk_id], principal), PING_TIMEOUT_S * 3)
        except KeyError:
            return []
        except DependencyError:
            replica = index.replica
            if replica is None:
                raise
            return await self._parts.replica_guard.call(
                lambda _: replica.get(index.release.release_id, [chunk_id], principal), PING_TIMEOUT_S * 3
            )

    async def feedback(self, request_id: str, rating: int, comment: str | None, key_id: str | None) -> bool:
        """Keep a thumb; a second one of the same reader replaces the first. False: no such request is logged.

        Raises:
            DependencyError: the ledger failed.
        """
        row = FeedbackRow(request_id=request_id, key_id=key_id, rating=rating, comment=comment, at=time.time())
        kept = await self._in_ledger(lambda: self.query_log.flush() and self.ledger.feedback.put(row))
        if kept:
            metrics.FEEDBACK.labels("up" if rating > 0 else "down").inc()
        return kept

    async def ready(self) -> dict[str, str]:
        """Return, for each dependency, ``ok`` or why it cannot be used. Looked at every two seconds at most."""
        return await self._readiness.look()

    def _checks(self) -> dict[str, Check]:
        p = self._parts
        optional: Mapping[str, Any] = {
            "keyword_replica": self._stores.replica(),
            "llm": p.llm,
            "reranker": p.reranker,
            "cache": self._cache,
        }
        return {
            "ledger": lambda: self._in_ledger(self.ledger.releases.serving),
            "release": lambda: self._release(Clock(PING_TIMEOUT_S)),
            "vector_store": self._stores.ping,
            "embedder": self._embedders.ping,
        } | {name: part.ping for name, part in optional.items() if part is not None}

    async def _in_ledger(self, work: Callable[[], T]) -> T:
        """Run a call of the ledger off the event loop, in threads that only such calls can fill.

        Raises:
            DependencyError: it failed, or did not answer in time.
        """
        try:
            async with asyncio.timeout(LEDGER_TIMEOUT_S):
                return await asyncio.get_running_loop().run_in_executor(self._ledger_threads, work)
        except TimeoutError as e:
            raise DependencyTimeout("ledger", f"no answer within {LEDGER_TIMEOUT_S:g} s") from e

    async def _release(self, clock: Clock) -> Release:
        release = await self._releases.serving(max(0.05, clock.left))
        if release is None:
            raise Unanswerable("nothing is indexed yet: run `rag ingest`", retry_after_s=10.0)
        return release

    def _scope(self, question: Question, release: Release) -> str:
        return scope(question, release.release_id, fingerprints(self._parts, release))


def _deadline(question: Question) -> float:
    return question.deadline_s or question.profile.deadline_s


@contextlib.asynccontextmanager
async def _within(clock: Clock) -> AsyncGenerator[None, None]:
    """Let a question's work take what is left of its deadline; every failure comes out as ``Unanswerable``."""
    try:
        async with asyncio.timeout(clock.left + GRACE_S):
            yield
    except TimeoutError as e:
        raise Unanswerable("no answer before the deadline") from e
    except Unanswerable:
        raise
    except DependencyError as e:
        raise Unanswerable("nothing that could answer works now", e.retry_after_s or 2.0) from e
