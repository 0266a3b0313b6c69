"""The release that serves, evaluated in full: golden sets with every evaluator, and a sample of its traffic."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from rag_platform.evaluation.evaluators.opening import open_evaluators
from rag_platform.evaluation.golden import golden_sets
from rag_platform.evaluation.report import EvaluationReport
from rag_platform.evaluation.run import evaluate
from rag_platform.evaluation.traffic import TrafficReport, evaluate_traffic
from rag_platform.ingestion.workbench import Workbench

DAY_S = 86_400
TRAFFIC_DAYS = 7

Progress = Callable[[int, int], None]


def evaluate_serving(bench: Workbench, progress: Progress) -> tuple[list[EvaluationReport], list[str]]:
    """Evaluate the serving release on every golden set; return the reports and what evaluators left for later.

    Nothing to evaluate (no release, no golden set) gives no report and a note.

    Raises:
        DependencyError: a dependency is down; what was scored is kept.
        ConfigurationError: a golden set cannot be read, or an evaluator is set up so that it cannot work.
    """
    serving, sets = bench.ledger.releases.serving(), golden_sets(bench.settings)
    if serving is None:
        return [], ["nothing serves yet: run `rag ingest`"]
    if not sets:
        return [], [f"there is no golden set in {bench.settings.resolved_golden_dir}: see `rag golden add`"]

    async def work() -> tuple[list[EvaluationReport], list[str]]:
        reports: list[EvaluationReport] = []
        cases = sum(len(one.cases) for one in sets)
        async with AsyncExitStack() as opened:
            evaluators = open_evaluators(bench.settings, bench.ledger)
            for evaluator in evaluators:
                opened.push_async_callback(evaluator.aclose)
            before = 0
            for golden in sets:
                report = await evaluate(
                    bench.settings,
                    bench.ledger,
                    serving,
                    golden,
                    evaluators=evaluators,
                    progress=lambda done, _, before=before: progress(before + done, cases),  # type: ignore[misc]
                )
                reports.append(report)
                before += len(golden.cases)
            return reports, _notes([note for e in evaluators for note in e.notes])

    return bench.run(work())


def evaluate_last_traffic(
    bench: Workbench, progress: Progress, *, days: int = TRAFFIC_DAYS, now: float | None = None
) -> tuple[TrafficReport, list[str]]:
    """Score the sample of the last whole days (UTC) of live traffic; return it and what evaluators left for later.

    Raises:
        DependencyError: a store, or what an evaluator needs, is down; what was scored is kept.
        ConfigurationError: an evaluator is set up so that it cannot work.
    """
    until = (time.time() if now is None else now) // DAY_S * DAY_S

    async def work() -> tuple[TrafficReport, list[str]]:
        async with AsyncExitStack() as opened:
            evaluators = open_evaluators(bench.settings, bench.ledger, traffic=True)
            for evaluator in evaluators:
                opened.push_async_callback(evaluator.aclose)
            since = until - days * DAY_S
            report = await evaluate_traffic(bench.settings, bench.ledger, since, until, evaluators, progress=progress)
            return report, _notes([note for e in evaluators for note in e.notes])

    return bench.run(work())


def _notes(notes: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(notes))
