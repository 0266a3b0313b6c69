"""evaluation_report: how well a release answers, and whether a candidate may serve."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from rag_platform import telemetry
from rag_platform.assets.presentation import OWNERS, QUALITY, record, table
from rag_platform.assets.scores import scores
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.evaluation.exam import Exam
from rag_platform.evaluation.promotion import hold_exam, refusal
from rag_platform.evaluation.report import EvaluationReport
from rag_platform.evaluation.serving import evaluate_serving
from rag_platform.resources import PlatformResource

Events = dg.Output[None] | dg.AssetCheckResult
ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN


class EvaluationConfig(dg.Config):
    """What to evaluate."""

    of: str = "candidate"
    """candidate: what waits to serve, beside what serves; nothing when none waits. serving: what serves, with RAGAS."""
    store: str | None = None
    """The vector store of the candidate; None: RAG_VECTOR_STORE."""


@dg.asset(
    deps=[
        dg.AssetDep(name, partition_mapping=dg.AllPartitionMapping()) for name in ("vector_index", "keyword_replica")
    ],
    group_name=QUALITY,
    owners=OWNERS,
    kinds={"ragas"},
    output_required=False,
    check_specs=[
        dg.AssetCheckSpec(
            "gate",
            asset="evaluation_report",
            blocking=True,
            description="A candidate reaches on every golden set what `gate:` of its file demands. Blocks its "
            "promotion. An error when it is refused; a warning as long as the same candidate stays refused.",
        ),
        dg.AssetCheckSpec(
            "every_question_answered",
            asset="evaluation_report",
            description="No question of the golden sets was left without an answer by a failure.",
        ),
    ],
    description="Golden sets asked of a release: of each candidate, beside the release that serves; and of that one by "
    "the schedule `weekly_evaluation`, with RAGAS. Every case is kept in the ledger. Skipped while no candidate waits.",
)
def evaluation_report(
    context: dg.AssetExecutionContext, config: EvaluationConfig, platform: PlatformResource
) -> Iterator[Events]:
    if config.of not in ("candidate", "serving"):
        raise dg.Failure(f"of: must be candidate or serving, not {config.of!r}", allow_retries=False)
    bench = platform.bench if config.store is None else platform.bench.in_store(config.store)

    def progress(done: int, cases: int) -> None:
        telemetry.report_progress("evaluate", done, cases)

    exam: Exam | None = None
    reports: list[EvaluationReport] = []
    candidates: list[EvaluationReport] = []
    notes: list[str] = []
    try:
        if config.of == "serving":
            reports, notes = evaluate_serving(bench, progress)
        else:
            exam = hold_exam(bench, progress)
            if exam is not None:
                candidates, notes = [p.candidate for p in exam.papers], list(exam.notes)
                reports = [p.serving for p in exam.papers if p.serving is not None]
    except (DependencyError, ConfigurationError) as e:
        outage = isinstance(e, DependencyError)
        if outage:
            record(context, bench, {"outage": 1})
        raise dg.Failure(
            f"{e} — what was scored is kept: the next run goes on from there",
            allow_retries=isinstance(e, DependencyError) and e.retryable,
        ) from e
    for note in notes:
        context.log.warning(note)
    if reports or candidates:
        yield dg.Output(None, metadata=scores(reports, notes, candidates))
    yield _answered(candidates or reports)
    yield _gate(exam)


def _answered(reports: list[EvaluationReport]) -> dg.AssetCheckResult:
    cases = [c for r in reports for c in r.cases]
    failed = [(c.question, c.failure) for c in cases if c.failure is not None]
    metadata: dict[str, Any] = {"questions": len(cases), "failed": len(failed)}
    if failed:
        metadata["questions_without_answer"] = table(("question", "error"), failed)
    return dg.AssetCheckResult(
        check_name="every_question_answered",
        passed=not failed,
        severity=WARN,
        metadata=metadata,
        description=f"{len(failed)} of {len(cases)} got no answer" if cases else "nothing was asked",
    )


def _gate(exam: Exam | None) -> dg.AssetCheckResult:
    if exam is None:
        return dg.AssetCheckResult(check_name="gate", passed=True, description="no candidate waits for a decision")
    demands = [(p.verdict.golden_set, f) for p in exam.papers for f in p.verdict.failures]
    metadata: dict[str, Any] = {"release": exam.release_id, "failed_demands": len(demands)}
    if demands:
        metadata["demands"] = table(
            ("golden set", "metric", "candidate", "needed", "serving", "worst questions"),
            (
                (name, f.metric, _cell(f.value), _cell(f.needed), _cell(f.serving_value), " · ".join(f.questions))
                for name, f in demands
            ),
        )
    return dg.AssetCheckResult(
        check_name="gate",
        passed=exam.passed,
        severity=WARN if exam.known or exam.moved else ERROR,
        metadata=metadata,
        description="passed" if exam.passed else refusal(exam),
    )


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
