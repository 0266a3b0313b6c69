"""vector_index: exchange what the index holds of a document for what it should hold (see ``exchange``)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rag_platform import identity, telemetry
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.ingestion.stages.backlog import Backlog, Task, backlog
from rag_platform.ingestion.stages.exchange import exchange, index_of
from rag_platform.ingestion.stages.quarantine import settle
from rag_platform.ingestion.stages.report import StageReport
from rag_platform.ingestion.stages.rows import Write
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.documents import IndexEntry
from rag_platform.ledger.releases import Release


def index(bench: Workbench, buckets: Collection[str], *, run_id: str) -> StageReport:
    """Bring the index of this pipeline's release up to the ledger for these buckets.

    Writes documents whose vectors are complete, removes deleted ones, and keeps what is served of a
    document whose new version is not ready — with its new permissions. While this release is a candidate
    the serving one is brought up first: readers must not wait for a deletion until the candidate is built.

    Raises:
        DependencyError: the vector store failed; unfinished documents stay dirty and are redone. A failure of
            another store, that serves still, is kept in the report's ``outage``: this release may take over.
    """
    report = StageReport("index")
    serving = bench.ledger.releases.serving()
    if serving is not None and serving.release_id != bench.release_id:
        report.outage = _bring_up_serving(bench, serving, buckets, run_id)
    idle = bring_up(bench, buckets, run_id, report)
    for bucket in buckets:
        settle(bench, bucket, idle[bucket] if bucket in idle else backlog(bench, bucket))
    return report


def settled(bench: Workbench) -> bool:
    """Whether no bucket of this release waits for anything that the index stage could do now, a deletion or a
    permission included."""
    return all(_plan(bench, bucket).empty for bucket in bench.bucket_names)


def _bring_up_serving(
    bench: Workbench, serving: Release, buckets: Collection[str], run_id: str
) -> DependencyError | None:
    try:
        bring_up(bench.of_release(serving), buckets, run_id, StageReport("index"))
    except DependencyError as e:
        if serving.store == bench.store_name:
            raise
        return e
    except ConfigurationError as e:
        failure = DependencyError(f"vector_store:{serving.store}", f"holds {serving.release_id}, and: {e}")
        failure.__cause__ = e
        return failure
    return None


def bring_up(bench: Workbench, buckets: Collection[str], run_id: str, report: StageReport) -> Mapping[str, Backlog]:
    """Bring the index of this bench's release up to the ledger as far as its chunks and vectors are stored; return
    the standing of the buckets without work.

    Raises:
        DependencyError: the vector store failed; unfinished documents stay dirty and are redone.
    """
    plans = {bucket: _plan(bench, bucket) for bucket in buckets}
    total = sum(len(p.writes) + len(p.removals) for p in plans.values())
    done = 0

    def progressed(documents: int) -> None:
        nonlocal done
        done += documents
        telemetry.report_progress("index", done, max(total, done))

    for bucket in (b for b in buckets if not plans[b].empty):
        with bench.ledger.database.lock(f"index-{bucket}"), report.timing(bucket):
            plan = _plan(bench, bucket)
            exchange(
                bench,
                index_of(bench),
                bucket,
                plan.writes,
                plan.removals,
                run_id=run_id,
                report=report,
                progressed=progressed,
            )
    if total:
        with telemetry.effect("store:maintain"):
            bench.run(bench.store.maintain(bench.release.index_name))
    return {bucket: plan.standing for bucket, plan in plans.items() if plan.empty}


@dataclass(slots=True)
class _Plan:
    writes: list[Write]
    removals: list[str]
    standing: Backlog

    @property
    def empty(self) -> bool:
        return not self.writes and not self.removals


def _plan(bench: Workbench, bucket: str) -> _Plan:
    standing = backlog(bench, bucket)
    artifacts = bench.ledger.artifacts
    keys = {t.chunk_set_key for t in standing.tasks}
    sets = artifacts.find("chunk", artifacts.embedded(bench.pipeline.embedder.fingerprint, keys))
    ready = [t for t in standing.tasks if t.chunk_set_key in sets]
    unready = [t for t in standing.tasks if t.chunk_set_key not in sets] + standing.blocked
    writes = [
        Write(t.document, t.version_id, t.document.content_hash, sets[t.chunk_set_key], t.entry is not None)
        for t in ready
    ]
    writes += meanwhile(bench, bucket, unready)
    removals = [e.document_id for e in bench.ledger.documents.retired_entries(bench.release_id, bucket)]
    return _Plan(writes, removals, standing)


def meanwhile(bench: Workbench, bucket: str, unready: Sequence[Task]) -> list[Write]:
    """Return what must be written for documents whose wanted version cannot be written (yet).

    What is served of one stays, unless its permissions or other metadata moved (the old content is
    written again under the new ones) or a crash left it dirty (it is restored, or removed when
    nothing was ever known to be served). A release that takes over from another store serves what that one
    serves.
    """
    if not unready:
        return []
    pipeline, artifacts = bench.pipeline, bench.ledger.artifacts
    elsewhere = _served_elsewhere(bench, bucket)
    content: dict[str, str] = {}
    for task in unready:
        document_id = task.document.document_id
        entry = task.entry if elsewhere is None else elsewhere.get(document_id)
        if entry is not None and entry.content_hash:
            content[document_id] = entry.content_hash
    keys = {
        t.document.document_id: pipeline.chunk_set_key(content[t.document.document_id], t.document.uri)
        for t in unready
        if t.document.document_id in content
    }
    sets = artifacts.find("chunk", artifacts.embedded(pipeline.embedder.fingerprint, keys.values()))
    writes: list[Write] = []
    for task in unready:
        entry, document = task.entry, task.document
        served = content.get(document.document_id, "")
        version = identity.version_id(served, document.metadata_hash, pipeline.fingerprint)
        chunk_set = sets.get(keys.get(document.document_id, ""))
        if (entry is None and chunk_set is None) or (entry is not None and entry.version_id == version):
            continue
        writes.append(Write(document, version, served, chunk_set, entry is not None))
    return writes


def _served_elsewhere(bench: Workbench, bucket: str) -> Mapping[str, IndexEntry] | None:
    """Return what the serving release holds of the bucket, where it is this pipeline's in another store."""
    serving = bench.ledger.releases.serving()
    if serving is None or serving.release_id == bench.release_id or serving.fingerprint != bench.pipeline.fingerprint:
        return None
    standing = bench.ledger.documents.standing(serving.release_id, bucket)
    return {s.document.document_id: s.entry for s in standing if s.entry is not None}
