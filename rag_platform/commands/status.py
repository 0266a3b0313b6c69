"""``rag status``, ``rag index``, ``rag config``, ``rag sources``: what is there."""

from __future__ import annotations

import json as json_module
import sys
from typing import Annotated, Any

import typer

from rag_platform.commands import console
from rag_platform.commands.ingest import COUNTERS, EXTRA
from rag_platform.commands.release_choice import gate_refusal
from rag_platform.errors import ConfigurationError
from rag_platform.identity import text_hash
from rag_platform.ingestion.stages.replica import lagging, replica_of
from rag_platform.ingestion.store_choice import disagreement
from rag_platform.ingestion.workbench import Workbench

index_app = typer.Typer(no_args_is_help=True, help="Look into the index.")
config_app = typer.Typer(no_args_is_help=True, help="Look at the settings.")
sources_app = typer.Typer(no_args_is_help=True, help="The registered sources.")

DUMP_COLUMNS = (
    "chunk_id", "document_id", "source", "uri", "version_id", "content_hash", "ordinal", "start", "end", "text",
)  # fmt: skip


@console.handles_errors
def status(json: Annotated[bool, console.JSON_OPTION] = False) -> None:
    """Show documents, chunks, dead letters, the serving release and the last run."""
    with Workbench(console.load_settings()) as bench:
        report = status_report(bench)
        sources = bench.ledger.sources.all()
    if json:
        console.emit(report)
        return
    o = console.out
    o.print(
        f"[bold]documents[/bold]     {report['documents']} live, {report['indexed']} indexed, {report['chunks']} chunks"
    )
    letters = report["dead_letters"]
    o.print(
        f"[bold]dead letters[/bold]  {letters['open']} open, {letters['resolved']} resolved, {letters['discarded']} discarded"
    )
    in_store = f" in {report['vector_store']}" if report["vector_store"] else ""
    o.print(f"[bold]release[/bold]       {report['release_id'] or 'none yet: run `rag ingest`'}{in_store}")
    if report["keyword_replica"] is not None:
        lag = report["keyword_replica"]["lag"]
        o.print(f"[bold]replica[/bold]       {f'{lag} documents behind: run `rag ingest`' if lag else 'up to date'}")
    if report["warning"]:
        console.err.print(f"[yellow]warning[/yellow]: {console.escape(report['warning'])}")
    if sources:
        console.show_table(
            "sources",
            ("name", "address", "documents", "last listed", "problem"),
            (
                (s.spec.name, s.spec.uri, s.listed_count or 0, console.when(s.listed_at), s.problem or "")
                for s in sources
            ),
        )
    last = report["last_run"]
    if last:
        o.print(f"[bold]last run[/bold]      {last['run_id']}  {console.when(last['started_at'])}")
        o.print("              " + " · ".join(f"{n.replace('_', ' ')} {last[n]}" for n in COUNTERS))


def status_report(bench: Workbench) -> dict[str, Any]:
    """Return the platform's state as ``rag status --json`` prints it."""
    serving = bench.ledger.releases.serving()
    totals = bench.ledger.documents.totals(serving.release_id if serving else None)
    run = bench.ledger.runs.last()
    last: dict[str, Any] | None = None
    if run is not None:
        counters = dict(run.counters)
        counters["dead_lettered"] = sum(
            counters.get(f"dead_lettered_{stage}", 0) for stage in ("snapshot", "parse", "chunk", "embed")
        )
        last = {"run_id": run.run_id, "started_at": run.started_at, "finished_at": run.finished_at}
        last |= {n: console.number(counters.get(n, 0)) for n in (*COUNTERS, *EXTRA, "seconds")}
        last["sources"] = list(run.sources)
    return {
        "documents": totals["live"],
        "indexed": totals["indexed"],
        "deleted": totals["deleted"],
        "chunks": totals["chunks"],
        "dead_letters": bench.ledger.dead_letters.counts(),
        "release_id": serving.release_id if serving else None,
        "vector_store": serving.store if serving else None,
        "keyword_replica": None if serving is None else _replica(bench.of_release(serving)),
        "warning": disagreement(bench) or gate_refusal(bench, in_full=False),
        "bytes": bench.ledger.artifacts.sizes(),
        "last_run": last,
    }


def _replica(serving: Workbench) -> dict[str, int] | None:
    """How far the keyword replica is behind; None where there is none, or where nobody knows."""
    try:
        replica = replica_of(serving)
    except ConfigurationError:
        return None  # `rag doctor` says what is wrong with that store
    return None if replica is None else {"lag": len(lagging(serving, replica))}


@index_app.command("dump")
@console.handles_errors
def dump(
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON object a line (the only format).")] = True,
    text: Annotated[bool, typer.Option("--text", help="Print the chunk's text as well.")] = False,
) -> None:
    """Print every live chunk: ids, span, and the hash of its text."""
    with Workbench(console.load_settings()) as bench:
        serving = bench.ledger.releases.serving()
        if serving is None:
            return
        for batch in bench.of_release(serving).store.scan(serving.index_name, DUMP_COLUMNS):
            for row in batch.to_pylist():
                body = row.pop("text")
                row["text_hash"] = text_hash(body)
                if text:
                    row["text"] = body
                sys.stdout.write(json_module.dumps(row, ensure_ascii=False) + "\n")


@config_app.command("show")
@console.handles_errors
def config_show(json: Annotated[bool, console.JSON_OPTION] = False) -> None:
    """Print every setting, its value, and where the value comes from."""
    rows = console.load_settings().describe()
    if json:
        console.emit(rows)
    else:
        console.show_table("settings", ("variable", "value", "from", "what it is"), (tuple(r.values()) for r in rows))


@sources_app.command("list")
@console.handles_errors
def sources_list(json: Annotated[bool, console.JSON_OPTION] = False) -> None:
    """List the registered sources."""
    with Workbench(console.load_settings()) as bench:
        sources = bench.ledger.sources.all()
    rows = [
        {
            "name": s.spec.name,
            "uri": s.spec.uri,
            "origin": s.origin,
            "tenant": s.spec.tenant,
            "acl": list(s.spec.acl),
            "documents": s.listed_count,
            "listed_at": s.listed_at,
            "problem": s.problem,
        }
        for s in sources
    ]
    if json:
        console.emit(rows)
    else:
        console.show_table("sources", tuple(rows[0]) if rows else ("name",), (tuple(r.values()) for r in rows))


@sources_app.command("remove")
@console.handles_errors
def sources_remove(
    name: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Forget a source and mark its documents as deleted; the next ingest removes them from the index."""
    with Workbench(console.load_settings()) as bench:
        known = bench.ledger.sources.get(name)
        if known is None:
            raise ConfigurationError(f"unknown source {name!r}; see `rag sources list`")
        live = {d.document_id: d.generation for d in bench.ledger.documents.of_source(name).values() if d.live}
        if not yes and not typer.confirm(f"delete {len(live)} documents of source {name!r} from the index?"):
            raise typer.Exit(console.EXIT_USAGE)
        if live:
            bench.ledger.documents.retire(live, run_id="sources remove")
        bench.ledger.sources.remove(name)
    console.out.print(f"removed {name!r}; run `rag ingest` to take its {len(live)} documents out of the index")
