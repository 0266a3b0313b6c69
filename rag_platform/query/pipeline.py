"""How a question is answered, from top to bottom. One file a step; this one only puts them in order, gives
each its share of the time, and decides what a failed step means.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rag_platform import metrics, semconv
from rag_platform.backends.embedders.base import Embedder
from rag_platform.backends.guard import Guard
from rag_platform.backends.llms.base import LLM
from rag_platform.backends.prices import PriceBook
from rag_platform.backends.rerankers.base import Reranker
from rag_platform.backends.token_encoder import TokenEncoder
from rag_platform.errors import DependencyError, RagError
from rag_platform.query import citations, compress, extract, generate, multi_query, rerank, rewrite
from rag_platform.query.answer import Answer, CacheState, Citation, Mode
from rag_platform.query.cache import AnswerCache
from rag_platform.query.deadline import Clock
from rag_platform.query.degrade import Notes
from rag_platform.query.events import Emit, Passages, StageDone, TextDelta
from rag_platform.query.extract import REFUSAL, Extractor
from rag_platform.query.passage import Passage
from rag_platform.query.question import Question
from rag_platform.query.release_stores import ReleaseIndex
from rag_platform.query.retrieve import LEGS, Legs, Retrieval, Vector, ranked
from rag_platform.query.search import Search
from rag_platform.query.spending import Spending
from rag_platform.records import Hit, SearchMode
from rag_platform.settings import Settings
from rag_platform.tracing import Span, Tracing

RESERVE_S = 0.25
"""Kept back from the generator, so that extracts can still be found when it does not answer."""
NOT_GENERATED = "No answer could be generated now. The passages that fit the question best say:"


@dataclass(frozen=True)
class Parts:
    """What answers are made with, beside the index. ``llm`` None: quotes only; ``reranker`` None: the fused
    order."""

    settings: Settings
    embedder: Embedder
    encoder: TokenEncoder
    extractor: Extractor
    llm: LLM | None
    reranker: Reranker | None
    cache: AnswerCache
    prices: PriceBook
    tracing: Tracing
    replica_guard: Guard
    embedder_guard: Guard


@dataclass(frozen=True, slots=True)
class Found:
    """What retrieval found, ``hits`` best first."""

    hits: list[Hit]
    legs: Legs
    mode: SearchMode


class Run:
    """One question on its way. Makes an ``Answer``, and knows afterwards what it cost and rests on."""

    def __init__(self, parts: Parts, question: Question, index: ReleaseIndex, scope: str, clock: Clock, emit: Emit):
        self._parts, self._q, self._index, self._scope = parts, question, index, scope
        self._clock, self._emit = clock, emit
        self.notes = Notes()
        self.spending = Spending(parts.prices)
        self.hits: list[Hit] = []
        self.legs: Legs = {}
        self.passages: list[Passage] = []
        self._mode: Mode = "full"

    # ── the order of things ──

    async def answer(self) -> Answer:
        """
        Raises:
            DependencyError: nothing could be retrieved in any way.
        """
        text = await self._standalone()
        vector = await self._vector(text)
        known = await self._known_answer(text, vector)
        if known is not None:
            return known
        found = await self._retrieve(await self._wordings(text, vector))
        self.legs = found.legs
        if not found.hits:
            metrics.EMPTY_RETRIEVALS.inc()
            return self._finished(REFUSAL, [], refused=True)
        self.hits = await self._rerank(text, found)
        self.passages = passages = self._compress(self.hits)
        self._emit(Passages([p.hit.title for p in passages], [p.hit.uri for p in passages]))
        answer = await self._generate(text, passages)
        await self._keep(text, vector, answer, passages)
        return answer

    async def retrieve(self) -> Retrieval:
        """Return what an answer would rest on; raises as ``answer``."""
        text = await self._standalone()
        found = await self._retrieve([(text, await self._vector(text))])
        hits = await self._rerank(text, found)
        return Retrieval(hits, found.mode, {}, tuple(self.notes.as_list()), found.legs)

    # ── the steps ──

    async def _standalone(self) -> str:
        """The question as it would be asked without the conversation before it."""
        q, llm = self._q, self._parts.llm
        if not q.history:
            return q.normalised
        if llm is not None and q.profile.rewrite:
            with self._stage("rewrite", "chat"):
                try:
                    rewritten, usage = await rewrite.rewrite(
                        llm, q.normalised, q.history, timeout_s=self._clock.budget(q.profile.rewrite_s)
                    )
                    self.spending.llm(llm.spec, usage)
                    return rewritten
                except DependencyError as e:
                    self.notes.add("rewrite", e)
        return rewrite.joined(q.normalised, q.history)

    async def _vector(self, text: str) -> Vector | None:
        p, q = self._parts, self._q
        if "vector" not in LEGS[q.mode]:
            return None
        spec = p.embedder.spec
        if self._index.release.pipeline["embedder"]["fingerprint"] != spec.fingerprint:
            self.notes.add("embed", "embedder_mismatch")  # its vectors would mean nothing to this index
            return None
        known = await p.cache.question_vector(spec.fingerprint, text, self.notes)
        metrics.CACHE_LOOKUPS.labels("vector", "miss" if known is None else "hit").inc()
        if known is not None:
            return known
        with self._stage("embed", "embeddings") as span:
            try:
                batch = await p.embedder_guard.call(
                    lambda left: p.embedder.embed([text], kind="query", timeout_s=left),
                    self._clock.budget(q.profile.embed_s),
                )
            except RagError as e:  # down, refused, or a local model that cannot be opened
                self.notes.add("embed", e)
                return None
            span.set({semconv.REQUEST_MODEL: spec.model, semconv.INPUT_TOKENS: batch.tokens})
        self.spending.embedding(spec, batch.tokens)
        vector: Vector = np.ascontiguousarray(batch.vectors[0])
        await p.cache.keep_vector(spec.fingerprint, text, vector, self.notes)
        return vector

    async def _known_answer(self, text: str, vector: Vector | None) -> Answer | None:
        """An earlier answer to another wording; by words alone when meaning cannot be compared."""
        p, q = self._parts, self._q
        if not q.use_cache or q.mode == "keyword":
            return None
        with self._stage("semantic_cache"):
            if vector is not None:
                found = await p.cache.semantic(self._scope, text, vector, self.notes)
                kind = "semantic"
            else:
                found = await p.cache.nearest_by_words(self._scope, text, self.notes)
                kind = "words"
        metrics.CACHE_LOOKUPS.labels(kind, "miss" if found is None else "hit").inc()
        if found is None:
            return None
        if kind == "words":
            self._mode = "cached"
        return self._finished(found.answer, found.citations, refused=False, cache="semantic", generator=found.generator)

    async def _wordings(self, text: str, vector: Vector | None) -> list[tuple[str, Vector | None]]:
        p, q = self._parts, self._q
        known: list[tuple[str, Vector | None]] = [(text, vector)]
        if p.llm is None or not q.profile.multi_query:
            return known
        with self._stage("multi_query", "chat"):
            try:
                more, usage = await multi_query.wordings(
                    p.llm, text, q.profile.multi_query, timeout_s=self._clock.budget(q.profile.rewrite_s)
                )
                self.spending.llm(p.llm.spec, usage)
                if vector is None or not more:
                    return known + [(wording, None) for wording in more]
                batch = await p.embedder_guard.call(
                    lambda left: p.embedder.embed(more, kind="query", timeout_s=left),
                    self._clock.budget(q.profile.embed_s),
                )
                self.spending.embedding(p.embedder.spec, batch.tokens)
            except RagError as e:  # down, refused, or a local model that cannot be opened
                self.notes.add("multi_query", e)
                return known
        return known + list(zip(more, batch.vectors, strict=True))

    async def _retrieve(self, wordings: Sequence[tuple[str, Vector | None]]) -> Found:
        """Search the store; by words alone where the question has no vector; in the replica where the store
        does not answer."""
        p, q = self._parts, self._q
        mode: SearchMode = q.mode
        if "vector" in LEGS[mode] and wordings[0][1] is None:
            mode, self._mode = "keyword", "keyword_only"
        with self._stage("search", "retrieval") as span:
            search = Search(self._index, q, self._clock, self.notes, p.replica_guard)
            mode, legs = await search.legs(mode, wordings)
            if "vector_store" in self.notes:
                self._mode = "keyword_only"
            hits = ranked(legs, p.settings, max(q.profile.candidates, q.profile.k))
            span.set({semconv.HITS: len(hits), semconv.CHUNK_IDS: [h.chunk_id for h in hits[:20]]})
        return Found(hits, legs, mode)

    async def _rerank(self, text: str, found: Found) -> list[Hit]:
        p, q = self._parts, self._q
        wanted = q.profile.rerank if q.rerank is None else q.rerank
        if p.reranker is None or not wanted:
            return found.hits
        depth = q.profile.rerank_depth or 20
        with self._stage("rerank", "rerank") as span:
            span.set({semconv.REQUEST_MODEL: p.reranker.spec.model, semconv.CANDIDATES: min(depth, len(found.hits))})
            try:
                hits = await rerank.rerank(
                    p.reranker,
                    text,
                    found.hits,
                    found.legs,
                    depth=depth,
                    timeout_s=self._clock.budget(q.profile.rerank_s),
                )
            except RagError as e:  # down, or a local model that cannot be opened
                self.notes.add("reranker", e)
                return found.hits
            self.spending.rerank(p.reranker.spec)
        return hits

    def _compress(self, hits: Sequence[Hit]) -> list[Passage]:
        q = self._q
        with self._stage("compress"):
            return compress.compress(
                hits, self._parts.embedder.tokenizer, k=q.k or q.profile.k, token_budget=q.profile.context_tokens
            )

    async def _generate(self, text: str, passages: Sequence[Passage]) -> Answer:
        llm = self._parts.llm
        if llm is None:
            return await self._quote(text, passages)
        q = self._q
        with self._stage("generate", "chat") as span:
            span.set({semconv.REQUEST_MODEL: llm.spec.model, semconv.PROVIDER: llm.spec.provider})
            try:
                draft = await generate.generate(
                    llm,
                    text,
                    q.history,
                    passages,
                    max_tokens=q.max_answer_tokens or q.profile.answer_tokens,
                    timeout_s=max(0.0, self._clock.left - RESERVE_S),
                    on_text=self._on_text,
                )
            except DependencyError as e:
                self.notes.add("llm", e)
                return await self._extracts(text, passages)
            if draft.usage is not None:
                span.set(
                    {
                        semconv.INPUT_TOKENS: draft.usage.prompt_tokens,
                        semconv.OUTPUT_TOKENS: draft.usage.completion_tokens,
                    }
                )
            span.set({semconv.RESPONSE_MODEL: draft.model, semconv.FINISH_REASONS: [draft.finish]})
            span.content(semconv.OUTPUT_MESSAGES, draft.text)
        self.spending.llm(llm.spec, draft.usage)
        with self._stage("verify"):
            verified = citations.verify(draft.text, passages)
        if verified.refused:
            return self._finished(REFUSAL, [], refused=True, generator=draft.model)
        if not verified.grounded:
            self.notes.add("llm", "ungrounded")
            return await self._extracts(text, passages)
        if draft.finish != "stop":
            self.notes.add("llm", "truncated")
        return self._finished(verified.answer, verified.citations, refused=False, generator=draft.model)

    async def _quote(self, text: str, passages: Sequence[Passage]) -> Answer:
        """The keyless generator: the best supported sentences, word for word."""
        with self._stage("generate"):
            found = await self._parts.extractor.extract(
                text, passages, timeout_s=max(0.05, self._clock.left - RESERVE_S)
            )
        if found.by_words:
            self.notes.add("extract", "by_words")
        if not found.supported:
            return self._finished(REFUSAL, [], refused=True)
        answer, cited = extract.compose(found, passages)
        self._emit(TextDelta(answer))
        return self._finished(answer, cited, refused=False)

    async def _extracts(self, text: str, passages: Sequence[Passage]) -> Answer:
        """What to say when no answer was generated: that, and the best extracts."""
        self._mode = "context_only"
        with self._stage("extract"):
            answer, cited = extract.compose(extract.extract_by_words(text, passages), passages, opening=NOT_GENERATED)
        return self._finished(answer, cited, refused=False)

    async def _keep(self, text: str, vector: Vector | None, answer: Answer, passages: Sequence[Passage]) -> None:
        q = self._q
        if not q.use_cache or self.notes or answer.refused or answer.mode != "full":
            return
        versions = {p.hit.document_id: p.hit.version_id for p in passages}
        await self._parts.cache.admit(self._scope, q.normalised, q.history_digest, vector, answer, versions, self.notes)

    # ── around them ──

    def _on_text(self, text: str) -> None:
        if text:
            self._emit(TextDelta(text))

    def _finished(
        self,
        text: str,
        cited: list[Citation],
        *,
        refused: bool,
        cache: CacheState = "miss",
        generator: str = "extractive",
    ) -> Answer:
        return Answer(
            request_id=self._q.request_id,
            answer=text,
            citations=cited,
            mode=self._mode,
            generator=generator,
            degraded=self.notes.as_list(),
            cache=cache,
            refused=refused,
            usage=self.spending.usage,
            cost_usd=self.spending.usd,
            timings_ms=dict(self._clock.timings_ms),
            release_id=self._index.release.release_id,
            profile=self._q.profile_name,
        )

    @contextlib.contextmanager
    def _stage(self, name: str, operation: str | None = None) -> Iterator[Span]:
        before = self._clock.timings_ms.get(name, 0.0)
        try:
            with self._clock.stage(name), self._parts.tracing.span(name, operation) as span:
                yield span
        finally:
            spent = self._clock.timings_ms[name] - before
            metrics.STAGE_SECONDS.labels(name).observe(spent / 1000)
            self._emit(StageDone(name, round(spent, 3)))
