"""A reranker behind a bulkhead, a circuit breaker and a retry budget."""

from __future__ import annotations

from collections.abc import Sequence

from rag_platform.backends.guard import Guard
from rag_platform.backends.rerankers.base import Candidate, Reranker, RerankerSpec


class GuardedReranker:
    """Calls ``reranker`` as often as ``guard`` allows, and not at all while it is known to be down."""

    def __init__(self, reranker: Reranker, guard: Guard) -> None:
        self._reranker = reranker
        self._guard = guard

    @property
    def spec(self) -> RerankerSpec:
        return self._reranker.spec

    async def rerank(self, question: str, candidates: Sequence[Candidate], *, timeout_s: float) -> list[float]:
        """As the reranker does; raises what ``Guard.call`` raises."""
        return await self._guard.call(
            lambda left_s: self._reranker.rerank(question, candidates, timeout_s=left_s), timeout_s
        )

    async def ping(self) -> None:
        """Ask the reranker itself, whatever the breaker thinks of it."""
        await self._reranker.ping()

    async def aclose(self) -> None:
        await self._reranker.aclose()
