"""The crash protocol of every index that follows the ledger.

For each batch of documents: mark them dirty in the ledger → replace their rows in one store operation that is
read back → write down what is now held. A crash between any two steps leaves a dirty mark, and a dirty document
is written again, whatever the ledger wanted before or after.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from rag_platform import telemetry
from rag_platform.backends.vector_stores.base import VectorStore
from rag_platform.errors import DependencyError
from rag_platform.ingestion.stages.report import StageReport
from rag_platform.ingestion.stages.rows import Write, index_rows
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.documents import IndexEntry

BATCH_CHUNKS = 4096


@dataclass(frozen=True, slots=True)
class Target:
    """An index, and where the ledger keeps what it holds.

    Attributes:
        name: what effects on it are called.
        lock: what the lock of each bucket is called.
        entries_id: the id of its index entries.
        index: its name in ``store``.
        dimensions: of its vectors; 0: words alone.
    """

    name: str
    lock: str
    entries_id: str
    store: VectorStore
    index: str
    dimensions: int


def index_of(bench: Workbench) -> Target:
    """Return the vector index of this bench's release."""
    release = bench.release
    dimensions = bench.pipeline.embedder.dimensions
    return Target("store", "index", release.release_id, bench.store, release.index_name, dimensions)


def locked(bench: Workbench, *targets: Target) -> AbstractContextManager[None]:
    """Hold the locks of every bucket of these indexes: nobody writes to them meanwhile."""
    return bench.ledger.database.locks(f"{t.lock}-{bucket}" for t in targets for bucket in bench.bucket_names)


def ensure(bench: Workbench, target: Target) -> None:
    """Make an index that is not there yet. One run at a time, on whatever machine: an object store keeps nobody
    from making it twice, and the second one of LanceDB replaces the first with what is in it (measured)."""
    with bench.ledger.database.lock(f"ensure-{target.index}"), telemetry.effect(f"{target.name}:ensure"):
        bench.run(target.store.ensure(target.index, target.dimensions))


def exchange(
    bench: Workbench,
    target: Target,
    bucket: str,
    writes: Sequence[Write],
    removals: Sequence[str],
    *,
    run_id: str,
    report: StageReport,
    progressed: Callable[[int], None],
) -> None:
    """Write and remove these documents of one bucket. The caller holds the bucket's lock.

    Counts ``indexed``, ``chunks``, ``removed`` and ``index_writes`` in ``report``; ``progressed`` is told the
    documents done since it was last called.

    Raises:
        DependencyError: the store or the object store failed; unfinished documents stay dirty and are redone.
    """
    documents, store = bench.ledger.documents, target.store
    ensure(bench, target)
    if removals:
        documents.mark_dirty_ids(target.entries_id, removals)
        with telemetry.effect(f"{target.name}:delete"):
            bench.run(_held(target, store.delete(target.index, removals)))
        documents.forget_entries(target.entries_id, removals)
        report.add(bucket, removed=len(removals), index_writes=len(removals))
        progressed(len(removals))
    for batch in _batches(writes):
        table, counts = index_rows(bench, batch, run_id, target.dimensions)
        documents.mark_dirty(target.entries_id, [w.document for w in batch], run_id)
        stale = {w.document.document_id for w in batch if w.known}
        with telemetry.effect(f"{target.name}:replace"):
            bench.run(_held(target, store.replace(target.index, table, stale=stale)))
        entries, gone = [], []
        for write in batch:
            document = write.document
            if write.chunk_set is None:
                gone.append(document.document_id)
                continue
            count = counts[document.document_id]
            entry = IndexEntry(
                document.document_id, write.version_id, write.content_hash, document.metadata_hash, count
            )
            entries.append((entry, bucket))
            report.add(bucket, indexed=1, chunks=count)
        documents.mark_indexed(target.entries_id, entries, run_id)
        if gone:
            documents.forget_entries(target.entries_id, gone)
        report.add(bucket, index_writes=len(batch))
        progressed(len(batch))


async def _held(target: Target, work: Awaitable[None]) -> None:
    try:
        await work
    except KeyError as e:  # it was there a moment ago
        dependency = "vector_store" if target.name == "store" else "keyword_replica"
        raise DependencyError(dependency, "the index is gone while it is written: run `rag rebuild`") from e


def _batches(writes: Iterable[Write]) -> Iterator[list[Write]]:
    """Cut into batches of whole documents with about ``BATCH_CHUNKS`` chunks."""
    batch: list[Write] = []
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
