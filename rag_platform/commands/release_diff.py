"""``rag release diff``: in what two releases differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from rag_platform.commands import console
from rag_platform.commands.release_choice import SHOWN, find, newest_evaluations
from rag_platform.errors import ConfigurationError
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.documents import IndexEntry
from rag_platform.ledger.releases import CHUNKING, Release

MAX_NAMED = 20


@console.handles_errors
def diff(
    before: Annotated[str, typer.Argument(help="A release by its id; see `rag release list`.")],
    after: Annotated[str | None, typer.Argument(help="Another one; default: the one that serves.")] = None,
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Say in what two releases differ: how they were made, documents, chunks, scores. Asks neither of them."""
    with Workbench(console.load_settings()) as bench:
        a, b = find(bench.ledger, before), find(bench.ledger, after)
        if a.release_id == b.release_id:
            raise ConfigurationError(f"{a.release_id} is one release: name another one to compare it with")
        documents = _documents(bench, a, b)
        totals = [bench.ledger.documents.totals(r.release_id) for r in (a, b)]
        scores = [{e.golden_set: e for e in newest_evaluations(bench.ledger, r)} for r in (a, b)]
    made = [described(r) for r in (a, b)]
    differing = {k: [m.get(k, "") for m in made] for k in {**made[0], **made[1]} if made[0].get(k) != made[1].get(k)}
    common = [name for name in scores[0] if name in scores[1]]
    metrics = [
        (
            name,
            metric,
            *(_mean((s[name].summary or {})["metrics"], metric) for s in scores),
            "" if scores[0][name].set_fingerprint == scores[1][name].set_fingerprint else "the set has changed between",
        )
        for name in common
        for metric in SHOWN
    ]
    if json:
        console.emit(
            {
                "releases": [a.release_id, b.release_id],
                "made_by": differing,
                "chunks": [t["chunks"] for t in totals],
                "documents": {k: v for k, v in documents.items()},
                "scores": [
                    dict(zip(("golden_set", "metric", "before", "after", "note"), m, strict=True)) for m in metrics
                ],
            }
        )
        return
    rows = [(name, *values) for name, values in differing.items()]
    rows.append(("chunks", *(str(t["chunks"]) for t in totals)))
    rows.append(("documents", *(str(t["indexed"]) for t in totals)))
    console.show_table("made by", ("", a.release_id, b.release_id), rows)
    for what, uris in documents.items():
        if uris:
            more = f" and {len(uris) - MAX_NAMED} more" if len(uris) > MAX_NAMED else ""
            console.out.print(
                f"[bold]{what.replace('_', ' ')}[/bold] ({len(uris)})  {console.escape(', '.join(uris[:MAX_NAMED]))}{more}",
                soft_wrap=True,
            )
    if metrics:
        console.show_table("scores", ("golden set", "metric", a.release_id, b.release_id, ""), metrics)
    else:
        console.out.print("no golden set was asked of both: `rag evaluate --release ID`")


def described(release: Release) -> dict[str, str]:
    """Return for people what made a release."""
    made: Mapping[str, Any] = release.pipeline
    embedder = made["embedder"]
    text = {
        "embedder": f"{embedder['name']}: {embedder['model']}, {embedder['dimensions']} dimensions, "
        f"{embedder['fingerprint'][:12]}",
        "parsers": str(made["parser"])[:12],
        "store": release.store,
    }
    chunking = made.get(CHUNKING)
    text["chunker"] = (
        str(made["chunker"])[:12]
        if chunking is None
        else (
            f"{chunking['chunker']}, {chunking['tokens']} tokens, {chunking['overlap_tokens']} shared, {made['chunker'][:12]}"
        )
    )
    return text


def _documents(bench: Workbench, a: Release, b: Release) -> dict[str, list[str]]:
    """Return the uris of documents that only one of them holds, or that they hold with other bytes or metadata."""
    entries = [bench.ledger.documents.entries(r.release_id) for r in (a, b)]
    differing: dict[str, set[str]] = {"only_in_the_first": set(), "only_in_the_second": set(), "other_version": set()}
    for document_id in entries[0].keys() | entries[1].keys():
        one, other = (e.get(document_id) for e in entries)
        if one is None or other is None:
            differing["only_in_the_first" if other is None else "only_in_the_second"].add(document_id)
        elif _content(one) != _content(other):
            differing["other_version"].add(document_id)
    known = bench.ledger.documents.of_ids(set().union(*differing.values()))
    return {what: sorted(known[d].uri if d in known else d for d in ids) for what, ids in differing.items()}


def _content(entry: IndexEntry) -> tuple[Any, ...]:
    return entry.content_hash, entry.metadata_hash, entry.version_id is None


def _mean(metrics: Mapping[str, Any], metric: str) -> str:
    found = metrics.get(metric)
    return "" if found is None or found["mean"] is None else f"{found['mean']:.3f}"
