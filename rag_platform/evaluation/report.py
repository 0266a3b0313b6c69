"""What an evaluation found: by metric and by case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """One metric over all cases.

    Attributes:
        mean: of the scored cases; of a percentile metric, the percentile. None when no case was scored.
        scored, nan, failed, empty: cases by what came of the metric; see ``ledger.evaluations.ScoreState``.
        missing: cases that wait for another day, because a judge's budget is used up.
        low, high: 95 % bootstrap interval of ``mean``; None with fewer than two scored cases.
    """

    metric: str
    mean: float | None
    scored: int
    nan: int = 0
    failed: int = 0
    empty: int = 0
    low: float | None = None
    high: float | None = None
    missing: int = 0


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case.

    Attributes:
        scores: metric → value; None when it was not scored.
        refused: None when no answer was asked for, or none came.
        answer_uris: documents that the answer cites; without answers, those of the passages found, best first.
        failure: class of the error that ended it.
    """

    case_id: str
    question: str
    scores: Mapping[str, float | None]
    refused: bool | None
    answer_uris: tuple[str, ...] = ()
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """One release on one golden set.

    Attributes:
        seconds: wall time, summed over the cases (they run side by side).
        usd: what it cost, answers and judges; prices that are not known count for nothing.
        index_moved: the index changed while it was measured, so that the scores are of no one state of it.
    """

    evaluation_id: str
    release_id: str
    golden_set: str
    set_fingerprint: str
    metrics: Mapping[str, MetricSummary]
    cases: tuple[CaseResult, ...]
    seconds: float
    usd: float
    index_moved: bool = False

    def worst(self, metric: str, count: int = 5) -> list[CaseResult]:
        """Return the cases that score worst in a metric, the worst first, those it could not score left out.

        Of latencies and costs, the highest are the worst. Ties are in the order of the case ids.
        """
        name = CASE_METRIC.get(metric, metric)
        scored = [(value, case) for case in self.cases if (value := case.scores.get(name)) is not None]
        sign = -1.0 if name in LOWER_IS_BETTER else 1.0
        return [case for _, case in sorted(scored, key=lambda s: (sign * s[0], s[1].case_id))[:count]]

    def as_json(self) -> dict[str, Any]:
        """Return the report for machines."""
        return asdict(self)


LATENCY = "latency_ms"
CASE_METRIC = {"latency_ms_p50": LATENCY, "latency_ms_p95": LATENCY}
"""Metrics that exist of all cases together only, and what each case has of them."""
LOWER_IS_BETTER = frozenset({LATENCY, "latency_ms_p50", "latency_ms_p95", "cost_usd"})
