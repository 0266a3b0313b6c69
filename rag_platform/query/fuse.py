"""One ranking out of several. Pure functions; the order of the legs and of equal hits never matters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rag_platform.backends.vector_stores.base import Leg
from rag_platform.records import Hit

RRF_CONSTANT = 60
"""Of Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet …", SIGIR 2009."""


def linear(legs: Mapping[Leg, Sequence[Hit]], *, vector_weight: float = 0.5, k: int) -> list[Hit]:
    """Sum the min–max-normalised scores: ``w`` for the vector leg and ``1 - w`` for the keyword leg.

    Within each leg the best candidate counts 1 and the worst 0; a chunk that a leg does not hold
    counts 0 there, no more than that leg's worst. Where all scores of a leg are equal, or it holds
    one hit, each counts 1: being found is worth something.

    Returns:
        The best ``k`` hits, each with its fused score in [0, 1]; ties in the order of ``chunk_id``.
    """
    weights: dict[Leg, float] = {"vector": vector_weight, "keyword": 1.0 - vector_weight}

    def parts(leg: Leg, hits: Sequence[Hit]) -> list[float]:
        low, high = min(h.score for h in hits), max(h.score for h in hits)
        if high <= low:
            return [weights[leg]] * len(hits)
        return [weights[leg] * (h.score - low) / (high - low) for h in hits]

    return _sum(legs, parts, k)


def reciprocal_rank(legs: Mapping[Leg, Sequence[Hit]], *, k: int, c: int = RRF_CONSTANT) -> list[Hit]:
    """Sum ``1 / (c + rank)`` over the legs; ranks count from 1 and equal scores share the better one.

    Returns:
        The best ``k`` hits with their fused scores; ties in the order of ``chunk_id``.
    """

    def parts(leg: Leg, hits: Sequence[Hit]) -> list[float]:
        scores = sorted((h.score for h in hits), reverse=True)
        rank: dict[float, int] = {}
        for position, score in enumerate(scores, 1):
            rank.setdefault(score, position)
        return [1.0 / (c + rank[h.score]) for h in hits]

    return _sum(legs, parts, k)


def _sum(legs: Mapping[Leg, Sequence[Hit]], parts: Callable[[Leg, Sequence[Hit]], list[float]], k: int) -> list[Hit]:
    total: dict[str, float] = {}
    found: dict[str, Hit] = {}
    for leg in sorted(legs):  # floating-point sums in one order, whatever the order of the mapping
        hits = legs[leg]
        if not hits:
            continue
        for hit, part in zip(hits, parts(leg, hits), strict=True):
            total[hit.chunk_id] = total.get(hit.chunk_id, 0.0) + part
            found[hit.chunk_id] = hit
    ranked = sorted(total, key=lambda chunk: (-total[chunk], chunk))
    return [found[chunk].with_score(total[chunk]) for chunk in ranked[:k]]
