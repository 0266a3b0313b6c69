"""How evaluations become metadata that a person reads in the Dagster UI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from rag_platform.assets.presentation import table
from rag_platform.evaluation.report import EvaluationReport

TREND = (
    "recall_at_10", "vector_recall_at_10", "keyword_recall_at_10", "ndcg_at_10", "contains_gold", "citation_recall", "refusal_accuracy", "latency_ms_p95", "cost_usd",
)  # fmt: skip
"""Numbers that Dagster plots over the materializations, beside all of RAGAS."""
WORST = 5


def scores(
    serving: Sequence[EvaluationReport], notes: Sequence[str], candidates: Sequence[EvaluationReport] = ()
) -> dict[str, Any]:
    """Return the metadata of evaluations: a number for each trend, tables of all metrics and of the worst cases.

    Args:
        serving: of what answers readers: the trends ``SET/METRIC``.
        candidates: of what waits to, whose trends are plots of their own, ``candidate/SET/METRIC``.
    """
    metadata: dict[str, Any] = {}
    for prefix, of_release in (("candidate/", candidates), ("", serving)):
        for report in of_release:
            for name, summary in report.metrics.items():
                if summary.mean is not None and (name in TREND or name.startswith("ragas_")):
                    metadata[f"{prefix}{report.golden_set}/{name}"] = round(summary.mean, 4)
    reports, asked = [*candidates, *serving], candidates or serving
    metadata["questions"] = sum(len(r.cases) for r in asked)
    metadata["release"] = ", ".join(sorted({r.release_id for r in asked}))
    metadata["cost_usd"] = round(sum(r.usd for r in reports), 6)
    metadata["metrics"] = table(
        ("release", "golden set", "metric", "value", "low", "high", "scored", "not scored"),
        (
            (
                r.release_id,
                r.golden_set,
                m.metric,
                _cell(m.mean),
                _cell(m.low),
                _cell(m.high),
                m.scored,
                ", ".join(f"{n} {k}" for k in ("nan", "failed", "empty", "missing") if (n := getattr(m, k))),
            )
            for r in reports
            for m in r.metrics.values()
        ),
    )
    worst = [(r, c) for r in asked for c in r.worst("ndcg_at_10", WORST) if (c.scores["ndcg_at_10"] or 0.0) < 1.0]
    if worst:
        metadata["worst_questions"] = table(
            ("golden set", "question", "ndcg_at_10", "cited or found"),
            ((r.golden_set, c.question, _cell(c.scores["ndcg_at_10"]), ", ".join(c.answer_uris[:3])) for r, c in worst),
        )
    if notes:
        metadata["notes"] = dg.MetadataValue.md("\n".join(f"- {note}" for note in notes))
    return metadata


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
