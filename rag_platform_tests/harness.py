"""An ingestion as the assets do it, on real parts, and what to compare its result with."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rag_platform import identity
from rag_platform.errors import DependencyError
from rag_platform.ingestion.stages.audit import IndexAudit, audit_index, audit_replica, conservation
from rag_platform.ingestion.stages.chunk import chunk
from rag_platform.ingestion.stages.embed import embed
from rag_platform.ingestion.stages.index import index
from rag_platform.ingestion.stages.parse import parse
from rag_platform.ingestion.stages.promote import finish
from rag_platform.ingestion.stages.quarantine import release_due
from rag_platform.ingestion.stages.rebuild import begin_rebuild, begin_replica_rebuild
from rag_platform.ingestion.stages.replica import lagging, replica_of, replicate
from rag_platform.ingestion.stages.report import StageReport
from rag_platform.ingestion.stages.serving import keep_serving
from rag_platform.ingestion.stages.snapshot import snapshot
from rag_platform.ingestion.workbench import Workbench
from rag_platform.records import SourceSpec
from rag_platform.settings import Settings

Chunk = tuple[str, str, int, str]
"""Source, uri, ordinal, text."""

WORK = ("parsed", "chunked", "embedded", "index_writes", "dead_lettered")


def settings(home: Path, **environ: str) -> Settings:
    """Return settings for one home; no variable of this process is read."""
    return Settings.from_env(
        {"RAG_HOME": str(home), "RAG_EMBED_WORKERS": "1", "RAG_PARSE_WORKERS": "1", "RAG_OCR": "off", **environ}
    )


class Tree:
    """A folder of documents that a test edits."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def spec(self, name: str = "docs", **changes: Any) -> SourceSpec:
        return SourceSpec(name=name, uri=str(self.root), **changes)

    def write(self, uri: str, content: str | bytes) -> None:
        path = self.root / uri
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def delete(self, uri: str) -> None:
        (self.root / uri).unlink()

    def rename(self, old: str, new: str) -> None:
        (self.root / new).parent.mkdir(parents=True, exist_ok=True)
        (self.root / old).rename(self.root / new)

    def become(self, documents: Mapping[str, str | bytes]) -> None:
        """Write these documents and delete every other."""
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and path.relative_to(self.root).as_posix() not in documents:
                path.unlink()
        for uri, content in documents.items():
            self.write(uri, content)


def uris_in(bucket: str, count: int, suffix: str = ".md") -> list[str]:
    """Return uris of the source ``docs`` that fall into one bucket (of 16)."""
    named = (f"d{n}{suffix}" for n in itertools.count())
    return list(
        itertools.islice((u for u in named if identity.bucket(identity.document_id("docs", u), 1) == bucket), count)
    )


def ingest(
    bench: Workbench,
    specs: Sequence[SourceSpec],
    run_id: str,
    approve: bool = False,
    buckets: Collection[str] | None = None,
    gated: bool = False,
) -> dict[str, float]:
    """Ingest as the assets do, in one process; return the run's counters.

    Args:
        gated: a later release waits for a decision, as with golden sets.

    Raises:
        DependencyError: as a failed run would.
    """
    buckets = bench.bucket_names if buckets is None else buckets
    ledger = bench.ledger
    for spec in specs:
        ledger.sources.register(spec, "command")
    ledger.runs.start(run_id, [s.name for s in specs])
    ledger.documents.rebucket(bench.settings.partition_hex_digits)
    release_due(bench, time.time())

    listed = snapshot(bench, specs, buckets, run_id=run_id, approve_mass_change=approve)
    counters: dict[str, float] = {}
    for name in ("added", "changed", "deleted", "unchanged", "dead_lettered"):
        counters[name] = listed.totals.get(name, 0)
    counters["renamed"] = sum(o.renamed for o in listed.sources)
    failed = [o for o in listed.sources if o.failed]
    counters |= {"held": sum(o.held is not None for o in listed.sources), "failed": len(failed)}
    if failed and len(failed) == len(listed.sources):
        raise DependencyError("sources", "; ".join(str(o.failed) for o in failed))
    if counters["held"]:
        return dict(counters)  # the mass-change guard is a blocking check

    parsed = parse(bench, buckets, run_id=run_id)
    kept = keep_serving(bench, buckets, run_id=run_id)
    chunked = chunk(bench, buckets, run_id=run_id)
    embedded = StageReport("embed")
    try:
        embed(bench, buckets, run_id=run_id, report=embedded)
    except DependencyError:
        index(bench, buckets, run_id=run_id)
        raise
    indexed = index(bench, buckets, run_id=run_id)
    audit_index(bench)
    finish(bench, indexed, gated=gated)
    replicated = replicate(bench, buckets, run_id=run_id)
    finish(bench, gated=gated)
    bench.segments.collect_garbage()
    for stage in ("parse", "chunk", "embed"):
        bench.segments.compact(stage)
    ledger.runs.finish(run_id)

    counters |= {"kept_embedded": kept.embedded.totals.get("embedded", 0), "kept_problem": kept.problem is not None}
    counters["parsed"] = parsed.totals.get("parsed", 0)
    counters["chunked"] = chunked.totals.get("chunked_documents", 0)
    for name, total in (("embedded", "embedded"), ("reused", "reused"), ("tokens", "tokens"), ("calls", "calls")):
        counters[name] = embedded.totals.get(total, 0)
    for name in ("indexed", "removed", "index_writes"):
        counters[name] = indexed.totals.get(name, 0)
    for report in (parsed, chunked, embedded):
        counters["dead_lettered"] += report.totals.get("dead_lettered", 0)
    counters["replica_writes"] = replicated.totals.get("index_writes", 0)
    return dict(counters)


