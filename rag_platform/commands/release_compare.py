"""``rag release compare``: what readers asked, asked again of two releases."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
import typer

from rag_platform import telemetry
from rag_platform.commands import console
from rag_platform.commands.release_choice import find
from rag_platform.errors import ConfigurationError
from rag_platform.evaluation.changes import Side
from rag_platform.evaluation.replay import Replayed, ReplayReport, Selection, replay, select
from rag_platform.ledger import Ledger, open_ledger
from rag_platform.ledger.releases import Release

SHOWN = 20
SHOWN_DOCUMENTS = 5
SHOWN_CHARS = 300


@console.handles_errors
def compare(
    before: Annotated[str | None, typer.Argument(help="A release by its id; default: the one that serves.")] = None,
    after: Annotated[str | None, typer.Argument(help="Another one; default: the newest candidate.")] = None,
    last: Annotated[int, typer.Option(min=1, help="Distinct questions to ask, the newest of the log.")] = 200,
    days: Annotated[float, typer.Option(min=0, help="How far to look back in the log.")] = 7.0,
    no_answers: Annotated[
        bool, typer.Option("--no-answers", help="Compare what is found only: no generator, no bill for it.")
    ] = False,
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Ask two releases what readers have asked, and show what changes: documents, ranks, answers, time and cost.

    Needs RAG_QUERY_LOG=full. Every question is asked with the permissions of the reader who asked it. Nothing reaches
    caches, query log or metrics. The questions that change most are printed, with both answers, on this terminal only.

    Exit codes: 0 done · 1 a dependency failed · 2 bad usage, or there is nothing to replay.
    """
    settings = console.load_settings()
    ledger = open_ledger(settings)
    try:
        one, other = _pair(ledger, before, after)
        selection = select(ledger, time.time() - days * 86_400, last)
        with console.progress_bars(not json):
            report = asyncio.run(
                replay(
                    settings,
                    ledger,
                    one,
                    other,
                    selection.questions,
                    answers=not no_answers,
                    progress=lambda done, total: telemetry.report_progress("replay", done, total),
                )
            )
    finally:
        ledger.close()
    if json:
        console.emit(_as_json(report, selection))
    else:
        _show(report, selection)


def _pair(ledger: Ledger, before: str | None, after: str | None) -> tuple[Release, Release]:
    one = find(ledger, before)
    if after is not None:
        other = find(ledger, after)
    else:
        candidates = [r for r in ledger.releases.all() if r.state == "candidate" and r.release_id != one.release_id]
        if not candidates:
            raise ConfigurationError("there is no candidate to compare with: name two releases, see `rag release list`")
        other = candidates[-1]
    if one.release_id == other.release_id:
        raise ConfigurationError(f"{one.release_id} is one release: name another one to compare it with")
    return one, other


def _summary(report: ReplayReport) -> dict[str, Any]:
    found = report.replayed
    sides: list[tuple[str, Sequence[Side]]] = [
        (report.before, [r.before for r in found]),
        (report.after, [r.after for r in found]),
    ]
    answered = [r.change.answer for r in found if r.change.answer is not None]
    return {
        "questions": len(found),
        "failed": report.failed,
        "document_overlap": _mean([1.0 - r.change.documents for r in found]),
        "rank_change": _mean([r.change.ranks for r in found]),
        "answer_change": _mean(answered),
        "unchanged": sum(r.change.score == 0 for r in found),
        "refused_only_by": {
            report.before: sum(r.before.refused and not r.after.refused for r in found),
            report.after: sum(r.after.refused and not r.before.refused for r in found),
        },
        "latency_ms": {name: {"p50": _percentile(said, 50), "p95": _percentile(said, 95)} for name, said in sides},
        "usd": {name: sum(s.usd or 0.0 for s in said) for name, said in sides},
    }


def _as_json(report: ReplayReport, selection: Selection) -> dict[str, Any]:
    return {
        "before": report.before,
        "after": report.after,
        "log": {"rows": selection.rows, "without_text": selection.without_text},
        **_summary(report),
        "most_changed": [
            {
                "request_id": r.logged.row.request_id,
                "question": r.logged.row.question,
                "times": r.logged.times,
                "change": asdict(r.change),
                "before": asdict(r.before),
                "after": asdict(r.after),
            }
            for r in report.replayed[:SHOWN]
        ],
    }


def _show(report: ReplayReport, selection: Selection) -> None:
    summary = _summary(report)
    rows = [
        ("questions", summary["questions"]),
        ("without any change", summary["unchanged"]),
        ("overlap of the documents found", _number(summary["document_overlap"])),
        ("change of the ranks (0 to 1)", _number(summary["rank_change"])),
        ("change of the answers (0 to 1)", _number(summary["answer_change"])),
    ]
    for name in (report.before, report.after):
        latency = summary["latency_ms"][name]
        rows += [
            (f"{name}: refused by it alone", summary["refused_only_by"][name]),
            (f"{name}: milliseconds, P50 / P95", f"{_number(latency['p50'])} / {_number(latency['p95'])}"),
            (f"{name}: dollars", f"{summary['usd'][name]:.4f}"),
        ]
    console.show_table(f"{report.before} → {report.after}", ("", ""), rows)
    if selection.without_text:
        console.out.print(f"[dim]{selection.without_text} of {selection.rows} logged questions have no text[/dim]")
    changed = [r for r in report.replayed if r.change.score > 0][:SHOWN]
    if changed:
        console.out.print(f"[bold]the {len(changed)} most changed[/bold]")
    for r in changed:
        _show_one(r, report)
    if report.failed:
        console.err.print(f"[yellow]warning[/yellow]: {report.failed} questions got no answer from one of the two")


def _show_one(r: Replayed, report: ReplayReport) -> None:
    o, row = console.out, r.logged.row
    times = f", asked {r.logged.times} times" if r.logged.times > 1 else ""
    o.print(f"\n[bold]{console.escape(row.question or '')}[/bold]", soft_wrap=True)
    answer = "" if r.change.answer is None else f" · answer {r.change.answer:.2f}"
    o.print(f"  [dim]{row.request_id}{times}: change {r.change.score:.2f} (ranks {r.change.ranks:.2f}{answer})[/dim]")
    rank = {uri: n for n, uri in enumerate(r.before.documents, 1)}
    console.show_table(
        "",
        (report.before, report.after),
        [
            (_text(r.before), _text(r.after)),
            (
                "\n".join(f"{n}. {uri}" for n, uri in enumerate(r.before.documents[:SHOWN_DOCUMENTS], 1)),
                "\n".join(
                    f"{n}. {uri} {_moved(rank.get(uri), n)}"
                    for n, uri in enumerate(r.after.documents[:SHOWN_DOCUMENTS], 1)
                ),
            ),
        ],
    )


def _text(side: Side) -> str:
    if side.answer is None:
        return "(found)"
    text = "(refused)" if side.refused else " ".join(side.answer.split())
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"


def _moved(before: int | None, now: int) -> str:
    if before is None:
        return "(new)"
    return "" if before == now else f"({'+' if before > now else '-'}{abs(before - now)})"


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _percentile(said: Sequence[Side], q: float) -> float | None:
    return float(np.percentile([s.ms for s in said], q)) if said else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if value < 10 else f"{value:,.0f}"
