"""vector_index: exchange what the index holds of a document for what it should hold.

The crash protocol, for each batch of documents: mark them dirty in the ledger → replace their rows in
one store operation that is read back → write down what is now held. A crash between any two steps
leaves a dirty mark, and a dirty document is written again, whatever the ledger wanted before or after.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rag_platform import identity, telemetry
from rag_platform.ingestion.stages.backlog import Backlog, Task, backlog
from rag_platform.ingestion.stages.quarantine import settle
from rag_platform.ingestion.stages.report import StageReport
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.artifacts import Artifact
from rag_platform.ledger.documents import IndexEntry
from rag_platform.records import index_schema

BATCH_CHUNKS = 4096


@dataclass(frozen=True, slots=True)
class _Write:
    """A document to be written: its task, the content and version to serve, and its chunk set (None:
    nothing may be served of it)."""

    task: Task
    content_hash: str
    version_id: str
    chunk_set: Artifact | None


def index(bench: Workbench, buckets: Collection[str], *, run_id: str) -> StageReport:
    """Bring the index of this pipeline's release up to the ledger for these buckets.

    Writes documents whose vectors are complete, removes deleted ones, and keeps what is served of a
    document whose new version is not ready — with its new permissions. While this release is a candidate
    the serving one loses deleted documents and gets new permissions as well.

    Raises:
        DependencyError: the vector store failed; unfinished documents stay dirty and are redone.
    """
    report = StageReport("index")
    idle = _bring_up(bench, buckets, run_id, report)
    for bucket in buckets:
        settle(bench, bucket, idle[bucket] if bucket in idle else backlog(bench, bucket))
    serving = bench.ledger.releases.serving()
    if serving is not None and serving.fingerprint != bench.pipeline.fingerprint:
        _bring_up(bench.of_release(serving), buckets, run_id, StageReport("index"))
    return report


def _bring_up(bench: Workbench, buckets: Collection[str], run_id: str, report: StageReport) -> Mapping[str, Backlog]:
    """Bring the release's index up to the ledger; return the standing of the buckets without work."""
    plans = {bucket: _plan(bench, bucket) for bucket in buckets}
    total = sum(len(p.writes) + len(p.removals) for p in plans.values())
    done = 0
    for bucket in (b for b in buckets if not plans[b].empty):
        with bench.ledger.database.lock(f"index-{bucket}"), report.timing(bucket):
            done = _apply(bench, bucket, _plan(bench, bucket), run_id, report, done, total)
    if total:
        with telemetry.effect("store:maintain"):
            bench.run(bench.store.maintain(bench.release.index_name))
    return {bucket: plan.standing for bucket, plan in plans.items() if plan.empty}


@dataclass(slots=True)
class _Plan:
    writes: list[_Write]
    removals: list[str]
    standing: Backlog

    @property
    def empty(self) -> bool:
        return not self.writes and not self.removals


def _plan(bench: Workbench, bucket: str) -> _Plan:
    standing = backlog(bench, bucket)
    pipeline, artifacts = bench.pipeline, bench.ledger.artifacts
    served = {  # the chunk sets that unready documents were served from
        t.document.document_id: pipeline.chunk_set_key(t.entry.content_hash, t.document.uri)
        for t in (*standing.tasks, *standing.blocked)
        if t.entry is not None and t.entry.content_hash
    }
    keys = {t.chunk_set_key for t in standing.tasks} | set(served.values())
    complete = artifacts.embedded(pipeline.embedder.fingerprint, keys)
    sets = artifacts.find("chunk", complete)
    writes: list[_Write] = []
    for task in standing.tasks:
        if task.chunk_set_key in sets:
            writes.append(_Write(task, task.document.content_hash, task.version_id, sets[task.chunk_set_key]))
        elif (kept := _keep(bench, task, served, sets)) is not None:
            writes.append(kept)
    writes += [kept for task in standing.blocked if (kept := _keep(bench, task, served, sets)) is not None]
    removals = [e.document_id for e in bench.ledger.documents.retired_entries(bench.release.release_id, bucket)]
    return _Plan(writes, removals, standing)


def _keep(bench: Workbench, task: Task, served: Mapping[str, str], sets: Mapping[str, Artifact]) -> _Write | None:
    """Decide about a document whose wanted version cannot be written (yet).

    What is served of it stays, unless its permissions or other metadata moved (the old content is
    written again under the new ones) or a crash left it dirty (it is restored, or removed when
    nothing was ever known to be served).
    """
    entry, document = task.entry, task.document
    if entry is None or (entry.version_id is not None and entry.metadata_hash == document.metadata_hash):
        return None
    version = identity.version_id(entry.content_hash, document.metadata_hash, bench.pipeline.fingerprint)
    return _Write(task, entry.content_hash, version, sets.get(served.get(document.document_id, "")))


