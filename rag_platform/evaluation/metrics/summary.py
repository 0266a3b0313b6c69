"""From the values of the cases to one number, how sure it is, and how many cases it rests on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from rag_platform.evaluation.report import MetricSummary
from rag_platform.ledger.evaluations import ScoreRow

RESAMPLES = 2000
BLOCK = 100
CONFIDENCE = 0.95

Values = np.ndarray[Any, np.dtype[np.float64]]
Statistic = Callable[[Values], Values]
"""From samples, shape (n, cases), to one number each, shape (n,)."""


def mean(samples: Values) -> Values:
    """Return the mean of each row."""
    result: Values = samples.mean(axis=1)
    return result


def percentile(q: float) -> Statistic:
    """Return the statistic "the ``q``-th percentile", q in 0 to 100, interpolated between the two nearest values
    (Hyndman, Fan, *Sample Quantiles in Statistical Packages*, 1996, type 7)."""

    def statistic(samples: Values) -> Values:
        result: Values = np.percentile(samples, q, axis=1)
        return result

    return statistic


def interval(values: Sequence[float], seed: str, statistic: Statistic = mean) -> tuple[float, float] | None:
    """Return the 95 % interval of a statistic by the percentile bootstrap over the cases; None for fewer than two.

    Efron, Tibshirani, *An Introduction to the Bootstrap* (1993), section 13.3. The same values and ``seed`` give the
    same interval, on every machine.
    """
    if len(values) < 2:
        return None
    data = np.asarray(values, dtype=np.float64)
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
    random = np.random.default_rng(number)
    # In blocks: 2,000 resamples of a set of 10,000 questions at once are 160 MB, twice.
    blocks = [statistic(data[random.integers(0, len(data), (BLOCK, len(data)))]) for _ in range(RESAMPLES // BLOCK)]
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(np.concatenate(blocks), [tail, 100 - tail])
    return float(low), float(high)


def summarise(metric: str, rows: Iterable[ScoreRow], statistic: Statistic = mean) -> MetricSummary:
    """Return a metric over its cases. Only scored ones enter the number; the others are counted, each by its
    kind."""
    rows = sorted(rows, key=lambda r: r.case_id)
    counts = Counter(r.state for r in rows)
    values = [r.value for r in rows if r.state == "scored" and r.value is not None]
    middle = float(statistic(np.asarray([values], dtype=np.float64))[0]) if values else None
    low, high = interval(values, metric, statistic) or (None, None)
    return MetricSummary(metric, middle, len(values), counts["nan"], counts["failed"], counts["empty"], low, high)
