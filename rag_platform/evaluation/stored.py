"""Evaluations as the ledger holds them."""

from __future__ import annotations

from rag_platform.evaluation.golden import GoldenSet
from rag_platform.evaluation.measure import summaries
from rag_platform.evaluation.report import CaseResult, EvaluationReport, MetricSummary
from rag_platform.ledger import Ledger
from rag_platform.ledger.evaluations import Evaluation


def stored_report(ledger: Ledger, evaluation: Evaluation, golden: GoldenSet) -> EvaluationReport:
    """Return what the ledger holds of an evaluation of this set, complete or not."""
    rows = ledger.evaluations.scores(evaluation.evaluation_id)
    cases = {c.case_id: c for c in ledger.evaluations.cases(evaluation.evaluation_id)}
    by_case: dict[str, dict[str, float | None]] = {}
    for row in rows:
        by_case.setdefault(row.case_id, {})[row.metric] = row.value
    results = tuple(
        CaseResult(g.case_id, g.question, by_case.get(g.case_id, {}), c.refused, c.uris, c.failure)
        for g in golden.cases
        if (c := cases.get(g.case_id)) is not None
    )
    summary = evaluation.summary
    if summary is None:
        metrics = summaries(rows, tuple(dict.fromkeys(r.metric for r in rows)), len(cases))
    else:
        metrics = {name: MetricSummary(**values) for name, values in summary["metrics"].items()}
    return EvaluationReport(
        evaluation.evaluation_id,
        evaluation.release_id,
        evaluation.golden_set,
        evaluation.set_fingerprint,
        metrics,
        results,
        seconds=sum(c.seconds for c in cases.values()),
        usd=sum(c.usd or 0.0 for c in cases.values()) + sum(r.usd for r in rows),
        index_moved=summary is not None and bool(summary["index_moved"]),
    )
