"""``rag plan``: what would be done, and what it would cost."""

from __future__ import annotations

from typing import Annotated

import typer

from rag_platform.commands import console
from rag_platform.commands.ingest import source_spec
from rag_platform.errors import ConfigurationError
from rag_platform.ingestion.plan import plan as make_plan
from rag_platform.ingestion.source_registry import registered_sources
from rag_platform.ingestion.workbench import Workbench


@console.handles_errors
def plan(
    source: Annotated[str | None, typer.Option(help="As for `rag ingest`; the source is not registered.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the source; default: the folder's name.")] = None,
    include: Annotated[list[str] | None, typer.Option(help="Only paths that match this glob; may be repeated.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No paths that match this glob; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only list; estimate tokens from file sizes.")] = False,
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Say what `rag ingest` would do: documents, texts to embed, tokens and dollars. Writes nothing.

    Reads, parses and chunks what changed, in memory, so that the numbers are exact; --quick estimates.
    """
    with Workbench(console.load_settings()) as bench:
        registered = registered_sources(bench.ledger, bench.settings)
        if source is not None:
            specs = [source_spec(source, name, include, exclude)]
        elif name is not None:
            specs = [s for s in registered if s.name == name]
            if not specs:
                raise ConfigurationError(f"unknown source {name!r}; see `rag sources list`")
        else:
            specs = registered
        if not specs:
            raise ConfigurationError("no source yet: give --source DIR, or write sources.yaml")
        with console.progress_bars(not json):
            result = make_plan(bench, specs, quick=quick)
        spec = bench.pipeline.embedder
    if json:
        console.emit(result.as_json())
    else:
        o = console.out
        o.print(
            f"[bold]documents[/bold]  {result.added} to add · {result.changed} to change · {result.deleted} to delete · "
            f"{result.unchanged} unchanged"
        )
        o.print(
            f"[bold]work[/bold]       {result.parsed} to parse · {result.embedded} texts to embed ({result.embeddings_reused} cached)"
        )
        about = "about " if result.estimated else ""
        cost = "price unknown" if result.usd is None else f"${result.usd:,.4f}"
        o.print(f"[bold]tokens[/bold]     {about}{result.tokens:,} with {spec.model}: {cost}")
        if result.dead_lettered:
            o.print(f"[bold]failed[/bold]     {result.dead_lettered} documents cannot be read")
    for problem in result.problems:
        console.err.print(f"[yellow]problem[/yellow]: {console.escape(problem)}")
    if result.problems:
        raise typer.Exit(console.EXIT_DEPENDENCY)
