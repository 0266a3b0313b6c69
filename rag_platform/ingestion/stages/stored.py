"""Stored chunks and vectors that the object store has lost."""

from __future__ import annotations

from rag_platform.errors import DependencyError
from rag_platform.ingestion.stages.rows import CURE
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.artifacts import Segment


def lost_segments(bench: Workbench) -> list[Segment]:
    """Return the segments that the ledger counts on and the object store does not have.

    Raises:
        DependencyError: the object store cannot be listed.
    """
    known = bench.ledger.artifacts.all_segments()  # first: what is committed meanwhile is not lost
    there = {o.key for o in bench.objects.list("segments")}
    gone = [s for s in known if s.object_key not in there]
    # One that was merged into another since then is no longer the ledger's.
    current = bench.ledger.artifacts.segments(s.segment_id for s in gone)
    return [s for s in gone if s.segment_id in current]


def need_stored(bench: Workbench) -> None:
    """Refuse to go on when an index could not be written from what is stored.

    Raises:
        DependencyError: something is lost; the message says what to run.
    """
    lost = [s for s in lost_segments(bench) if s.stage in ("chunk", "embed")]
    if lost:
        rows = {stage: sum(s.rows for s in lost if s.stage == stage) for stage in ("chunk", "embed")}
        raise DependencyError(
            "object store",
            f"it has lost {rows['chunk']} stored chunks and {rows['embed']} vectors, and no index was touched: {CURE}",
            retryable=False,
        )


def forget_lost(bench: Workbench) -> int:
    """Forget what the object store has lost, and mark the documents that stood on it, so that the next ingest
    makes their chunks and vectors again; return how many documents."""
    lost = lost_segments(bench)
    if not lost:
        return 0
    artifacts = bench.ledger.artifacts
    gone = {s.segment_id for s in lost}
    vectors = artifacts.keys_of(s.segment_id for s in lost if s.stage == "embed")
    broken = artifacts.keys_of(s.segment_id for s in lost if s.stage == "chunk")
    kept = artifacts.keys_of(s.segment_id for s in artifacts.all_segments("chunk") if s.segment_id not in gone)
    columns = ("chunk_set_key", "embedding_key")
    for table in bench.segments.read("chunk", kept, columns=columns) if vectors else ():
        rows = zip(*(table[name].to_pylist() for name in columns), strict=True)
        broken.update(chunk_set for chunk_set, key in rows if key in vectors)
    artifacts.forget_segments(gone, broken)
    touched: set[str] = set()
    for release in bench.ledger.releases.all():
        pipeline = bench.of_release(release).pipeline
        for bucket in bench.bucket_names:
            standing = [s for s in bench.ledger.documents.standing(release.release_id, bucket) if s.entry is not None]
            marked = [
                s.document.document_id
                for s in standing
                if s.entry is not None and pipeline.chunk_set_key(s.entry.content_hash, s.document.uri) in broken
            ]
            if marked:
                bench.ledger.documents.mark_dirty_ids(release.release_id, marked)
                touched.update(marked)
    return len(touched)
