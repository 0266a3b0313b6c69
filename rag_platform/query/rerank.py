"""A better order for the best hits, from a model that reads the question and each passage together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rag_platform.backends.rerankers.base import Candidate, Reranker
from rag_platform.backends.rerankers.scores import checked
from rag_platform.backends.vector_stores.base import Leg
from rag_platform.records import Hit


async def rerank(
    reranker: Reranker,
    question: str,
    hits: Sequence[Hit],
    legs: Mapping[Leg, Sequence[Hit]],
    *,
    depth: int,
    timeout_s: float,
) -> list[Hit]:
    """Judge the first ``depth`` hits (no more than the reranker takes) and return all of ``hits``.

    The judged ones come first, in their new order and with the reranker's scores; equal scores keep the
    order of ``hits``. The others follow in their old order, their scores shifted by one constant so that
    the first of them stands level with the last judged one: scores never rise along the list, and within
    each of the two parts their differences mean what they meant.

    Args:
        hits: fused candidates, best first.
        legs: what each leg found, for its own scores of the candidates.

    Raises:
        DependencyError: the reranker failed; the caller goes on with ``hits``.
    """
    judged = list(hits[: max(0, min(depth, reranker.spec.max_candidates))])
    if len(judged) < 2:
        return list(hits)
    scores = checked(
        await reranker.rerank(question, _candidates(judged, legs), timeout_s=timeout_s),
        len(judged),
        f"reranker:{reranker.spec.name}",
    )
    order = sorted(range(len(judged)), key=lambda i: -scores[i])
    ranked = [judged[i].with_score(scores[i]) for i in order]
    rest = hits[len(judged) :]
    return ranked + [h.with_score(ranked[-1].score - (rest[0].score - h.score)) for h in rest]


def _candidates(hits: Sequence[Hit], legs: Mapping[Leg, Sequence[Hit]]) -> list[Candidate]:
    scores = {leg: {h.chunk_id: h.score for h in found} for leg, found in legs.items()}
    vector, keyword = scores.get("vector", {}), scores.get("keyword", {})
    return [
        Candidate(
            text=h.text,
            title=h.title,
            heading_path=h.heading_path,
            vector_score=vector.get(h.chunk_id),
            keyword_score=keyword.get(h.chunk_id),
            fused_score=h.score,
        )
        for h in hits
    ]
