"""``rag ingest``: bring the index up to the sources."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from rag_platform.commands import console
from rag_platform.commands.dagster_run import JobResult, run_job
from rag_platform.commands.release_choice import gate_refusal
from rag_platform.errors import ConfigurationError
from rag_platform.ingestion.changes import range_to_run
from rag_platform.ingestion.source_registry import registered_sources
from rag_platform.ingestion.workbench import Workbench
from rag_platform.records import DEFAULT_TENANT, PUBLIC_GROUP, SourceSpec
from rag_platform.settings import Settings

COUNTERS = (
    "added", "changed", "deleted", "unchanged", "parsed", "chunked", "embedded", "index_writes", "dead_lettered",
)  # fmt: skip
EXTRA = (
    "renamed", "embeddings_reused", "chunks_made", "tokens", "usd", "in_flight", "kept_indexed", "kept_embedded",
    "kept_tokens", "kept_usd",
)  # fmt: skip


@console.handles_errors
def ingest(
    source: Annotated[
        str | None, typer.Option(help="A folder, a file, or any fsspec URL (s3://bucket/prefix …).")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the source; default: the folder's name.")] = None,
    include: Annotated[list[str] | None, typer.Option(help="Only paths that match this glob; may be repeated.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No paths that match this glob; may be repeated.")] = None,
    tenant: Annotated[str, typer.Option(help="Tenant that owns the documents.")] = DEFAULT_TENANT,
    acl: Annotated[
        list[str] | None, typer.Option(help="Group that may read them; may be repeated. Default: public.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Tag of every document; may be repeated.")] = None,
    approve_mass_change: Annotated[
        bool, typer.Option("--approve-mass-change", help="Let the mass-change guard pass this once.")
    ] = False,
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Bring the index up to its sources: only what changed is read, embedded and written.

    With --source the source is registered under --name and ingested; later runs, the sensor and the
    schedules cover it too. Without options every registered source is ingested.

    Exit codes: 0 done · 1 a dependency failed, run again · 2 bad usage · 3 done, but too many dead letters ·
    4 stopped by the mass-change guard · 5 done, but the new release does not pass the gate: the old one serves.
    """
    settings = console.load_settings()
    chosen = register(settings, source, name, include, exclude, tenant, acl, tag)
    summary, code = run_ingest(settings, chosen, approve_mass_change=approve_mass_change, quiet=json)
    if json:
        console.emit(summary)
    else:
        show(summary, settings)
    raise typer.Exit(code)


def register(
    settings: Settings,
    source: str | None,
    name: str | None,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
    tenant: str = DEFAULT_TENANT,
    acl: list[str] | None = None,
    tag: list[str] | None = None,
) -> list[str] | None:
    """Register the source that the options describe and return its name in a list; None without one."""
    with Workbench(settings) as bench:
        if source is None:
            if name is not None:
                known = [s.name for s in registered_sources(bench.ledger, settings)]
                if name not in known:
                    raise ConfigurationError(f"unknown source {name!r}; known: {', '.join(known) or 'none'}")
                return [name]
            serving = bench.ledger.releases.serving()
            left = serving is not None and bench.ledger.documents.totals(serving.release_id)["indexed"] > 0
            if not registered_sources(bench.ledger, settings) and not left:  # what is left may have to be removed
                raise ConfigurationError(
                    f"no source yet: `rag ingest --source DIR --name NAME`, or write {settings.resolved_sources_file}"
                )
            return None
        spec = source_spec(source, name, include, exclude, tenant, acl, tag)
        bench.ledger.sources.register(spec, "command")
        return [spec.name]


def source_spec(
    source: str,
    name: str | None,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
    tenant: str = DEFAULT_TENANT,
    acl: list[str] | None = None,
    tag: list[str] | None = None,
) -> SourceSpec:
    """Describe a source named on the command line; a local path becomes absolute.

    Raises:
        ConfigurationError: the path does not exist, or the name is not usable.
    """
    uri = source
    if "://" not in source:
        path = Path(source).expanduser().absolute()
        if not path.exists():
            raise ConfigurationError(f"--source: {source} does not exist")
        uri = str(path)
    name = name or re.sub(r"[^A-Za-z0-9_.-]+", "-", uri.rstrip("/").rsplit("/", 1)[-1]).strip("-.") or "source"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise ConfigurationError(
            "--name: use 1 to 64 letters, digits, '_', '-' or '.', starting with a letter or digit"
        )
    return SourceSpec(
        name=name,
        uri=uri,
        include=tuple(include or ("**/*",)),
        exclude=tuple(exclude or ()),
        tenant=tenant,
        acl=tuple(acl or (PUBLIC_GROUP,)),
        tags=tuple(tag or ()),
    )