def rebuild(bench: Workbench, run_id: str) -> dict[str, float]:
    """Rebuild as the job does that ``rag rebuild`` runs; return what was written."""
    begin_rebuild(bench, bench.bucket_names)
    indexed = index(bench, bench.bucket_names, run_id=run_id)
    audit_index(bench)
    finish(bench, indexed)
    begin_replica_rebuild(bench)
    replicated = replicate(bench, bench.bucket_names, run_id=run_id)
    finish(bench)
    writes = "index_writes"
    return {writes: indexed.totals.get(writes, 0), "replica_writes": replicated.totals.get(writes, 0)}


def index_rows(bench: Workbench, *columns: str) -> list[dict[str, Any]]:
    """Return these columns of every row of the serving index; none before the first promotion."""
    release = bench.ledger.releases.serving()
    if release is None:
        return []
    store = bench.of_release(release).store
    return [row for batch in store.scan(release.index_name, columns) for row in batch.to_pylist()]


def searchable(bench: Workbench) -> set[Chunk]:
    """Return what the serving index holds; fails when it holds something twice."""
    rows = index_rows(bench, "source", "uri", "ordinal", "text")
    chunks = [(r["source"], r["uri"], r["ordinal"], r["text"]) for r in rows]
    assert len(chunks) == len(set(chunks)), "the index holds a chunk twice"
    return set(chunks)


def identified(bench: Workbench) -> set[tuple[Any, ...]]:
    """Return what the serving index holds, with every id, permission and place that a citation needs."""
    columns = (
        "chunk_id", "document_id", "version_id", "content_hash", "source", "uri", "title", "ordinal", "start", "end",
        "tags", "tenant", "acl", "text",
    )  # fmt: skip
    rows = index_rows(bench, *columns)
    held = {tuple(tuple(r[c]) if isinstance(r[c], list) else r[c] for c in columns) for r in rows}
    assert len(held) == len(rows), "the index holds a chunk twice"
    return held


def uris(bench: Workbench) -> set[str]:
    """Return the uris that the serving index holds."""
    return {row["uri"] for row in index_rows(bench, "uri")}


def expected(home: Path, specs: Sequence[SourceSpec], **environ: str) -> set[tuple[Any, ...]]:
    """Return what a fresh ingestion of the same sources in an empty home gives (as ``identified``)."""
    with Workbench(settings(home, **environ)) as fresh:
        ingest(fresh, specs, "fresh", approve=True)
        return identified(fresh)


def check_invariants(bench: Workbench) -> IndexAudit:
    """Conservation holds, and the index holds exactly what the ledger says; so does its replica, if it has one."""
    assert conservation(bench, bench.bucket_names).holds
    audit = audit_index(bench, force=True)
    assert (audit.ghosts, audit.missing, audit.wrong) == (0, 0, [])
    replica, target = audit_replica(bench), replica_of(bench)
    assert (replica is None) == (target is None)
    if replica is not None and target is not None:
        assert lagging(bench, target) == []
        assert (replica.ghosts, replica.missing, replica.index_chunks) == (0, 0, audit.index_chunks)
    return audit
