"""The gate: what a candidate must reach, and what it says when it does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from rag_platform.errors import ConfigurationError
from rag_platform.evaluation.gate import DEFAULT_POLICY, Demand, decide, policy_of
from rag_platform.evaluation.report import CaseResult, EvaluationReport, MetricSummary


def report(release: str, scores: Mapping[str, Mapping[str, float | None]], fingerprint: str = "f") -> EvaluationReport:
    """A report over the cases of ``scores`` (case → metric → value)."""
    values: dict[str, list[float]] = {}
    for of_case in scores.values():
        for metric, value in of_case.items():
            if value is not None:
                values.setdefault(metric, []).append(value)
    metrics = {m: MetricSummary(m, sum(v) / len(v), len(v)) for m, v in values.items()}
    cases = tuple(CaseResult(name, f"What about {name}?", dict(s), False) for name, s in scores.items())
    return EvaluationReport(f"e-{release}", release, "set", fingerprint, metrics, cases, 1.0, 0.0)


def recalls(release: str, **values: float | None) -> EvaluationReport:
    return report(release, {name: {"recall_at_10": value} for name, value in values.items()})


def test_no_worse_than_what_serves_passes() -> None:
    """Equal, better, and worse by less than the policy allows."""
    serving = recalls("old", a=1.0, b=0.5)
    for values in ({"a": 1.0, "b": 0.5}, {"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 0.46}):
        verdict = decide(DEFAULT_POLICY, recalls("new", **values), serving)
        assert verdict.passed and verdict.failures == () and verdict.compared_with == "old"


def test_a_drop_is_named_with_its_questions() -> None:
    """Metric, values, what was needed, and the questions that lost most, the worst first."""
    serving = recalls("old", a=1.0, b=1.0, c=0.5, d=0.0)
    verdict = decide(DEFAULT_POLICY, recalls("new", a=0.5, b=0.0, c=0.5, d=1.0), serving)
    [failure] = verdict.failures
    assert not verdict.passed
    assert (failure.metric, failure.value, failure.serving_value) == ("recall_at_10", 0.5, 0.625)
    assert failure.needed == pytest.approx(0.605)
    assert failure.questions == ("What about b?", "What about a?")
    for words in ("recall_at_10 is 0.500", "at least 0.605", "has 0.625", "What about b?"):
        assert words in str(failure)


def test_only_cases_that_both_were_scored_on_are_compared() -> None:
    """A hard case that the serving release could not be asked does not make the candidate worse."""
    serving = recalls("old", a=1.0, hard=None)
    assert decide(DEFAULT_POLICY, recalls("new", a=1.0, hard=0.0), serving).passed
    assert not decide(DEFAULT_POLICY, recalls("new", a=None, hard=1.0), serving).passed, "nothing that can be compared"


def test_absolute_demands_hold_without_a_serving_release() -> None:
    """Too low is refused, and so is what was never measured; what is not demanded may be anything."""
    policy = policy_of({"mrr": {"min": 0.8}}, "set.yaml")
    low = report("new", {"a": {"mrr": 0.5}, "b": {"mrr": 1.0}})
    [failure] = decide(policy, low, None).failures
    assert (failure.metric, failure.value, failure.needed) == ("mrr", 0.75, 0.8)
    assert failure.questions[0] == "What about a?"
    [missing] = decide(policy, recalls("new", a=0.1), None).failures
    assert missing.value is None and "not measured" in str(missing)
    assert decide(policy, report("new", {"a": {"mrr": 0.8}}), None).passed


def test_of_latencies_the_highest_counts() -> None:
    """A limit and a growth of a percentile; faster is never a failure."""
    policy = policy_of({"latency_ms_p95": {"max_drop": 50}}, "set.yaml")
    slow = {f"q{n}": {"latency_ms": 100.0 + n} for n in range(20)}
    slower = {name: {"latency_ms": s["latency_ms"] + 60} for name, s in slow.items()}
    [failure] = decide(policy, report("new", slower), report("old", slow)).failures
    assert failure.metric == "latency_ms_p95" and "at most" in str(failure)
    assert failure.value == pytest.approx(failure.serving_value + 60)  # type: ignore[operator]
    assert decide(policy, report("new", slow), report("old", slower)).passed


def test_a_file_changes_the_default_policy_metric_by_metric() -> None:
    """What it does not name stays; null takes a demand away."""
    policy = policy_of({"contains_gold": None, "recall_at_10": {"min": 0.9}, "latency_ms_p95": {"max": 2000}}, "x")
    assert "contains_gold" not in policy
    assert policy["recall_at_10"] == Demand(limit=0.9) and policy["latency_ms_p95"] == Demand(limit=2000.0)
    assert policy["ndcg_at_10"] == DEFAULT_POLICY["ndcg_at_10"]
    assert policy_of(None, "x") == DEFAULT_POLICY


@pytest.mark.parametrize(
    "gate",
    [{"mrr": 0.8}, {"mrr": {}}, {"mrr": {"max": 0.8}}, {"cost_usd": {"min": 1}}, {"mrr": {"min": "high"}},
     {"mrr": {"min": True}}, {"mrr": {"min": float("nan")}}],
)  # fmt: skip
def test_a_policy_that_cannot_be_meant_is_refused(gate: dict[str, Any]) -> None:
    """With the file and the metric."""
    with pytest.raises(ConfigurationError, match=r"set\.yaml: gate (mrr|cost_usd)"):
        policy_of(gate, "set.yaml")


def test_different_sets_are_not_compared() -> None:
    """The questions changed between the two evaluations."""
    with pytest.raises(ValueError, match="different golden sets"):
        decide(DEFAULT_POLICY, recalls("new", a=1.0), report("old", {"a": {"recall_at_10": 1.0}}, "other"))
