"""The rerank step over rankings of its own making."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_platform.backends.rerankers.base import Candidate, RerankerSpec
from rag_platform.backends.vector_stores.base import Leg
from rag_platform.errors import DependencyError
from rag_platform.query.rerank import rerank
from rag_platform.records import Hit


def hit(chunk_id: str, score: float) -> Hit:
    return Hit(
        chunk_id=chunk_id, document_id="d", source="s", uri="u", title="title", version_id="v", content_hash="c",
        snapshot_id="n", run_id="r", ordinal=0, start=0, end=1, page=None, heading_path="heading", mime_type="m",
        language="", modified_at=None, tags=(), tenant="t", acl=(), text=f"text of {chunk_id}", score=score,
    )  # fmt: skip


class GivenScores:
    """Answers with the scores that it was made with, and remembers what it was asked."""

    def __init__(self, scores: Sequence[float], max_candidates: int = 100) -> None:
        self.spec = RerankerSpec("given", "m", "f", max_candidates, 0.0)
        self.scores = list(scores)
        self.asked: list[tuple[str, list[Candidate], float]] = []

    async def rerank(self, question: str, candidates: Sequence[Candidate], *, timeout_s: float) -> list[float]:
        self.asked.append((question, list(candidates), timeout_s))
        return self.scores[: len(candidates)]

    async def ping(self) -> None: ...

    async def aclose(self) -> None: ...


FUSED = [hit(c, 1.0 - i / 10) for i, c in enumerate("abcdef")]


def done(reranker: GivenScores, hits: Sequence[Hit], depth: int, legs: dict[Leg, list[Hit]] | None = None) -> list[Hit]:
    return asyncio.run(rerank(reranker, "why?", hits, legs or {}, depth=depth, timeout_s=2.5))


def test_the_judged_come_first_in_their_new_order() -> None:
    """The first ``depth`` hits are ordered by the new scores and carry them; the rest follows as it was."""
    found = done(GivenScores([0.1, 0.9, 0.5]), FUSED, 3)
    assert [h.chunk_id for h in found] == list("bcadef")
    assert [h.score for h in found[:3]] == [0.9, 0.5, 0.1]
    assert [h.score for h in found[3:]] == pytest.approx([0.1, 0.0, -0.1])


def test_what_the_reranker_is_told() -> None:
    """It gets the question, the time, and of each candidate its text, place and the scores of the legs."""
    reranker = GivenScores([1, 2, 3])
    legs: dict[Leg, list[Hit]] = {"vector": [hit("b", 0.7), hit("z", 0.9)], "keyword": [hit("a", 12.0), hit("b", 3.0)]}
    done(reranker, FUSED, 3, legs)
    [(question, candidates, timeout_s)] = reranker.asked
    assert (question, timeout_s) == ("why?", 2.5)
    assert candidates[:2] == [
        Candidate("text of a", "title", "heading", None, 12.0, 1.0),
        Candidate("text of b", "title", "heading", 0.7, 3.0, 0.9),
    ]
    assert (candidates[2].vector_score, candidates[2].keyword_score) == (None, None)


def test_equal_scores_keep_the_order() -> None:
    """A reranker without an opinion changes nothing."""
    assert [h.chunk_id for h in done(GivenScores([0.0] * 6), FUSED, 6)] == list("abcdef")


def test_no_more_than_the_reranker_takes() -> None:
    """Depth is cut to what one call may hold."""
    reranker = GivenScores([0, 1, 2, 3], max_candidates=2)
    assert [h.chunk_id for h in done(reranker, FUSED, 4)] == list("bacdef")


@pytest.mark.parametrize(("hits", "depth"), [([], 5), (FUSED, 0), (FUSED, 1), (FUSED[:1], 20)])
def test_nothing_to_judge_costs_no_call(hits: list[Hit], depth: int) -> None:
    """Fewer than two candidates are returned as they are."""
    reranker = GivenScores([1, 2, 3])
    assert done(reranker, hits, depth) == hits and reranker.asked == []


@pytest.mark.parametrize("scores", [[1.0], [1.0, math.nan, 0.0], [1.0, math.inf, 0.0]])
def test_nonsense_is_a_dependency_error(scores: list[float]) -> None:
    """Too few scores, or one that is not finite, is the reranker's failure."""
    with pytest.raises(DependencyError, match="reranker:given"):
        done(GivenScores(scores), FUSED, 3)


@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=12),
    st.lists(st.floats(-1e6, 1e6), min_size=12, max_size=12),
    st.integers(0, 14),
)
def test_laws(fused: list[float], scores: list[float], depth: int) -> None:
    """Nothing is lost, doubled or altered but its score; scores never rise along the list; hits beyond the
    depth keep their order."""
    hits = [hit(str(i), s) for i, s in enumerate(sorted(fused, reverse=True))]
    found = done(GivenScores(scores), hits, depth)
    assert sorted(h.chunk_id for h in found) == sorted(h.chunk_id for h in hits)
    assert {h.chunk_id: h.with_score(0) for h in found} == {h.chunk_id: h.with_score(0) for h in hits}
    assert all(a.score >= b.score for a, b in itertools.pairwise(found))
    assert [h.chunk_id for h in found[depth:]] == [h.chunk_id for h in hits[depth:]] or depth < 2
