"""The exam of a release: what a candidate must reach on a golden set before it may serve.

Two demands on a metric: an absolute value (``min``, or ``max`` where lower is better), and how much worse than the
serving release it may be (``max_drop``), measured on the cases that both were scored on, so that a case that one of them
could not be asked weighs on neither.

    gate:
      recall_at_10: {min: 0.8, max_drop: 0.02}
      latency_ms_p95: {max: 2000}
      contains_gold: null                 # not asked for, whatever the default

A metric that the file does not name keeps its default demand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag_platform.errors import ConfigurationError
from rag_platform.evaluation.report import CASE_METRIC, LOWER_IS_BETTER, CaseResult, EvaluationReport

WORST_QUESTIONS = 5
"""Named with each failure."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one metric must reach; None: no such demand.

    Attributes:
        limit: lowest value allowed; of latencies and costs, the highest.
        max_drop: largest difference to the serving release, in the metric's own unit.
    """

    limit: float | None = None
    max_drop: float | None = None


Policy = Mapping[str, Demand]

DEFAULT_POLICY: Policy = {
    "recall_at_10": Demand(max_drop=0.02),
    "ndcg_at_10": Demand(max_drop=0.03),
    "vector_recall_at_10": Demand(max_drop=0.05),
    "keyword_recall_at_10": Demand(max_drop=0.05),
    "contains_gold": Demand(max_drop=0.05),
    "citation_recall": Demand(max_drop=0.05),
    "refusal_accuracy": Demand(max_drop=0.05),
}
"""Without ``gate:`` in the file: no worse than what serves, beyond what two or three of a hundred questions do. Of words
shared with the reference (``token_f1``) nothing is asked: it did not tell chunks of 16 tokens from chunks of 200."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A demand that was not met.

    Attributes:
        value: of the candidate, on the cases compared; None: not one case was scored.
        needed: what it had to be at least; of latencies and costs, at most.
        serving_value: of the serving release, when it is the drop that is too large.
        questions: of the cases that cost most of it, the worst first.
    """

    metric: str
    value: float | None
    needed: float
    serving_value: float | None
    questions: tuple[str, ...]

    def __str__(self) -> str:
        comparison = "at most" if self.metric in LOWER_IS_BETTER else "at least"
        said = f"{self.metric} is {_number(self.value)}, needed {comparison} {_number(self.needed)}"
        if self.serving_value is not None:
            said += f" (the serving release has {_number(self.serving_value)})"
        return said + ("" if not self.questions else "; worst: " + " · ".join(self.questions))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate decides about one golden set. ``compared_with``: the serving release, None when there was none."""

    golden_set: str
    passed: bool
    failures: tuple[Failure, ...]
    compared_with: str | None


def policy_of(gate: Mapping[str, Any] | None, where: str) -> Policy:
    """Return the policy that a golden set's ``gate:`` means.

    Args:
        where: the file, for errors.

    Raises:
        ConfigurationError: an unknown demand, or a value that is no number.
    """
    policy = dict(DEFAULT_POLICY)
    for metric, demands in (gate or {}).items():
        if demands is None:
            policy.pop(metric, None)
            continue
        bound = "max" if metric in LOWER_IS_BETTER else "min"
        known = (bound, "max_drop")
        if not isinstance(demands, Mapping) or not demands or not set(demands) <= set(known):
            raise ConfigurationError(
                f"{where}: gate {metric}: must be a mapping with {' and/or '.join(known)}, or null"
            )
        values = {name: _checked(value, f"{where}: gate {metric}: {name}") for name, value in demands.items()}
        policy[metric] = Demand(values.get(bound), values.get("max_drop"))
    return policy


def decide(policy: Policy, candidate: EvaluationReport, serving: EvaluationReport | None) -> Verdict:
    """Return whether a candidate may serve, by two complete evaluations of the same set.

    A metric that was not measured for the candidate at all, although the policy demands a value of it, is a failure: an
    exam that was not held is not passed. Without a serving release only the absolute demands count.

    Raises:
        ValueError: the reports are of different sets.
    """
    if serving is not None and (candidate.golden_set, candidate.set_fingerprint) != (
        serving.golden_set,
        serving.set_fingerprint,
    ):
        raise ValueError("the two evaluations are of different golden sets")
    found: list[Failure] = []
    for metric, demand in policy.items():
        failure = _absolute(metric, demand, candidate) or (
            None if serving is None else _relative(metric, demand, candidate, serving)
        )
        if failure is not None:
            found.append(failure)
    compared = None if serving is None else serving.release_id
    return Verdict(candidate.golden_set, not found, tuple(found), compared)


def _absolute(metric: str, demand: Demand, candidate: EvaluationReport) -> Failure | None:
    if demand.limit is None:
        return None
    summary = candidate.metrics.get(metric)
    value = None if summary is None else summary.mean
    sign = _sign(metric)
    if value is not None and sign * value >= sign * demand.limit:
        return None
    questions = tuple(c.question for c in candidate.worst(metric, WORST_QUESTIONS))
    return Failure(metric, value, demand.limit, None, questions)


def _relative(metric: str, demand: Demand, candidate: EvaluationReport, serving: EvaluationReport) -> Failure | None:
    if demand.max_drop is None:
        return None
    name = CASE_METRIC.get(metric, metric)
    before = {c.case_id: v for c in serving.cases if (v := c.scores.get(name)) is not None}
    pairs = [
        (c, v, before[c.case_id])
        for c in candidate.cases
        if (v := c.scores.get(name)) is not None and c.case_id in before
    ]
    if not before:
        return None  # the serving release was not scored on it either: there is nothing to be worse than
    sign = _sign(metric)
    if not pairs:
        return Failure(metric, None, _mean(list(before.values())) - sign * demand.max_drop, None, ())
    value, old = _of_all(metric, [v for _, v, _ in pairs]), _of_all(metric, [o for _, _, o in pairs])
    needed = old - sign * demand.max_drop
    if sign * value >= sign * needed - 1e-9:
        return None
    return Failure(metric, value, needed, old, _lost(pairs, sign))


def _lost(pairs: Sequence[tuple[CaseResult, float, float]], sign: float) -> tuple[str, ...]:
    """The questions whose own value fell, the farthest first."""
    fallen = [(sign * (new - old), case) for case, new, old in pairs if sign * (new - old) < 0]
    return tuple(c.question for _, c in sorted(fallen, key=lambda f: (f[0], f[1].case_id))[:WORST_QUESTIONS])


def _of_all(metric: str, values: Sequence[float]) -> float:
    """The metric over cases: a percentile of latencies, else the mean."""
    if metric in CASE_METRIC:
        share = int(metric.rsplit("_p", 1)[1]) / 100
        ordered = sorted(values)
        at = share * (len(ordered) - 1)
        low = math.floor(at)
        return ordered[low] + (at - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])
    return _mean(values)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _sign(metric: str) -> float:
    return -1.0 if metric in LOWER_IS_BETTER else 1.0


def _checked(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigurationError(f"{where}: must be a number")
    return float(value)


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
