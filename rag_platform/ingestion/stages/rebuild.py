"""Writing an index again, from stored chunks and vectors: nothing is parsed and nothing embedded.

This only prepares the ledger (and drops an index that cannot be read); the index stage then does the work, which
can be interrupted at any point and goes on where it was.
"""

from __future__ import annotations

from collections.abc import Collection

from rag_platform import telemetry
from rag_platform.errors import DependencyError
from rag_platform.ingestion.stages.audit import audit_index, audit_replica, repair
from rag_platform.ingestion.stages.exchange import Target, index_of, locked
from rag_platform.ingestion.stages.replica import replica_of
from rag_platform.ingestion.stages.stored import need_stored
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.releases import REBUILDING
from rag_platform.records import index_schema


def begin_rebuild(bench: Workbench, buckets: Collection[str]) -> None:
    """Let the next index stage write this release's index again.

    Of the serving release every document of the buckets is marked; a rebuild that was interrupted is continued.
    An index that does not serve is compared with the ledger, and what is wrong is marked. Queries go on
    meanwhile: each document is exchanged for itself. Only an index that cannot be read is dropped first.

    Raises:
        DependencyError: the store failed, or stored chunks or vectors are lost; nothing was touched.
    """
    need_stored(bench)
    release = bench.release
    serving = bench.ledger.releases.serving()
    if serving is None or serving.release_id != release.release_id:
        repair(bench, audit_index(bench, force=True).wrong)
        return
    target = index_of(bench)
    with locked(bench, target):
        damaged = not _readable(bench, target)
        whole = set(buckets) >= set(bench.bucket_names)
        if damaged and not whole:
            raise DependencyError(
                f"vector_store:{bench.store_name}",
                "the index cannot be read: rebuild all its partitions (`rag rebuild`)",
                retryable=False,
            )
        if damaged or not whole or release.verified_state != REBUILDING:
            bench.ledger.releases.reset_entries(release.release_id, list(buckets))
        if whole:
            bench.ledger.releases.note_verified(release.release_id, REBUILDING)
        if damaged:
            with telemetry.effect("store:drop"):
                bench.run(target.store.drop(target.index))


def begin_replica_rebuild(bench: Workbench) -> None:
    """Let the next replica stage write what the keyword replica of this release lacks or holds wrongly.

    Raises:
        DependencyError: the place of the replica failed.
    """
    target = replica_of(bench)
    if target is None:
        return
    if _readable(bench, target):
        audit = audit_replica(bench)
        if audit is not None and audit.wrong:
            repair(bench, audit.wrong, target)
        return
    with locked(bench, target):
        bench.ledger.releases.reset_entries(target.entries_id, bench.bucket_names)
        with telemetry.effect("replica:drop"):
            bench.run(target.store.drop(target.index))


def _readable(bench: Workbench, target: Target) -> bool:
    """Whether every row of an index can be read; one that does not exist counts as readable.

    Raises:
        DependencyError: the store itself is away, so that nobody knows.
    """
    try:
        for _ in target.store.scan(target.index, index_schema(target.dimensions).names):
            pass
    except KeyError:
        return True
    except DependencyError:
        bench.run(target.store.ping())
        return False
    return True
