"""keyword_replica: words go on being found while the vector store does not answer, or cannot rank by them.

The replica follows the index of its release: it holds the same versions of the same documents, without vectors,
by the same crash protocol (see ``exchange``).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rag_platform import telemetry
from rag_platform.backends.open_stores import replica_index
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.ingestion.stages.exchange import Target, exchange
from rag_platform.ingestion.stages.report import StageReport
from rag_platform.ingestion.stages.rows import Write
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.releases import replica_id
from rag_platform.ledger.replicas import Lag


def replica_of(bench: Workbench) -> Target | None:
    """Return the keyword replica of this bench's release; None where its store needs none.

    Raises:
        ConfigurationError: the store cannot be opened, so that nobody knows.
    """
    store = bench.stores.replica_of(bench.store_name)
    if store is None:
        return None
    release = bench.release_id
    return Target(
        "replica", "replica", replica_id(release, bench.stores.replica_place), store, replica_index(release), 0
    )


def lagging(bench: Workbench, target: Target, bucket: str | None = None) -> list[Lag]:
    """Return the documents, of one bucket or of all, that the replica does not hold as the release's index does."""
    return bench.ledger.replicas.lag(bench.release_id, target.entries_id, bucket)


def replicate(bench: Workbench, buckets: Collection[str], *, run_id: str) -> StageReport:
    """Bring the replicas of this release, and of the one that serves, up to what their indexes hold.

    Raises:
        DependencyError: the place of the replica failed; unfinished documents stay dirty and are redone.
    """
    report = StageReport("replica")
    _follow(bench, buckets, run_id, report)
    serving = bench.ledger.releases.serving()
    if serving is not None and serving.release_id != bench.release_id:
        try:
            _follow(bench.of_release(serving), buckets, run_id, StageReport("replica"))
        except ConfigurationError as e:
            raise DependencyError(f"vector_store:{serving.store}", f"holds {serving.release_id}, and: {e}") from e
    return report


def _follow(bench: Workbench, buckets: Collection[str], run_id: str, report: StageReport) -> None:
    target = replica_of(bench)
    if target is None:
        return
    wanted = set(buckets)
    waiting: dict[str, int] = {}
    for one in lagging(bench, target):
        if one.bucket in wanted:
            waiting[one.bucket] = waiting.get(one.bucket, 0) + 1
    done, total = 0, sum(waiting.values())

    def progressed(documents: int) -> None:
        nonlocal done
        done += documents
        telemetry.report_progress("replica", done, max(total, done))

    for bucket in (b for b in buckets if b in waiting):
        with bench.ledger.database.lock(f"{target.lock}-{bucket}"), report.timing(bucket):
            lag = lagging(bench, target, bucket)
            writes, removals = _writes(bench, bucket, lag), [x.document_id for x in lag if x.entry is None]
            if writes or removals:
                exchange(bench, target, bucket, writes, removals, run_id=run_id, report=report, progressed=progressed)
    if total:
        with telemetry.effect("replica:maintain"):
            bench.run(target.store.maintain(target.index))


def _writes(bench: Workbench, bucket: str, lag: Sequence[Lag]) -> list[Write]:
    """Return the documents whose chunks can be had. One whose metadata have moved since it was indexed is written
    after it has been indexed again."""
    pipeline = bench.pipeline
    live = {s.document.document_id: s.document for s in bench.ledger.documents.standing(bench.release_id, bucket)}
    todo = [(x, x.entry, live[x.document_id]) for x in lag if x.entry is not None and x.document_id in live]
    todo = [(x, entry, d) for x, entry, d in todo if entry.metadata_hash == d.metadata_hash]
    keys = {d.document_id: pipeline.chunk_set_key(entry.content_hash, d.uri) for _, entry, d in todo}
    sets = bench.ledger.artifacts.find("chunk", keys.values())
    return [
        Write(d, entry.version_id or "", entry.content_hash, sets[keys[d.document_id]], x.held)
        for x, entry, d in todo
        if keys[d.document_id] in sets
    ]
