"""A second reranker for when the first one fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import cached_property

from rag_platform.backends.rerankers.base import Candidate, Reranker, RerankerSpec
from rag_platform.errors import DependencyError, DependencyTimeout
from rag_platform.identity import fingerprint

_SHARE = 0.6
"""Of the time left, what every reranker but the last may take: the next one needs some too."""


class FallbackReranker:
    """Asks ``rerankers`` in their order until one answers. Its price is the first one's."""

    def __init__(self, rerankers: Sequence[Reranker]) -> None:
        if not rerankers:
            raise ValueError("a fallback needs at least one reranker")
        self._rerankers = tuple(rerankers)

    @cached_property
    def spec(self) -> RerankerSpec:
        specs = [r.spec for r in self._rerankers]
        return RerankerSpec(
            name="+".join(s.name for s in specs),
            model="+".join(s.model for s in specs),
            fingerprint=fingerprint("fallback_reranker", {"members": [s.fingerprint for s in specs]}),
            max_candidates=min(s.max_candidates for s in specs),
            usd_per_call=specs[0].usd_per_call,
        )

    async def rerank(self, question: str, candidates: Sequence[Candidate], *, timeout_s: float) -> list[float]:
        """Return the scores of the first that answers; raises what the last one raised."""
        deadline = time.monotonic() + timeout_s
        *others, last = self._rerankers
        for reranker in others:
            budget = max(0.0, (deadline - time.monotonic()) * _SHARE)
            try:
                # Held to its share from here: the next one's time must not hang on its good behaviour.
                async with asyncio.timeout(budget):
                    return await reranker.rerank(question, candidates, timeout_s=budget)
            except (DependencyError, TimeoutError):
                continue
        left = deadline - time.monotonic()
        if left <= 0:
            raise DependencyTimeout(f"reranker:{last.spec.name}", "no time left to ask it")
        return await last.rerank(question, candidates, timeout_s=left)

    async def ping(self) -> None:
        """Raise what the last one raised when none can be used."""
        *others, last = self._rerankers
        for reranker in others:
            try:
                return await reranker.ping()
            except DependencyError:
                continue
        await last.ping()

    async def aclose(self) -> None:
        for reranker in self._rerankers:
            await reranker.aclose()
