"""Means, percentiles, intervals and counts over the cases."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_platform.evaluation.measure import summaries
from rag_platform.evaluation.metrics.summary import interval, mean, percentile, summarise
from rag_platform.ledger.evaluations import ScoreRow, ScoreState


def row(case: str, value: float | None, state: ScoreState = "scored", metric: str = "mrr") -> ScoreRow:
    return ScoreRow("e", case, metric, value, state)


def test_only_scored_cases_enter_the_mean() -> None:
    """The others are counted, each by what it is."""
    rows = [row("a", 1.0), row("b", 0.5), row("c", None, "nan"), row("d", None, "failed"), row("e", None, "empty")]
    found = summarise("mrr", [*rows, row("f", None, "empty")])
    assert (found.mean, found.scored, found.nan, found.failed, found.empty) == (0.75, 2, 1, 1, 2)
    nothing = summarise("mrr", [row("a", None, "nan")])
    assert (nothing.mean, nothing.scored, nothing.low, nothing.high) == (None, 0, None, None)


def test_percentiles_are_interpolated() -> None:
    """Of 10, 20, 30, 40: the median is 25 and the 95th percentile 38.5."""
    rows = [row(c, v, metric="latency_ms") for c, v in zip("abcd", (40.0, 10.0, 30.0, 20.0), strict=True)]
    assert summarise("x", rows, percentile(50)).mean == 25.0
    assert summarise("x", rows, percentile(95)).mean == pytest.approx(38.5)
    both = summaries(rows, ("mrr", "latency_ms"), 5)
    assert (both["latency_ms_p50"].mean, both["latency_ms_p95"].scored) == (25.0, 4)
    assert list(both) == ["mrr", "latency_ms_p50", "latency_ms_p95"]
    assert (both["mrr"].mean, both["mrr"].missing, both["latency_ms_p50"].missing) == (None, 5, 1)


def test_the_interval_of_a_known_case() -> None:
    """Of a share of 50 in 100 the 95 % interval is that of the binomial, about 0.40 to 0.60."""
    low, high = interval([0.0, 1.0] * 50, "mrr") or (0, 0)
    assert low == pytest.approx(0.40, abs=0.015) and high == pytest.approx(0.60, abs=0.015)
    assert interval([0.5], "mrr") is None and interval([], "mrr") is None
    assert interval([0.5, 0.5, 0.5], "mrr") == (0.5, 0.5)


values = st.lists(st.floats(0, 1), min_size=2, max_size=20)


@settings(max_examples=25)
@given(values, st.randoms(use_true_random=False))
def test_the_interval_does_not_depend_on_the_order_in_which_cases_ended(found: list[float], random: object) -> None:
    """Seeded by the metric, over the cases by their ids: the same for the same scores; and it lies among them."""
    rows = [row(f"c{n:02}", v) for n, v in enumerate(found)]
    shuffled = [*rows]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = summarise("mrr", rows), summarise("mrr", shuffled)
    assert first == second
    assert first.low is not None and first.high is not None and first.mean is not None
    assert min(found) - 1e-9 <= first.low <= first.high <= max(found) + 1e-9


def test_statistics_are_told_apart_by_their_seed() -> None:
    """Two metrics with the same values do not share their resamples."""
    data = [(n * 0.37) % 1 for n in range(40)]
    assert interval(data, "a", mean) != interval(data, "b", mean)
