"""The query pipeline on one given release, to measure it: the steps, models and permissions of live questions, and
nothing of what surrounds those. No answer cache, no query log, no traces, no metrics of live traffic.

An answer that was made without one of its parts says nothing about the release, so none is returned: it is tried
again, and then it is an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from rag_platform import metrics
from rag_platform.backends.embedders.base import Embedder
from rag_platform.backends.vector_stores.base import VectorStore
from rag_platform.errors import ConfigurationError, DependencyError, DependencyTimeout, QuotaExhausted, RagError
from rag_platform.ledger import Ledger
from rag_platform.ledger.releases import Release
from rag_platform.query.answer import Answer, Degradation
from rag_platform.query.cache import AnswerCache
from rag_platform.query.closing import in_time
from rag_platform.query.deadline import Clock
from rag_platform.query.embedders import embedder_of
from rag_platform.query.freshness import Freshness
from rag_platform.query.opening import fingerprints, open_parts
from rag_platform.query.passage import Passage
from rag_platform.query.pipeline import Run
from rag_platform.query.question import MAX_DEADLINE_S, Question
from rag_platform.query.release_stores import ReleaseStores
from rag_platform.query.retrieve import Legs
from rag_platform.query.scope import scope
from rag_platform.records import Hit, Principal
from rag_platform.settings import Settings
from rag_platform.tracing import Tracing

SLACK = 5.0
"""Times its budget, what a stage may take: a reader would rather have a worse answer now, a measurement on a busy
machine would not."""
RETRY_PAUSES_S = (1.0, 4.0)
"""Before each further attempt at a question."""
NEVER = sys.maxsize
"""Failures that open a breaker: a reader is better off with a degraded answer at once, a measurement is not, and one
question that fails must not keep the others from being asked."""
PING_TIMEOUT_S = 10.0
WARM_UP_TIMEOUT_S = 60.0
VERSIONS_TIMEOUT_S = 5.0

OWN_FAULT = frozenset({"ungrounded", "truncated", "RequestRefused", "EmbeddingRefused"})
"""Reasons of degradations that belong to the question: asked again, it would come to the same."""


class NotAnswered(RagError):
    """One question could not be answered with all parts, again and again, although every part works."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a question.

    Attributes:
        hits: the whole ranking, best first, as the answer was made from it.
        passages: what the generator was given; empty when only retrieval was asked for.
        answer: None when only retrieval was asked for.
        total_ms: wall time in milliseconds.
        usd: None when a price is unknown.
        legs: what each leg found, best first; one that was not searched is absent.
    """

    hits: tuple[Hit, ...]
    passages: tuple[Passage, ...]
    answer: Answer | None
    total_ms: float
    usd: float | None
    legs: Legs = field(default_factory=dict)


class OfflineQueries:
    """Asks questions of one release. Connects to nothing before ``start``.

    Args:
        settings: the platform's; where they name another embedder or store than the release's, the release wins.
        stores: vector stores of the caller's, by name.

    Raises:
        ConfigurationError: the release cannot be asked here, such as for want of its embedder.
    """

    def __init__(
        self, settings: Settings, ledger: Ledger, release: Release, *, stores: Mapping[str, VectorStore] | None = None
    ) -> None:
        self.release = release
        self._settings = dataclasses.replace(settings, vector_store=release.store)
        freshness = Freshness(ledger, timeout_s=VERSIONS_TIMEOUT_S)
        self._stores = ReleaseStores(self._settings, freshness.versions, stores, failures=NEVER)
        no_cache = AnswerCache(None, None, freshness, self._settings)
        embedder: Embedder = embedder_of(release, settings)
        self._parts = open_parts(self._settings, no_cache, Tracing.off, embedder=embedder, failures=NEVER)
        self._fingerprints = fingerprints(self._parts, release)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """What decides the answers beside the index, the question and its profile: models, prompts, fusion."""
        return self._fingerprints

    async def start(self) -> None:
        """Load the models and open the store.

        Raises:
            DependencyError: something that questions need does not work.
        """
        with metrics.offline():
            if self._parts.llm is not None:
                await asyncio.to_thread(self._parts.prices.load)
            await self.ping(WARM_UP_TIMEOUT_S)

    async def ping(self, timeout_s: float = PING_TIMEOUT_S) -> None:
        """Raise ``DependencyError`` when something that questions need does not work now."""
        p = self._parts
        parts: dict[str, Callable[[], Awaitable[Any]]] = {
            "vector_store": self._stores.ping,
            "embedder": p.embedder.ping,
            "token_encoder": lambda: p.encoder.encode(["ping"]),
        }
        optional: Mapping[str, Any] = {"keyword_replica": self._stores.replica(), "llm": p.llm, "reranker": p.reranker}
        parts |= {name: part.ping for name, part in optional.items() if part is not None}
        for name, ping in parts.items():
            try:
                async with asyncio.timeout(timeout_s):
                    await ping()
            except TimeoutError as e:
                raise DependencyTimeout(name, f"no answer within {timeout_s:g} s") from e

    def question(self, text: str, principal: Principal) -> Question:
        """Return a question as ``ask`` wants it: the profile of the settings, no cache, and time enough.

        Raises:
            ValueError: the text is empty or too long.
        """
        return Question(
            text=text,
            principal=principal,
            request_id=uuid.uuid4().hex,
            profile_name=self._settings.profile,
            deadline_s=MAX_DEADLINE_S,
            use_cache=False,
        )

    async def ask(self, question: Question) -> Outcome:
        """Answer a question with everything that its profile asks for.

        Raises:
            DependencyError: a dependency is down.
            NotAnswered: none is, and still this question got no such answer.
        """
        return await self._measured(question, self._answer)

    async def retrieve(self, question: Question) -> Outcome:
        """Return what an answer would rest on; raises as ``ask``."""
        return await self._measured(question, self._retrieve)

    async def aclose(self) -> None:
        """Close everything that was opened here, each part for a bounded time."""
        p = self._parts
        for part in (p.embedder, self._stores, p.encoder, p.llm, p.reranker):
            if part is not None:
                await in_time(part.aclose())

    # ── inner workings ──

    async def _measured(
        self, question: Question, ask: Callable[[Question], Awaitable[tuple[Outcome, Faults]]]
    ) -> Outcome:
        why: RagError | None = None
        with metrics.offline():
            for pause in (*RETRY_PAUSES_S, None):
                try:
                    outcome, faults = await ask(dataclasses.replace(question, use_cache=False))
                except QuotaExhausted:
                    raise
                except (DependencyError, TimeoutError) as e:
                    why = e if isinstance(e, DependencyError) else DependencyTimeout("query", "no answer in time")
                else:
                    if not faults:
                        return outcome
                    why = NotAnswered(", ".join(f"{d.stage}: {d.reason}" for d in faults))
                if pause is not None:
                    await asyncio.sleep(pause)
            await self.ping()
        raise NotAnswered(str(why)) from why

    async def _answer(self, question: Question) -> tuple[Outcome, Faults]:
        clock = _Unhurried(question.deadline_s or question.profile.deadline_s)
        async with self._run(question, clock) as run:
            answer = await run.answer()
        answer = msgspec.structs.replace(answer, timings_ms={**answer.timings_ms, "total": round(clock.elapsed_ms, 3)})
        outcome = Outcome(tuple(run.hits), tuple(run.passages), answer, clock.elapsed_ms, answer.cost_usd, run.legs)
        return outcome, _faults(run)

    async def _retrieve(self, question: Question) -> tuple[Outcome, Faults]:
        clock = _Unhurried(question.deadline_s or question.profile.deadline_s)
        async with self._run(question, clock) as run:
            found = await run.retrieve()
        return Outcome(tuple(found.hits), (), None, clock.elapsed_ms, run.spending.usd, found.legs), _faults(run)

    @contextlib.asynccontextmanager
    async def _run(self, question: Question, clock: Clock) -> AsyncIterator[Run]:
        where = scope(question, self.release.release_id, self._fingerprints)
        async with asyncio.timeout(clock.left):
            with self._stores.use(self.release) as index:
                yield Run(self._parts, question, index, where, clock, lambda _: None)


Faults = list[Degradation]


class _Unhurried(Clock):
    def budget(self, stage_s: float) -> float:
        return super().budget(SLACK * stage_s)


def _faults(run: Run) -> Faults:
    """What of the pipeline did not do its part for a reason outside the question.

    Raises:
        ConfigurationError: the embedder is not the one that made the index.
        QuotaExhausted: no other question would fare better.
    """
    notes = run.notes.as_list()
    for note in notes:
        if note.reason == QuotaExhausted.__name__:
            raise QuotaExhausted(note.stage, "its quota is used up")
    if any(d.reason == "embedder_mismatch" for d in notes):
        raise ConfigurationError("the index was made by another embedder: see RAG_EMBEDDER and its settings")
    return [d for d in notes if d.reason not in OWN_FAULT]
