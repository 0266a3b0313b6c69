"""``rag evaluate``: how well a release answers the questions of the golden sets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer

from rag_platform import telemetry
from rag_platform.commands import console
from rag_platform.commands.release_choice import find
from rag_platform.errors import ConfigurationError
from rag_platform.evaluation.evaluators.opening import open_evaluators
from rag_platform.evaluation.golden import GoldenSet, golden_sets, load
from rag_platform.evaluation.report import CaseResult, EvaluationReport, MetricSummary
from rag_platform.evaluation.run import evaluate as evaluate_release
from rag_platform.ledger import Ledger, open_ledger
from rag_platform.ledger.releases import Release
from rag_platform.settings import Settings

WORST = 5
JUDGED_BY = ("ndcg_at_10", "contains_gold", "citation_recall", "refusal_accuracy")
"""What decides which questions went worst: the mean of these."""
COUNTS = ("scored", "nan", "failed", "empty", "missing")


@console.handles_errors
def evaluate(
    release: Annotated[
        str | None, typer.Option(help="The release to ask; default: the one that serves. See `rag release list`.")
    ] = None,
    golden: Annotated[
        str | None, typer.Option(help="A golden set by its name, or the path of its file; default: all of them.")
    ] = None,
    no_answers: Annotated[
        bool, typer.Option("--no-answers", help="Measure retrieval only: no generator, no judge, no bill for them.")
    ] = False,
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Ask a release every question of the golden sets and score what it finds and answers.

    Goes through the query pipeline of live questions, each as the reader that its case names, and leaves no trace in
    caches, query log or metrics of traffic. What is scored is kept: interrupted, it goes on where it was, and a
    release that has not changed is not asked again.

    Exit codes: 0 done · 1 a dependency failed, or questions got no answer · 2 bad usage.
    """
    settings = console.load_settings()
    sets = _sets(settings, golden)
    ledger = open_ledger(settings)
    try:
        chosen = find(ledger, release)
        with console.progress_bars(not json):
            reports = asyncio.run(_all(settings, ledger, chosen, sets, answers=not no_answers))
    finally:
        ledger.close()
    if json:
        console.emit({"release_id": chosen.release_id, "evaluations": [r.as_json() for r in reports]})
    else:
        for report in reports:
            _show(report)
    failed = sum(c.failure is not None for r in reports for c in r.cases)
    if failed:
        cases = sum(len(r.cases) for r in reports)
        console.fail(
            f"{failed} of {cases} questions got no answer; the same command asks them again", console.EXIT_DEPENDENCY
        )


async def _all(
    settings: Settings, ledger: Ledger, release: Release, sets: Sequence[GoldenSet], *, answers: bool
) -> list[EvaluationReport]:
    reports = []
    async with AsyncExitStack() as opened:
        evaluators = open_evaluators(settings, ledger) if answers else []
        for evaluator in evaluators:
            opened.push_async_callback(evaluator.aclose)
        for one in sets:
            report = await evaluate_release(
                settings,
                ledger,
                release,
                one,
                evaluators=evaluators,
                answers=answers,
                progress=lambda done, cases: telemetry.report_progress("evaluate", done, cases),
            )
            reports.append(report)
        for note in dict.fromkeys(note for e in evaluators for note in e.notes):
            console.err.print(f"[yellow]left for later[/yellow]: {console.escape(note)}", soft_wrap=True)
    return reports


def _sets(settings: Settings, golden: str | None) -> list[GoldenSet]:
    if golden is not None and (golden.endswith((".yaml", ".yml")) or "/" in golden):
        return [load(Path(golden))]
    sets = golden_sets(settings)
    place = settings.resolved_golden_dir
    if not sets:
        raise ConfigurationError(
            f"there is no golden set in {place}: `rag golden add` or `rag golden import` makes one"
        )
    if golden is None:
        return sets
    chosen = [s for s in sets if s.name == golden]
    if not chosen:
        known = ", ".join(s.name for s in sets)
        raise ConfigurationError(f"there is no golden set {golden!r} in {place}; there are {known}")
    return chosen


def _show(report: EvaluationReport) -> None:
    counts = [n for n in COUNTS if n == "scored" or any(getattr(m, n) for m in report.metrics.values())]
    console.show_table(
        f"{report.golden_set}: {len(report.cases)} questions, release {report.release_id}",
        ("metric", "value", "95 % interval", *counts),
        (
            (m.metric, _number(m.mean), _interval(m), *(getattr(m, n) or "" for n in counts))
            for m in report.metrics.values()
        ),
    )
    worst = _worst(report)
    if worst:
        console.out.print("[bold]worst questions[/bold]")
    for c in worst:
        scores = " · ".join(f"{m} {_number(v)}" for m in JUDGED_BY if (v := c.scores.get(m)) is not None)
        documents = c.failure or ("refused" if c.refused else ", ".join(c.answer_uris[:3]))
        console.out.print(f"  {console.escape(c.question)}", soft_wrap=True)
        console.out.print(
            f"    [dim]{console.escape(' — '.join(filter(None, (scores, documents))))}[/dim]", soft_wrap=True
        )
    if report.usd:
        console.out.print(f"[dim]${report.usd:.4f}[/dim]")
    if report.index_moved:
        console.err.print(
            "[yellow]warning[/yellow]: the index changed meanwhile, so these scores are of no one state of it; "
            "evaluate again"
        )


def _worst(report: EvaluationReport) -> list[CaseResult]:
    """The cases with the lowest mean of ``JUDGED_BY``, failed ones first; those without a fault are left out."""

    def mean(case: CaseResult) -> float:
        if case.failure is not None:
            return -1.0
        values = [v for m in JUDGED_BY if (v := case.scores.get(m)) is not None]
        return sum(values) / len(values) if values else 1.0

    return sorted((c for c in report.cases if mean(c) < 1), key=lambda c: (mean(c), c.case_id))[:WORST]


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.0f}"


def _interval(m: MetricSummary) -> str:
    return "" if m.low is None else f"{_number(m.low)} – {_number(m.high)}"
