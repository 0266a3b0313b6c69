"""``rag rebuild``: write the index again, or into another vector store."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from rag_platform.commands import console
from rag_platform.commands.dagster_run import JobResult, run_job
from rag_platform.commands.release_choice import gate_refusal
from rag_platform.errors import ConfigurationError
from rag_platform.ingestion.stages.audit import conservation
from rag_platform.ingestion.stages.stored import need_stored
from rag_platform.ingestion.store_choice import disagreement
from rag_platform.ingestion.workbench import Workbench
from rag_platform.settings import Settings


@console.handles_errors
def rebuild(
    store: Annotated[
        str | None, typer.Option(help="The vector store to write to; default: RAG_VECTOR_STORE. It serves afterwards.")
    ] = None,
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Write the index from the stored chunks and embeddings; nothing is parsed or embedded.

    Of the store that serves every document is exchanged for itself, for an index that is damaged or lost.
    In another store the index is built beside the serving one, and serves when it is complete; what it holds
    already is kept. Can be interrupted, and run again.

    Exit codes: 0 done · 1 a dependency failed or something is missing, the message says what to run · 2 bad usage ·
    3 not promoted: too many dead letters · 5 not promoted: it does not pass the gate.
    """
    settings = console.load_settings()
    name = store or settings.vector_store
    started = time.perf_counter()
    with Workbench(settings) as bench:
        view = bench.in_store(name)
        bench.run(view.store.ping())
        if bench.ledger.documents.totals(None)["live"] == 0:
            raise ConfigurationError("nothing is indexed yet: run `rag ingest --source DIR --name NAME`")
        need_stored(bench)
    config: dict[str, dict[str, Any]] = {
        op: {"rebuild": True, "store": name} for op in ("vector_index", "keyword_replica")
    }
    config |= {op: {"store": name} for op in ("evaluation_report", "index_release")}
    with console.progress_bars(not json):
        result = run_job(settings, "rebuild_vector_index", config=config)
    summary, code = summarize(settings, name, result, time.perf_counter() - started)
    if json:
        console.emit(summary)
    else:
        _show(summary)
    raise typer.Exit(code)


def summarize(settings: Settings, store: str, result: JobResult, seconds: float) -> tuple[dict[str, Any], int]:
    """Return what the run did, and the exit code that it means."""
    with Workbench(settings) as bench:
        view = bench.in_store(store)
        ledger = bench.ledger
        serving = ledger.releases.serving()
        counters = ledger.runs.counters(result.run_id)
        standing = conservation(view, bench.bucket_names)
        totals = ledger.documents.totals(view.release_id)
        note = disagreement(bench)
        refused = gate_refusal(view)
    summary: dict[str, Any] = {
        "run_id": result.run_id,
        "store": store,
        "release_id": view.release_id,
        "serving_release": None if serving is None else serving.release_id,
        "documents": totals["indexed"],
        "chunks": totals["chunks"],
        **{
            name: console.number(counters.get(name, 0))
            for name in ("index_writes", "replica_writes", "ghost_chunks", "missing_chunks", "in_flight")
        },
        "parsed": 0,  # nothing here parses or embeds
        "embedded": 0,
        "seconds": round(seconds, 3),
    }
    lost = standing.dead_lettered / standing.received if standing.received else 0.0
    code, error = console.EXIT_OK, None
    if refused is not None and not standing.in_flight:
        code, error = console.EXIT_REFUSED, refused
    elif not result.success:
        code, error = console.EXIT_DEPENDENCY, result.failure or "the run failed"
    elif counters.get("ghost_chunks") or counters.get("missing_chunks"):
        code, error = console.EXIT_DEPENDENCY, "the index differs from the ledger: run `rag rebuild` again"
    elif standing.in_flight:
        code = console.EXIT_DEPENDENCY
        error = (
            f"{standing.in_flight} documents have no stored chunks or embeddings for this pipeline: run "
            f"`RAG_VECTOR_STORE={store} rag ingest`, which makes them"
        )
    elif lost > settings.max_dead_letter_share:
        code = console.EXIT_DEAD_LETTERS
        error = f"{standing.dead_lettered} of {standing.received} documents are dead letters, above RAG_MAX_DEAD_LETTER_SHARE"
    elif summary["serving_release"] != view.release_id:
        code, error = console.EXIT_DEPENDENCY, "the new index does not serve yet: run `rag rebuild` again"
    if error is not None:
        summary["error"] = error
    if note is not None:
        summary["warning"] = note
    return summary, code


def _show(summary: dict[str, Any]) -> None:
    o = console.out
    o.print(f"[bold]index[/bold]    {summary['documents']} documents, {summary['chunks']} chunks in {summary['store']}")
    written = f"{summary['index_writes']} documents written, 0 parsed, 0 embedded"
    if summary["replica_writes"]:
        written += f", {summary['replica_writes']} in the keyword replica"
    o.print(f"[bold]work[/bold]     {written}, in {summary['seconds']:.1f} s")
    o.print(f"[bold]serving[/bold]  {summary['serving_release'] or 'none'}")
    if "warning" in summary:
        console.err.print(f"[yellow]warning[/yellow]: {console.escape(summary['warning'])}")
    if "error" in summary:
        console.err.print(f"[red]error[/red]: {console.escape(summary['error'])}", soft_wrap=True)
