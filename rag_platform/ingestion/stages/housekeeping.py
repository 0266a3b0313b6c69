"""Daily work that no run waits for: unreferenced bytes, litter, old log rows, a full comparison of the index."""

from __future__ import annotations

import time

from rag_platform import telemetry
from rag_platform.ingestion.stages.audit import audit_index, audit_replica, repair
from rag_platform.ingestion.stages.promote import drop_abandoned
from rag_platform.ingestion.stages.replica import replica_of
from rag_platform.ingestion.stages.snapshot import blob_key
from rag_platform.ingestion.workbench import Workbench

BLOB_GRACE_S = 86_400.0


def housekeeping(bench: Workbench) -> dict[str, int]:
    """Collect garbage and audit the index in full; return counts for run metadata.

    Documents that the serving index, or its keyword replica, holds wrongly are marked dirty: the next ingest
    writes them again.
    """
    forgotten = _forget_old_questions(bench)  # first: no outage of a store may keep them longer
    forgotten |= _forget_old_releases(bench)
    orphans = bench.segments.collect_garbage()
    merged = sum(bench.segments.compact(stage)["merged"] for stage in ("parse", "chunk", "embed"))
    blobs = _collect_blobs(bench)
    serving = bench.ledger.releases.serving()
    view = bench if serving is None else bench.of_release(serving)
    audit = audit_index(view, force=True)
    if audit.wrong:
        repair(view, audit.wrong)
    replica = audit_replica(view)
    if replica is not None and replica.wrong:
        repair(view, replica.wrong, replica_of(view))
    return {
        "orphan_segments_deleted": orphans,
        "segments_merged": merged,
        "blobs_deleted": blobs,
        "ghost_chunks": audit.ghosts,
        "missing_chunks": audit.missing,
        "wrong_in_replica": 0 if replica is None else len(replica.wrong),
        **forgotten,
    }


def _forget_old_questions(bench: Workbench) -> dict[str, int]:
    """Delete rows of the query log, and feedback, that are older than RAG_QUERY_LOG_DAYS (0 keeps them)."""
    days = bench.settings.query_log_days
    if days == 0:
        return {"query_log_rows_deleted": 0, "feedback_deleted": 0}
    before = time.time() - days * 86_400
    return {
        "query_log_rows_deleted": bench.ledger.query_log.delete_before(before),
        "feedback_deleted": bench.ledger.feedback.delete_before(before),
    }


def _forget_old_releases(bench: Workbench) -> dict[str, int]:
    """Drop candidates that nobody came back for, and delete old evaluations."""
    now, settings = time.time(), bench.settings
    dropped = evaluations = 0
    if settings.candidate_retention_days:
        dropped = drop_abandoned(bench, now - settings.candidate_retention_days * 86_400)
    if settings.evaluation_retention_days:
        evaluations = bench.ledger.evaluations.delete_before(now - settings.evaluation_retention_days * 86_400)
    return {"candidates_dropped": dropped, "evaluations_deleted": evaluations}


def _collect_blobs(bench: Workbench) -> int:
    """Delete raw bytes that no document, index entry or dead letter refers to.

    Runs under the snapshot locks: a snapshot that finds a blob in place does not store it again.
    """
    cut = time.time() - BLOB_GRACE_S
    with bench.ledger.database.locks(f"snapshot-{b}" for b in bench.bucket_names):
        wanted = {blob_key(h) for h in bench.ledger.documents.content_hashes()}
        litter = [o.key for o in bench.objects.list("blobs") if o.key not in wanted and o.modified_at < cut]
        if litter:
            with telemetry.effect("object:delete"):
                bench.objects.delete(litter)
    return len(litter)
