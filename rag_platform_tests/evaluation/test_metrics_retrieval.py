"""Metrics of a ranking, against values worked out by hand and against laws."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_platform.evaluation.metrics import retrieval


def ranking(*covered: str) -> list[frozenset[int]]:
    """One word a chunk: the numbers of the spans that it covers, ``-`` for none."""
    return [frozenset() if c == "-" else frozenset(int(n) for n in c) for c in covered]


D = [1 / math.log2(rank + 1) for rank in range(1, 20)]
"""Discounts of the ranks: D[0] is that of rank 1."""


@pytest.mark.parametrize(
    ("found", "spans", "k", "expected"),
    [
        (ranking("-", "0", "-", "1"), 2, 2, 0.5),
        (ranking("-", "0", "-", "1"), 2, 4, 1.0),
        (ranking("0", "0", "0"), 2, 5, 0.5),  # the same span three times is one span
        (ranking("01"), 2, 5, 1.0),
        (ranking("-", "-"), 3, 5, 0.0),
        ([], 1, 5, 0.0),  # nothing found is 0, not "nothing to find"
        (ranking("0"), 0, 5, None),
    ],
)
def test_recall(found: Any, spans: int, k: int, expected: float | None) -> None:
    """Distinct spans covered by the first k chunks, over all spans."""
    assert retrieval.recall(found, spans, k) == expected


@pytest.mark.parametrize(
    ("found", "spans", "k", "expected"),
    [
        (ranking("0", "-", "1", "-", "-", "2"), 3, 5, 0.4),
        (ranking("0", "0"), 1, 2, 1.0),  # both passages are relevant
        (ranking("0"), 1, 5, 0.2),  # the empty places count
        ([], 1, 5, 0.0),
        (ranking("0"), 0, 5, None),
    ],
)
def test_precision(found: Any, spans: int, k: int, expected: float | None) -> None:
    """Places among the first k that cover any span, over k."""
    assert retrieval.precision(found, spans, k) == expected


@pytest.mark.parametrize(
    ("found", "spans", "expected"),
    [
        (ranking("0", "1"), 2, 1.0),
        (ranking("-", "-", "1", "0"), 2, 1 / 3),
        (ranking("-"), 1, 0.0),
        ([], 1, 0.0),
        ([], 0, None),
    ],
)
def test_reciprocal_rank(found: Any, spans: int, expected: float | None) -> None:
    """1 over the rank of the first relevant chunk."""
    assert retrieval.reciprocal_rank(found, spans) == expected


@pytest.mark.parametrize(
    ("found", "spans", "k", "expected"),
    [
        (ranking("0"), 1, 10, 1.0),
        (ranking("-", "0"), 1, 10, D[1]),  # 0.6309
        (ranking("-", "0", "-", "1"), 2, 10, (D[1] + D[3]) / (D[0] + D[1])),  # 0.6509
        (ranking("-", "0", "-", "1"), 2, 3, D[1] / (D[0] + D[1])),  # cut off: 0.3869
        (ranking("0", "0", "1"), 2, 10, (D[0] + D[2]) / (D[0] + D[1])),  # the repeat gains nothing: 0.9197
        (ranking("01"), 2, 10, 1.0),  # all that there is, at once
        (ranking("-", "01"), 2, 10, (D[1] + D[1]) / (D[0] + D[1])),  # not ahead of both of one chunk each: 0.7737
        (ranking("0123"), 4, 2, 1.0),  # more spans than places
        (ranking("-", "-"), 2, 2, 0.0),
        ([], 3, 10, 0.0),
        (ranking("0"), 0, 10, None),
    ],
)
def test_ndcg(found: Any, spans: int, k: int, expected: float | None) -> None:
    """The textbook's value where a chunk is a span; never above 1 where it is several."""
    assert retrieval.ndcg(found, spans, k) == (None if expected is None else pytest.approx(expected, abs=1e-12))


def test_ndcg_agrees_with_a_published_example() -> None:
    """Binary relevance 1, 0, 1, 1, 0, 1 with four relevant items: DCG 1 + 0.5 + 0.43068 + 0.35621 = 2.28689, of an
    ideal 2.56161 (the worked example of Järvelin's measure with log2(rank + 1))."""
    assert retrieval.ndcg(ranking("0", "-", "1", "2", "-", "3"), 4, 10) == pytest.approx(2.28689 / 2.56161, abs=1e-5)


SPANS = 4
rankings = st.lists(st.frozensets(st.integers(0, SPANS - 1)), max_size=12)


@given(rankings, st.integers(1, 12))
def test_every_value_is_a_share(found: list[frozenset[int]], k: int) -> None:
    """0 to 1 for any chunking."""
    values = [
        retrieval.recall(found, SPANS, k),
        retrieval.precision(found, SPANS, k),
        retrieval.reciprocal_rank(found, SPANS),
        retrieval.ndcg(found, SPANS, k),
    ]
    assert all(v is not None and 0 <= v <= 1 + 1e-12 for v in values)


@given(rankings, st.integers(1, 12))
def test_more_places_never_lower_recall(found: list[frozenset[int]], k: int) -> None:
    """Recall grows with k; at the end of the ranking it is all that was found."""
    shorter, longer = retrieval.recall(found, SPANS, k), retrieval.recall(found, SPANS, k + 1)
    assert shorter is not None and longer is not None and shorter <= longer
    assert retrieval.recall(found, SPANS, 12) == len(frozenset().union(*found)) / SPANS


@given(rankings, st.data())
def test_moving_a_find_forward_never_hurts(found: list[frozenset[int]], data: st.DataObject) -> None:
    """A chunk that exchanges its place with an irrelevant one before it raises nDCG and MRR, or leaves them."""
    if len(found) < 2:
        return
    later = data.draw(st.integers(1, len(found) - 1))
    earlier = data.draw(st.integers(0, later - 1))
    before = [*found]
    before[earlier] = frozenset()
    after = [*before]
    after[earlier], after[later] = before[later], before[earlier]
    for measure in (lambda r: retrieval.ndcg(r, SPANS, 10), lambda r: retrieval.reciprocal_rank(r, SPANS)):
        assert measure(after) >= measure(before) - 1e-12


@given(rankings, st.permutations(range(SPANS)))
def test_the_numbers_of_the_spans_mean_nothing(found: list[frozenset[int]], names: list[int]) -> None:
    """Renaming the spans changes no value."""
    renamed = [frozenset(names[n] for n in covered) for covered in found]
    assert retrieval.ndcg(renamed, SPANS, 5) == pytest.approx(retrieval.ndcg(found, SPANS, 5))
    assert retrieval.recall(renamed, SPANS, 5) == retrieval.recall(found, SPANS, 5)


@given(st.integers(1, 6), st.integers(0, 4))
def test_a_ranking_without_waste_is_perfect(spans: int, tail: int) -> None:
    """Every span at the first free place is 1, however many chunks it took and whatever follows."""
    one_each = [frozenset({n}) for n in range(spans)] + [frozenset[int]()] * tail
    together = [frozenset(range(spans))] + [frozenset[int]()] * tail
    assert retrieval.ndcg(one_each, spans, 10) == retrieval.ndcg(together, spans, 10) == pytest.approx(1.0)
