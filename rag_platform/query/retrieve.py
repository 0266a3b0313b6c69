"""Retrieval: a question and a principal in, ranked chunks out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rag_platform.backends.embedders.base import Embedder
from rag_platform.backends.vector_stores.base import Leg, SearchRequest, VectorStore
from rag_platform.backends.vector_stores.filters import Filter
from rag_platform.errors import DependencyError, EmbeddingRefused
from rag_platform.query import fuse
from rag_platform.query.answer import Degradation
from rag_platform.query.replica import agreeing
from rag_platform.records import Hit, Principal, SearchMode
from rag_platform.settings import Settings

Vector = np.ndarray[Any, np.dtype[np.float32]]

Legs = dict[Leg, Sequence[Hit]]

WordSearch = Callable[[Sequence[str], Principal, Filter | None, int], Awaitable[list[Hit]]]
"""Finds chunks by words (texts, principal, filter, depth)."""

LEGS: dict[SearchMode, tuple[Leg, ...]] = {
    "hybrid": ("vector", "keyword"),
    "vector": ("vector",),
    "keyword": ("keyword",),
}


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Ranked chunks of one question.

    Attributes:
        hits: best first; scores are comparable within this list only.
        mode: what was done; ``keyword`` for a hybrid question whose embedding failed.
        timings_ms: wall time of ``embed``, ``search`` and ``fuse`` in milliseconds.
        degraded: empty when everything that was asked for was done.
        legs: what each leg found, with its own scores.
    """

    hits: list[Hit]
    mode: SearchMode
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    degraded: tuple[Degradation, ...] = ()
    legs: Legs = field(default_factory=dict)


class Retriever:
    """Answers from ``store``, with questions embedded by ``embedder``. Holds no state of its own.

    Args:
        words: the keyword leg of a store that has none.
    """

    def __init__(
        self, store: VectorStore, embedder: Embedder, settings: Settings, words: WordSearch | None = None
    ) -> None:
        self._store = store
        self._words = words
        self._embedder = embedder
        self._settings = settings

    async def retrieve(
        self,
        index: str,
        question: str,
        principal: Principal,
        k: int,
        mode: SearchMode = "hybrid",
        where: Filter | None = None,
    ) -> Retrieval:
        """Return the ``k`` best chunks that ``principal`` may read and that satisfy ``where``.

        In hybrid mode a failing embedder costs the vector leg and is declared in ``degraded``.

        Raises:
            ValueError: the question is empty, or ``k`` or ``mode`` makes no sense.
            KeyError: no such index.
            DependencyError: the store failed, or the embedder in vector mode.
        """
        [found] = await self.retrieve_many(index, [question], principal, k, mode, where)
        return found

    async def retrieve_many(
        self,
        index: str,
        questions: Sequence[str],
        principal: Principal,
        k: int,
        mode: SearchMode = "hybrid",
        where: Filter | None = None,
    ) -> list[Retrieval]:
        """Answer each of ``questions`` as ``retrieve`` does, in order; embeds them in batches."""
        if mode not in LEGS:
            raise ValueError(f"mode is one of {', '.join(LEGS)}, not {mode!r}")
        if k < 1:
            raise ValueError("k must be at least 1")
        if any(not q.strip() for q in questions):
            raise ValueError("the question is empty")
        started = time.perf_counter()
        vectors: list[Vector | None] = [None] * len(questions)
        degraded: tuple[Degradation, ...] = ()
        timings: dict[str, float] = {}
        if "vector" in LEGS[mode]:
            try:
                vectors = await self._embed(questions)
            except (DependencyError, EmbeddingRefused) as e:
                if mode == "vector":
                    raise
                mode, degraded = "keyword", (Degradation("embed", type(e).__name__),)
            timings["embed"] = (time.perf_counter() - started) * 1000 / max(1, len(questions))
        slots = asyncio.Semaphore(2 * self._settings.cores)

        async def one(question: str, vector: Vector | None) -> Retrieval:
            async with slots:
                return await self._search(index, question, vector, principal, k, mode, where, timings, degraded)

        return list(await asyncio.gather(*(one(q, v) for q, v in zip(questions, vectors, strict=True))))

    async def _embed(self, questions: Sequence[str]) -> list[Vector | None]:
        size = self._embedder.spec.batch_size
        vectors: list[Vector | None] = []
        for at in range(0, len(questions), size):
            batch = await self._embedder.embed(questions[at : at + size], kind="query")
            vectors.extend(batch.vectors)
        return vectors

    async def _search(
        self,
        index: str,
        question: str,
        vector: Vector | None,
        principal: Principal,
        k: int,
        mode: SearchMode,
        where: Filter | None,
        timings: Mapping[str, float],
        degraded: tuple[Degradation, ...],
    ) -> Retrieval:
        started = time.perf_counter()
        depth = k if len(LEGS[mode]) == 1 else max(k, self._settings.candidates)
        asked = [(question, vector)]
        if "keyword" in LEGS[mode] and not self._store.capabilities.keyword:
            legs = await self._split(index, asked, principal, mode, where, depth)
        else:
            legs = await search_legs(self._store, index, asked, principal, mode, where, depth)
        searched = time.perf_counter()
        hits = ranked(legs, self._settings, k)
        fused = time.perf_counter()
        spent = {**timings, "search": (searched - started) * 1000, "fuse": (fused - searched) * 1000}
        return Retrieval(hits, mode, spent, degraded, legs)

    async def _split(
        self,
        index: str,
        asked: Sequence[tuple[str, Vector | None]],
        principal: Principal,
        mode: SearchMode,
        where: Filter | None,
        depth: int,
    ) -> Legs:
        if self._words is None:
            raise DependencyError(
                "keyword_replica", "the store has no keyword leg and no replica is kept: ask by vector"
            )
        words = await self._words([text for text, _ in asked], principal, where, depth)
        if mode == "keyword":
            return {"keyword": words}
        meaning = await search_legs(self._store, index, asked, principal, "vector", where, depth)
        return meaning | {"keyword": agreeing(words, meaning["vector"])}


async def search_legs(
    store: VectorStore,
    index: str,
    wordings: Sequence[tuple[str, Vector | None]],
    principal: Principal,
    mode: SearchMode,
    where: Filter | None,
    depth: int,
) -> Legs:
    """Search every wording of a question (text, and its vector where the mode needs one) and return the legs:
    of each, the ``depth`` best chunks by the best score that any wording gave them.

    Raises:
        KeyError: no such index.
        DependencyError: the store failed.
    """
    requests = [SearchRequest(principal, depth, LEGS[mode], text=t, vector=v, where=where) for t, v in wordings]
    found = await asyncio.gather(*(store.search(index, request) for request in requests))
    if len(found) == 1:
        return dict(found[0].legs)
    merged: Legs = {}
    for leg in LEGS[mode]:
        best: dict[str, Hit] = {}
        for hit in (h for result in found for h in result.legs[leg]):
            if hit.chunk_id not in best or hit.score > best[hit.chunk_id].score:
                best[hit.chunk_id] = hit
        merged[leg] = sorted(best.values(), key=lambda h: (-h.score, h.chunk_id))[:depth]
    return merged


def ranked(legs: Legs, settings: Settings, k: int) -> list[Hit]:
    """Return the ``k`` best hits of all legs, fused as the settings say; a single leg keeps its scores."""
    if len(legs) == 1:
        [hits] = legs.values()
        return list(hits[:k])
    if settings.fusion == "rrf":
        return fuse.reciprocal_rank(legs, k=k)
    return fuse.linear(legs, vector_weight=settings.fusion_vector_weight, k=k)