def run_ingest(
    settings: Settings,
    sources: list[str] | None,
    *,
    approve_mass_change: bool = False,
    replay: list[str] | None = None,
    quiet: bool = False,
) -> tuple[dict[str, Any], int]:
    """Run the ``ingest_sources`` job here; return its counters and the exit code they mean."""
    started = time.perf_counter()
    config: dict[str, Any] = {"approve_mass_change": approve_mass_change, "replay": replay or []}
    if sources is not None:
        config["sources"] = sources
    with Workbench(settings) as bench:
        specs = [s for s in registered_sources(bench.ledger, settings) if sources is None or s.name in sources]
        partitions = range_to_run(bench, specs, replay=replay or ())
    with console.progress_bars(not quiet):
        result = run_job(settings, "ingest_sources", config={"source_snapshots": config}, partitions=partitions)
    return summarize(settings, result, time.perf_counter() - started)


def summarize(settings: Settings, result: JobResult, seconds: float) -> tuple[dict[str, Any], int]:
    """Read what a run did from the ledger."""
    with Workbench(settings) as bench:
        bench.ledger.runs.set_counters(result.run_id, {"seconds": round(seconds, 3)})
        run = bench.ledger.runs.get(result.run_id)
        counters = dict(run.counters) if run else {}
        live = bench.ledger.documents.totals(None)["live"]
        letters = bench.ledger.dead_letters.counts()["open"]
        refused = gate_refusal(bench)
        problems = [
            f"source {s.spec.name}: {s.problem}"
            for s in bench.ledger.sources.all()
            if s.problem and (run is None or s.spec.name in run.sources)
        ]
    summary: dict[str, Any] = {"run_id": result.run_id}
    summary |= {name: console.number(counters.get(name, 0)) for name in COUNTERS}
    summary["dead_lettered"] = console.number(
        sum(counters.get(f"dead_lettered_{stage}", 0) for stage in ("snapshot", "parse", "chunk", "embed"))
    )
    summary |= {name: console.number(counters.get(name, 0)) for name in EXTRA}
    summary["seconds"] = round(seconds, 3)
    summary["dead_letters_open"] = letters
    if counters.get("held_sources"):
        code = console.EXIT_GUARD
    elif (
        (not result.success and not _only_refused(result, refused))
        or counters.get("failed_sources")
        or counters.get("outage")
    ):
        code = console.EXIT_DEPENDENCY
    elif live and letters / live > settings.max_dead_letter_share:
        code = console.EXIT_DEAD_LETTERS
    elif refused:
        code = console.EXIT_REFUSED
    else:
        code = console.EXIT_OK
    if code != console.EXIT_OK:
        reasons = problems or ([result.failure] if result.failure else [])
        if code == console.EXIT_DEAD_LETTERS:
            reasons = [f"{letters} of {live} documents are dead letters, above RAG_MAX_DEAD_LETTER_SHARE"]
        if code == console.EXIT_REFUSED:
            reasons = [refused or ""]
        if code == console.EXIT_GUARD:
            reasons.append("run again with --approve-mass-change if this is right")
        summary["error"] = "; ".join(r for r in reasons if r)
    return summary, code


def _only_refused(result: JobResult, refused: str | None) -> bool:
    """Whether nothing else failed than the check that blocks a promotion."""
    return refused is not None and result.failure is not None and "blocking asset check" in result.failure


def show(summary: dict[str, Any], settings: Settings) -> None:
    """Print a run's summary for a person."""
    o = console.out
    o.print(
        f"[bold]documents[/bold]  {summary['added']} added · {summary['changed']} changed · "
        f"{summary['deleted']} deleted · {summary['unchanged']} unchanged"
        + (f" · {summary['renamed']} renamed" if summary["renamed"] else "")
    )
    o.print(
        f"[bold]work[/bold]       {summary['parsed']} parsed · {summary['chunks_made']} chunks · "
        f"{summary['embedded']} texts embedded ({summary['embeddings_reused']} from the cache) · "
        f"{summary['index_writes']} documents written"
    )
    if summary["kept_indexed"] or summary["kept_embedded"]:
        o.print(
            f"[bold]serving[/bold]    {summary['kept_indexed']} documents brought up to date in the release that serves, "
            f"which these settings do not make ({summary['kept_embedded']} texts embedded)",
            soft_wrap=True,
        )
    color = "yellow" if summary["dead_letters_open"] else "green"
    o.print(
        f"[bold]failed[/bold]     [{color}]{summary['dead_lettered']} new dead letters[/{color}], "
        f"{summary['dead_letters_open']} open" + (" (`rag dead-letters list`)" if summary["dead_letters_open"] else "")
    )
    o.print(f"[bold]run[/bold]        {summary['run_id']} in {summary['seconds']:.1f} s")
    if "error" in summary:
        console.err.print(f"[red]error[/red]: {console.escape(summary['error'])}", soft_wrap=True)
