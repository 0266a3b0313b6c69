"""What a reranker promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage to judge, with what retrieval already knows of it.

    Attributes:
        text: the chunk; ``title`` and ``heading_path`` say where it stands.
        vector_score, keyword_score: cosine and BM25; None where that leg did not find it or did not run.
        fused_score: the score that ordered the candidates so far, comparable within one list.
    """

    text: str
    title: str
    heading_path: str
    vector_score: float | None
    keyword_score: float | None
    fused_score: float


@dataclass(frozen=True, slots=True)
class RerankerSpec:
    """What a reranker is, as data.

    Attributes:
        name: vendor file name.
        model: model name.
        fingerprint: changes whenever scores would; part of cache keys.
        max_candidates: passages that one call may hold.
        usd_per_call: price, 0 for a local model, None when unknown.
    """

    name: str
    model: str
    fingerprint: str
    max_candidates: int
    usd_per_call: float | None


class Reranker(Protocol):
    """Asynchronous; construction does no I/O. One request a call: retries belong to the caller's guard."""

    @property
    def spec(self) -> RerankerSpec: ...

    async def rerank(self, question: str, candidates: Sequence[Candidate], *, timeout_s: float) -> list[float]:
        """Return one finite score a candidate, in order; larger is better, comparable within this call.

        Raises:
            DependencyError: down, too slow, refuses us, or answers nonsense.
        """
        ...

    async def ping(self) -> None:
        """Raise ``DependencyError`` when it cannot be used."""
        ...

    async def aclose(self) -> None: ...
