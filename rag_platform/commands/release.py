"""``rag release``: which index serves, why, and how to change that."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import typer

from rag_platform import telemetry
from rag_platform.commands import console, release_compare, release_diff
from rag_platform.commands.release_choice import SHOWN, find, newest_evaluations
from rag_platform.evaluation import promotion
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.evaluations import Evaluation
from rag_platform.ledger.releases import Release, ReleaseDecision

app = typer.Typer(no_args_is_help=True, help="Releases of the index: which one serves, and why.")
app.command("diff")(release_diff.diff)
app.command("compare")(release_compare.compare)

RELEASE = typer.Argument(help="A release by its id, or the beginning of it; see `rag release list`.")


@app.command("list")
@console.handles_errors
def list_releases(json: Annotated[bool, console.JSON_OPTION] = False) -> None:
    """List releases; one of them serves."""
    with Workbench(console.load_settings()) as bench:
        rows = [_row(bench, r) for r in bench.ledger.releases.all()]
    if json:
        console.emit(rows)
        return
    console.show_table(
        "releases",
        ("release", "state", "promoted", "made by", "chunks"),
        (
            (
                r["release_id"],
                r["state"] + _but(r["decision"]),
                _minutes(r["promoted_at"]),
                r["embedder"] + (f" in {r['store']}" if len({x["store"] for x in rows}) > 1 else ""),
                r["chunks"],
            )
            for r in rows
        ),
    )


@app.command()
@console.handles_errors
def show(
    release: Annotated[str | None, typer.Argument(help="A release by its id; default: the one that serves.")] = None,
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Show one release: what made it, what it holds, how it scores, and what was decided about it."""
    with Workbench(console.load_settings()) as bench:
        chosen = find(bench.ledger, release)
        row = _row(bench, chosen)
        evaluations = newest_evaluations(bench.ledger, chosen)
        decisions = bench.ledger.releases.decisions(chosen.release_id, limit=20)
    if json:
        scores = {e.golden_set: e.summary for e in evaluations}
        console.emit(
            {
                **row,
                "pipeline": dict(chosen.pipeline),
                "evaluations": scores,
                "decisions": [_decided(d) for d in decisions],
            }
        )
        return
    o = console.out
    o.print(f"[bold]release[/bold]   {chosen.release_id}, {chosen.state}, in {chosen.store}")
    o.print(f"[bold]holds[/bold]     {row['documents']} documents, {row['chunks']} chunks")
    for name, value in release_diff.described(chosen).items():
        o.print(f"[bold]{name:<9}[/bold] {console.escape(value)}")
    if evaluations:
        console.show_table(
            "evaluations",
            ("golden set", "when", "by", *SHOWN),
            ((e.golden_set, console.when(e.finished_at), e.evaluator, *_means(e)) for e in evaluations),
        )
    else:
        o.print(f"not evaluated: `rag evaluate --release {chosen.release_id}`")
    show_decisions(decisions)


@app.command()
@console.handles_errors
def promote(
    release: Annotated[str, RELEASE],
    force: Annotated[
        bool, typer.Option("--force", help="Without an exam, and although documents are missing in it.")
    ] = False,
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Let a release serve: bring its index up to date, ask it the golden sets, and switch when it passes.

    No question fails meanwhile; the query API follows within RAG_RELEASE_POLL_S seconds.

    Exit codes: 0 it serves · 1 a dependency failed · 2 bad usage, or it is not complete · 5 it did not pass the gate.
    """
    with Workbench(console.load_settings()) as bench:
        chosen = find(bench.ledger, release)
        try:
            with console.progress_bars(not json):
                done = promotion.promote(
                    bench, chosen, by="cli", run_id=_run_id("promote"), force=force, progress=_progress
                )
        except promotion.Refused as e:
            if json:
                console.emit({"release_id": chosen.release_id, "promoted": False, "reasons": list(e.exam.reasons)})
            console.fail(str(e), console.EXIT_REFUSED)
    _show_takeover(done, json)


@app.command()
@console.handles_errors
def rollback(
    to: Annotated[
        str | None, typer.Option(help="The release to go back to; default: the one that served before.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for those who read `rag release show` later.")] = "rolled back",
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Let the release serve again that served before, at once and without an exam.

    Deletions and permissions that came since are applied to its index first. The release that is left does not come
    back by itself: only `rag release promote` lets it serve again.
    """
    with Workbench(console.load_settings()) as bench:
        target = None if to is None else find(bench.ledger, to)
        done = promotion.roll_back(bench, by="cli", reason=reason, run_id=_run_id("rollback"), to=target)
        made_by_settings = bench.release_id
    _show_takeover(done, json)
    if not json and done.release.release_id != made_by_settings:
        console.err.print(
            "[yellow]note[/yellow]: the settings make another release. As long as they do, changed documents are embedded "
            f"for both; `rag release diff {done.release.release_id}"
            f"{'' if done.before is None else ' ' + done.before.release_id}` shows what differs",
            soft_wrap=True,
        )


def show_decisions(decisions: Any) -> None:
    """Print what was decided, the newest first."""
    for d in decisions:
        console.out.print(f"[bold]{d.decision.replace('_', ' ')}[/bold] {console.when(d.at)} by {d.by}")
        for reason in d.reasons:
            console.out.print(f"  {console.escape(reason)}", soft_wrap=True)


def _row(bench: Workbench, r: Release) -> dict[str, Any]:
    totals = bench.ledger.documents.totals(r.release_id)
    decisions = bench.ledger.releases.decisions(r.release_id, limit=1)
    return {
        "release_id": r.release_id,
        "state": r.state,
        "store": r.store,
        "created_at": r.created_at,
        "promoted_at": r.promoted_at,
        "embedder": r.pipeline["embedder"]["model"],
        "documents": totals["indexed"],
        "chunks": totals["chunks"],
        "decision": decisions[0].decision if decisions else None,
    }


def _decided(d: ReleaseDecision) -> dict[str, Any]:
    return {"decision": d.decision, "at": d.at, "by": d.by, "reasons": list(d.reasons)}


def _means(e: Evaluation) -> list[str]:
    metrics = (e.summary or {})["metrics"]
    return ["" if (m := metrics.get(name)) is None or m["mean"] is None else f"{m['mean']:.3f}" for name in SHOWN]


def _show_takeover(done: promotion.Takeover, json: bool) -> None:
    standing = done.standing
    if json:
        console.emit(
            {
                "release_id": done.release.release_id,
                "promoted": True,
                "before": None if done.before is None else done.before.release_id,
                "documents": standing.indexed,
                "in_flight": standing.in_flight,
                "dead_lettered": standing.dead_lettered,
                "reasons": [] if done.exam is None else list(done.exam.notes),
            }
        )
        return
    before = "" if done.before is None else f"; {done.before.release_id} served before"
    console.out.print(
        f"[bold]serving[/bold]  {done.release.release_id}, {standing.indexed} documents up to date{before}"
    )
    if standing.in_flight:
        console.err.print(
            f"[yellow]note[/yellow]: {standing.in_flight} documents are served in the version that this release last "
            "knew, or not yet, until the next run",
            soft_wrap=True,
        )


def _but(decision: str | None) -> str:
    """Say what was decided where the state does not say it."""
    return f", {decision.replace('_', ' ')}" if decision in ("refused", "rolled_back") else ""


def _minutes(timestamp: float | None) -> str:
    return console.when(timestamp)[:16]


def _run_id(what: str) -> str:
    return f"{what}-{uuid.uuid4().hex[:12]}"


def _progress(done: int, cases: int) -> None:
    telemetry.report_progress("evaluate", done, cases)