def _apply(bench: Workbench, bucket: str, plan: _Plan, run_id: str, report: StageReport, done: int, total: int) -> int:
    release, documents, store = bench.release, bench.ledger.documents, bench.store
    dimensions = bench.pipeline.embedder.dimensions
    with telemetry.effect("store:ensure"):
        bench.run(store.ensure(release.index_name, dimensions))
    if plan.removals:
        documents.mark_dirty_ids(release.release_id, plan.removals)
        with telemetry.effect("store:delete"):
            bench.run(store.delete(release.index_name, plan.removals))
        documents.forget_entries(release.release_id, plan.removals)
        report.add(bucket, removed=len(plan.removals), index_writes=len(plan.removals))
        done += len(plan.removals)
    for batch in _batches(plan.writes):
        table, counts = _rows(bench, batch, run_id)
        documents.mark_dirty(release.release_id, [w.task.document for w in batch], run_id)
        stale = {w.task.document.document_id for w in batch if w.task.entry is not None}
        with telemetry.effect("store:replace"):
            bench.run(store.replace(release.index_name, table, stale=stale))
        entries, gone = [], []
        for write in batch:
            document = write.task.document
            if write.chunk_set is None:
                gone.append(document.document_id)
                continue
            count = counts[document.document_id]
            entry = IndexEntry(
                document.document_id, write.version_id, write.content_hash, document.metadata_hash, count
            )
            entries.append((entry, bucket))
            report.add(bucket, indexed=1, chunks=count)
        documents.mark_indexed(release.release_id, entries, run_id)
        if gone:
            documents.forget_entries(release.release_id, gone)
        report.add(bucket, index_writes=len(batch))
        done += len(batch)
        telemetry.report_progress("index", done, total)
    return done


def _batches(writes: Iterable[_Write]) -> Iterator[list[_Write]]:
    """Cut into batches of whole documents with about ``BATCH_CHUNKS`` chunks."""
    batch: list[_Write] = []
    chunks = 0
    for write in writes:
        items = 0 if write.chunk_set is None else write.chunk_set.items
        if batch and chunks + items > BATCH_CHUNKS:
            yield batch
            batch, chunks = [], 0
        batch.append(write)
        chunks += items
    if batch:
        yield batch


def _rows(bench: Workbench, batch: list[_Write], run_id: str) -> tuple[pa.Table, dict[str, int]]:
    """Return the index rows of a batch, and the number of rows of each document."""
    by_set: dict[str, list[_Write]] = {}
    for write in batch:
        if write.chunk_set is not None:
            by_set.setdefault(write.chunk_set.key, []).append(write)
    schema = index_schema(bench.pipeline.embedder.dimensions)
    columns: dict[str, list[Any]] = {name: [] for name in schema.names if name != "vector"}
    keys: list[str] = []
    counts: dict[str, int] = {w.task.document.document_id: 0 for w in batch}
    seen: set[tuple[str, int]] = set()
    for table in bench.segments.read("chunk", by_set):
        for row in table.to_pylist():
            at = (row["chunk_set_key"], row["ordinal"])
            if at in seen:  # the same set was written by two runs at once
                continue
            seen.add(at)
            for write in by_set[row["chunk_set_key"]]:
                _append(columns, write, row, run_id)
                keys.append(row["embedding_key"])
                counts[write.task.document.document_id] += 1
    columns["vector"] = _vectors(bench, keys)
    return pa.table(columns, schema=schema), counts


def _append(columns: dict[str, list[Any]], write: _Write, row: Mapping[str, Any], run_id: str) -> None:
    document, metadata = write.task.document, write.task.document.metadata
    values = {
        "chunk_id": identity.chunk_id(document.document_id, write.version_id, row["ordinal"]),
        "document_id": document.document_id,
        "source": document.source,
        "uri": document.uri,
        "title": metadata.get("title") or row["title"] or PurePosixPath(document.uri).name,
        "version_id": write.version_id,
        "content_hash": write.content_hash,
        "snapshot_id": document.snapshot_id,
        "run_id": run_id,
        "language": row["language"] or "",
        "modified_at": document.modified_at,
        "tags": metadata["tags"],
        "tenant": metadata["tenant"],
        "acl": metadata["acl"],
    }
    for name, column in columns.items():
        column.append(values[name] if name in values else row[name])


def _vectors(bench: Workbench, keys: list[str]) -> pa.FixedSizeListArray:
    """Return the vectors of ``keys`` in their order."""
    dimensions = bench.pipeline.embedder.dimensions
    distinct = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    matrix = np.full((len(distinct), dimensions), np.nan, dtype=np.float32)
    for table in bench.segments.read("embed", distinct):
        flat = pc.list_flatten(table["vector"].combine_chunks()).to_numpy(zero_copy_only=False)
        at = [distinct[k] for k in table["embedding_key"].to_pylist()]
        matrix[at] = flat.reshape(-1, dimensions)
    ordered = matrix[[distinct[k] for k in keys]] if keys else matrix
    if np.isnan(ordered).any():
        raise RuntimeError("a chunk set is marked as embedded but a vector is missing: run `rag doctor --repair`")
    return pa.FixedSizeListArray.from_arrays(pa.array(ordered.reshape(-1)), dimensions)
