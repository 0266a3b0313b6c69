"""The laws of fusion."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_platform.backends.vector_stores.base import Leg
from rag_platform.query.fuse import linear, reciprocal_rank
from rag_platform.records import Hit

SCORES = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-1, 30) | st.sampled_from([0.0, 1.0, 2.0]), max_size=8)
WEIGHT = st.sampled_from([0.0, 0.3, 0.5, 1.0])


def hits(scores: dict[str, float]) -> list[Hit]:
    blank = dict.fromkeys(
        (
            "document_id",
            "source",
            "uri",
            "title",
            "version_id",
            "content_hash",
            "snapshot_id",
            "run_id",
            "heading_path",
            "mime_type",
            "language",
            "tenant",
            "text",
        ),
        "",
    )
    made = [
        Hit(**blank, chunk_id=c, ordinal=0, start=0, end=0, page=None, modified_at=None, tags=(), acl=(), score=s)  # type: ignore[arg-type]
        for c, s in scores.items()
    ]
    return sorted(made, key=lambda h: (-h.score, h.chunk_id))


def ranking(found: list[Hit]) -> list[tuple[str, float]]:
    return [(h.chunk_id, h.score) for h in found]


@given(SCORES, SCORES, WEIGHT, st.randoms(use_true_random=False))
def test_the_order_of_legs_and_hits_is_irrelevant(
    vector: dict[str, float], keyword: dict[str, float], weight: float, shuffler: random.Random
) -> None:
    """Fusion is a function of the sets: shuffled legs give the same ranking with the same scores."""
    legs: dict[Leg, list[Hit]] = {"vector": hits(vector), "keyword": hits(keyword)}
    other: dict[Leg, list[Hit]] = {"keyword": hits(keyword), "vector": hits(vector)}
    for found in other.values():
        shuffler.shuffle(found)
    assert ranking(linear(legs, vector_weight=weight, k=9)) == ranking(linear(other, vector_weight=weight, k=9))
    assert ranking(reciprocal_rank(legs, k=9)) == ranking(reciprocal_rank(other, k=9))


@given(SCORES, SCORES, WEIGHT, st.integers(1, 9))
def test_every_candidate_once_best_first(
    vector: dict[str, float], keyword: dict[str, float], weight: float, k: int
) -> None:
    """The result holds the union, each once, sorted, scores in [0, 1]; a smaller k is a prefix."""
    legs: dict[Leg, list[Hit]] = {"vector": hits(vector), "keyword": hits(keyword)}
    for whole, cut in (
        (linear(legs, vector_weight=weight, k=99), linear(legs, vector_weight=weight, k=k)),
        (reciprocal_rank(legs, k=99), reciprocal_rank(legs, k=k)),
    ):
        assert {h.chunk_id for h in whole} == set(vector) | set(keyword) and len(whole) == len({*vector, *keyword})
        assert ranking(whole)[:k] == ranking(cut)
        assert [(-h.score, h.chunk_id) for h in whole] == sorted((-h.score, h.chunk_id) for h in whole)
        assert all(0 <= h.score <= 1 for h in whole)


@given(SCORES, st.sampled_from(["vector", "keyword"]))
def test_one_leg_alone_keeps_its_order(scores: dict[str, float], leg: Leg) -> None:
    """With one leg, missing or empty beside the other, the fused order is that leg's own order."""
    own = hits(scores)
    other: Leg = "keyword" if leg == "vector" else "vector"
    for legs in ({leg: own}, {leg: own, other: []}):
        for found in (linear(legs, k=9), reciprocal_rank(legs, k=9)):
            order = {h.chunk_id: n for n, h in enumerate(found)}
            for better in own:
                for worse in own:
                    if order[better.chunk_id] > order[worse.chunk_id]:
                        assert better.score <= worse.score + 1e-9 * 31


@given(SCORES, SCORES)
def test_better_in_both_legs_is_not_worse(vector: dict[str, float], keyword: dict[str, float]) -> None:
    """A candidate that beats another in both legs is never ranked with a lower score."""
    legs: dict[Leg, list[Hit]] = {"vector": hits(vector), "keyword": hits(keyword)}
    both = sorted(set(vector) & set(keyword))
    for found in (linear(legs, k=9), reciprocal_rank(legs, k=9)):
        score = {h.chunk_id: h.score for h in found}
        for a in both:
            for b in both:
                if vector[a] >= vector[b] and keyword[a] >= keyword[b]:
                    assert score[a] >= score[b] - 1e-12


@given(SCORES, SCORES, st.floats(0.1, 50), st.floats(-5, 5))
def test_linear_ignores_the_scale_of_a_leg(
    vector: dict[str, float], keyword: dict[str, float], scale: float, shift: float
) -> None:
    """BM25 has no fixed range: stretching and shifting a leg's scores changes no fused score."""
    keyword = {c: round(s, 3) for c, s in keyword.items()}
    stretched = {c: s * scale + shift for c, s in keyword.items()}
    one = linear({"vector": hits(vector), "keyword": hits(keyword)}, k=99)
    two = linear({"vector": hits(vector), "keyword": hits(stretched)}, k=99)
    assert {h.chunk_id: h.score for h in two} == pytest.approx({h.chunk_id: h.score for h in one}, abs=1e-6)


def test_values() -> None:
    """Worked examples of both formulas, with one-sided candidates, ties and a single hit."""
    legs: dict[Leg, list[Hit]] = {"vector": hits({"a": 0.9, "b": 0.5, "c": 0.1}), "keyword": hits({"b": 8.0, "d": 4.0})}
    assert ranking(linear(legs, k=4)) == [("b", 0.75), ("a", 0.5), ("c", 0.0), ("d", 0.0)]
    assert ranking(linear(legs, vector_weight=0.25, k=2)) == [("b", 0.875), ("a", 0.25)]
    assert ranking(linear({"vector": hits({"x": 0.3}), "keyword": hits({"y": 2.0, "z": 2.0})}, k=3)) == [
        ("x", 0.5),
        ("y", 0.5),
        ("z", 0.5),
    ]
    assert ranking(reciprocal_rank(legs, k=1)) == [("b", 1 / 61 + 1 / 62)]
    assert linear({}, k=3) == [] == reciprocal_rank({"vector": []}, k=3)
