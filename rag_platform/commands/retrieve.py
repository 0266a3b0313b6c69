"""``rag retrieve``: ask the index, without a model that writes."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rag_platform.backends.vector_stores import filters
from rag_platform.backends.vector_stores.filters import Filter
from rag_platform.commands import console
from rag_platform.commands.question_sets import questions_of
from rag_platform.errors import ConfigurationError
from rag_platform.ingestion.workbench import Workbench
from rag_platform.query.freshness import Versions
from rag_platform.query.replica import KeywordReplica, VersionsOf
from rag_platform.query.retrieve import Retrieval, Retriever, WordSearch
from rag_platform.records import LOCAL_OPERATOR, Hit, Principal

BATCH = 256


@console.handles_errors
def retrieve(
    question: Annotated[str | None, typer.Argument(help="The question, in quotes.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many passages.")] = 5,
    mode: Annotated[str, typer.Option(help="hybrid, vector or keyword.")] = "hybrid",
    filter: Annotated[
        str | None,
        typer.Option("--filter", help="""For example: source = "docs" and (page >= 3 or tags has "howto")"""),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(help="Ask as a reader of this tenant; default: as the operator, who sees all.")
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="With --tenant: a group of the reader; may be repeated.")
    ] = None,
    batch: Annotated[
        Path | None, typer.Option(help="""A JSONL file of {"id", "text"}: one result object a line.""")
    ] = None,
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Find the passages that answer a question."""
    if (question is None) == (batch is None):
        raise typer.BadParameter("give a question, or --batch FILE.jsonl")
    if mode not in ("hybrid", "vector", "keyword"):
        raise typer.BadParameter("--mode is hybrid, vector or keyword")
    where = None
    if filter is not None:
        try:
            where = filters.parse(filter)
        except ValueError as e:
            raise typer.BadParameter(f"--filter: {e}") from e
    principal = LOCAL_OPERATOR if tenant is None else Principal(tenant, frozenset(group or ()))
    with Workbench(console.load_settings()) as bench:
        index, retriever = open_retriever(bench)
        ask = {"principal": principal, "k": k, "mode": mode, "where": where}
        if batch is not None:
            _batch(bench, retriever, index, batch, ask)
            return
        try:
            found = bench.run(retriever.retrieve(index, question or "", **ask))  # type: ignore[arg-type]
        except ValueError as e:
            raise typer.BadParameter(str(e)) from e
    if json:
        console.emit(as_json(found))
    else:
        show(found)


def open_retriever(bench: Workbench) -> tuple[str, Retriever]:
    """Return the serving index and a retriever whose embedder is the one that made it.

    Raises:
        ConfigurationError: nothing serves yet, or it was made by another embedder.
    """
    serving = bench.ledger.releases.serving()
    if serving is None:
        raise ConfigurationError("nothing is indexed yet: run `rag ingest --source DIR --name NAME`")
    made_by = serving.pipeline["embedder"]
    if made_by["fingerprint"] != bench.embedder.spec.fingerprint:
        raise ConfigurationError(
            f"the serving index was made by {made_by['name']} ({made_by['model']}), but RAG_EMBEDDER and its settings "
            f"describe {bench.embedder.spec.name} ({bench.embedder.spec.model}): set them back, or run `rag ingest`"
        )
    store = bench.of_release(serving).store
    words: WordSearch | None = None
    if not store.capabilities.keyword and bench.stores.replica is not None:
        replica = KeywordReplica(bench.stores.replica, _versions(bench))

        async def words(texts: Sequence[str], principal: Principal, where: Filter | None, depth: int) -> list[Hit]:
            return await replica.search(serving.release_id, texts, principal, where, depth)

    return serving.index_name, Retriever(store, bench.embedder, bench.settings, words)


def _versions(bench: Workbench) -> VersionsOf:
    async def versions(release_id: str, document_ids: Collection[str]) -> Versions:
        return bench.ledger.releases.versions(release_id, document_ids)

    return versions


def as_json(found: Retrieval) -> dict[str, Any]:
    """Return the retrieval as DESIGN §16 promises it."""
    results = [
        {
            "chunk_id": h.chunk_id,
            "document_id": h.document_id,
            "source": h.source,
            "uri": h.uri,
            "title": h.title,
            "heading_path": h.heading_path,
            "page": h.page,
            "start": h.start,
            "end": h.end,
            "score": h.score,
            "text": h.text,
        }
        for h in found.hits
    ]
    report: dict[str, Any] = {"results": results, "mode": found.mode, "timings_ms": dict(found.timings_ms)}
    if found.degraded:
        report["degraded"] = [{"stage": d.stage, "reason": d.reason} for d in found.degraded]
    return report


def show(found: Retrieval) -> None:
    """Print passages for a person: where they stand, then what they say."""
    if not found.hits:
        console.out.print("nothing found")
    for number, hit in enumerate(found.hits, 1):
        page = f", page {hit.page}" if hit.page else ""
        console.out.print(
            f"[bold]{number}. {console.escape(hit.title)}[/bold]  "
            f"[cyan]{console.escape(hit.source)}/{console.escape(hit.uri)}{page}, "
            f"characters {hit.start}–{hit.end}[/cyan]  score {hit.score:.3f}"
        )
        if hit.heading_path:
            console.out.print(f"   [dim]{console.escape(hit.heading_path)}[/dim]")
        for line in hit.text.strip().splitlines():
            console.out.print(f"   {console.escape(line)}", soft_wrap=False)
        console.out.print()
    times = " · ".join(f"{name} {ms:.1f} ms" for name, ms in found.timings_ms.items())
    console.out.print(f"[dim]{found.mode} · {times}[/dim]")
    if found.degraded:
        console.err.print(f"[yellow]degraded[/yellow]: {', '.join(f'{d.stage}: {d.reason}' for d in found.degraded)}")


def _batch(bench: Workbench, retriever: Retriever, index: str, path: Path, ask: dict[str, Any]) -> None:
    questions = questions_of(path)
    for start in range(0, len(questions), BATCH):
        part = questions[start : start + BATCH]
        found = bench.run(retriever.retrieve_many(index, [text for _, text in part], **ask))
        for (question_id, _), one in zip(part, found, strict=True):
            sys.stdout.write(json_module.dumps({"id": question_id, **as_json(one)}, ensure_ascii=False) + "\n")
    sys.stdout.flush()
