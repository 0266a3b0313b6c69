"""source_snapshots: list each source completely, fetch what may have changed, store it by content.

The change gate has two steps: a document is fetched only when its change token moved, and is changed
only when the hash of the bytes that were read moved. Nothing is concluded from a listing that did not
reach its end, and a listing that lost too much waits for a person (the mass-change guard).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from rag_platform import identity, telemetry
from rag_platform.backends.sources import open_source
from rag_platform.backends.sources.base import Replacement, SourceConnector
from rag_platform.errors import ConfigurationError, DependencyError, DocumentError
from rag_platform.ingestion.stages.report import StageReport
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.dead_letters import Failure
from rag_platform.ledger.documents import Document, DocumentChange
from rag_platform.records import SourceItem, SourceSpec

FETCHERS = 8
COMMIT_EVERY = 256
UNREAD = "unread:"
"""Marks the content hash of a document that exists but could not be read."""


@dataclass(slots=True)
class SourceOutcome:
    """How one source went; ``unchanged`` counts in all buckets. ``held`` says why the guard held it back, ``failed`` why it could not be
    listed or fetched to the end; both None when all is well."""

    source: str
    listed: int = 0
    bytes: int = 0
    missing: int = 0
    unchanged: int = 0
    fetched: int = 0
    renamed: int = 0
    seconds: float = 0.0
    held: str | None = None
    failed: str | None = None


@dataclass(slots=True)
class SnapshotReport(StageReport):
    sources: list[SourceOutcome] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Candidate:
    item: SourceItem
    document_id: str
    known: Document | None
    metadata: dict[str, object]
    metadata_hash: str


def blob_key(content_hash: str) -> str:
    """Return the object key of raw bytes."""
    return f"blobs/{content_hash[:2]}/{content_hash}"


def snapshot(
    bench: Workbench,
    specs: Sequence[SourceSpec],
    buckets: Collection[str],
    *,
    run_id: str,
    approve_mass_change: bool = False,
) -> SnapshotReport:
    """Bring the ledger's desired documents of ``buckets`` up to the sources.

    A source that fails or is held back changes nothing and does not stop the others.

    Args:
        bench: the run's workbench.
        specs: the sources to look at.
        buckets: the partitions this run may change; the guard looks at whole sources all the same.
        run_id: recorded with every changed document.
        approve_mass_change: let the guard pass.
    """
    report = SnapshotReport("snapshot")
    with bench.ledger.database.locks(f"snapshot-{b}" for b in buckets):
        for spec in specs:
            outcome = SourceOutcome(spec.name)
            report.sources.append(outcome)
            started = time.perf_counter()
            try:
                _snapshot_source(bench, spec, set(buckets), run_id, approve_mass_change, report, outcome)
            except (DependencyError, ConfigurationError) as e:
                outcome.failed = str(e)
                bench.ledger.sources.note_problem(spec.name, str(e))
            outcome.seconds = time.perf_counter() - started
        touched = [b for b, c in report.counts.items() if c["added"] or c["changed"] or c["deleted"]]
        known = bench.ledger.documents.buckets()
        bench.ledger.documents.refresh_buckets({*touched, *(b for b in buckets if b not in known)})
    return report


def document_metadata(spec: SourceSpec, item: SourceItem) -> dict[str, object]:
    """Return the stored fields of a document that do not come from its bytes."""
    return {
        "tenant": spec.tenant if item.tenant is None else item.tenant,
        "acl": sorted(set(spec.acl if item.acl is None else item.acl)),
        "tags": sorted(set(spec.tags if item.tags is None else item.tags)),
        "title": item.title,
    }


def guard(*, known: int, missing: int, listed: int, max_share: float, min_documents: int) -> str | None:
    """Return why a listing must wait for approval, or None.

    An emptied source always waits; otherwise one of at least ``min_documents`` known documents that
    lost more than ``max_share`` of them.
    """
    if known and not listed:
        return f"the listing is empty, but {known} documents are known: nothing was deleted"
    if known >= min_documents and missing / known > max_share:
        return (
            f"{missing} of {known} documents ({missing / known:.0%}) are missing from the listing, "
            f"more than {max_share:.0%}: nothing was changed"
        )
    return None


def _snapshot_source(
    bench: Workbench,
    spec: SourceSpec,
    buckets: set[str],
    run_id: str,
    approved: bool,
    report: SnapshotReport,
    outcome: SourceOutcome,
) -> None:
    settings, ledger = bench.settings, bench.ledger
    # Read before the listing: whoever commits after this wins, and our older view is dropped.
    known = ledger.documents.of_source(spec.name)
    connector = open_source(spec, settings)
    items = connector.list()
    outcome.listed, outcome.bytes = len(items), sum(i.size for i in items)
    listed = {i.uri for i in items}
    live = {u: d for u, d in known.items() if d.live}
    missing = [d for u, d in live.items() if u not in listed]
    outcome.missing = len(missing)
    held = guard(
        known=len(live),
        missing=len(missing),
        listed=len(items),
        max_share=settings.source_max_deletion_share,
        min_documents=settings.source_min_guarded_documents,
    )
    if held and not approved:
        outcome.held = held
        ledger.sources.note_problem(spec.name, held)
        return

    digits = settings.partition_hex_digits
    snapshot_id = identity.digest("snapshot", spec.name, run_id)[:16]
    candidates: list[_Candidate] = []
    unreadable = _unreadable_to_retry(bench, known.values())
    for item in items:
        document_id = identity.document_id(spec.name, item.uri)
        bucket = identity.bucket(document_id, digits)
        old = live.get(item.uri)
        candidate = _candidate(spec, item, known.get(item.uri))
        if (
            old is not None
            and old.change_token == item.change_token
            and old.metadata_hash == candidate.metadata_hash
            and document_id not in unreadable
        ):
            outcome.unchanged += 1
            if bucket in buckets:
                report.add(bucket, unchanged=1)
            continue
        if bucket not in buckets:
            continue
        candidates.append(candidate)

    added_hashes: Counter[str] = Counter()
    try:
        for batch in _batched(_fetched(bench, connector, candidates), COMMIT_EVERY):
            _commit(bench, spec, batch, snapshot_id, run_id, report, outcome, added_hashes)
            outcome.fetched += len(batch)
            telemetry.report_progress("snapshot", outcome.fetched, len(candidates))
    finally:
        # The listing was complete, so what is missing from it is gone even if a fetch failed.
        gone = {d.document_id: d for d in missing if d.bucket in buckets}
        if gone:
            done = ledger.documents.retire({i: d.generation for i, d in gone.items()}, run_id=run_id)
            for document_id in done:
                report.add(gone[document_id].bucket, deleted=1)
            removed = Counter(gone[i].content_hash for i in done)
            outcome.renamed = sum((removed & added_hashes).values())
    ledger.sources.note_listing(spec.name, count=len(items), size=outcome.bytes)


def _unreadable_to_retry(bench: Workbench, documents: Iterable[Document]) -> set[str]:
    """Return documents that could not be read before and whose dead letter is being replayed."""
    retry: set[str] = set()
    blocking: dict[str, dict[str, set[str]]] = {}
    for document in documents:
        if document.live and document.content_hash.startswith(UNREAD):
            bucket = document.bucket
            if bucket not in blocking:
                blocking[bucket] = bench.ledger.dead_letters.blocking(bucket)
            if bench.pipeline.version_id(document) not in blocking[bucket].get(document.document_id, ()):
                retry.add(document.document_id)
    return retry


def _candidate(spec: SourceSpec, item: SourceItem, known: Document | None) -> _Candidate:
    metadata = document_metadata(spec, item)
    document_id = identity.document_id(spec.name, item.uri)
    return _Candidate(item, document_id, known, metadata, identity.metadata_hash(metadata))


def _fetched(
    bench: Workbench, connector: SourceConnector, candidates: Sequence[_Candidate]
) -> Iterator[tuple[_Candidate, str | DocumentError]]:
    """Fetch and store candidates with bounded concurrency; yield each with its content hash or error.

    A document that vanished after the listing is left for the next one; one that was replaced is taken as it is
    now, with its new change token.
    """
    limit = bench.settings.max_document_bytes

    def fetch(candidate: _Candidate) -> tuple[_Candidate, str | DocumentError] | None:
        if candidate.known is not None and candidate.known.live:
            same = candidate.known.change_token == candidate.item.change_token
            if same and not candidate.known.content_hash.startswith(UNREAD):
                return candidate, candidate.known.content_hash  # only its metadata moved
        try:
            data = connector.fetch(candidate.item.uri, max_bytes=limit)
        except DocumentError as e:
            return candidate, e
        if isinstance(data, Replacement):
            candidate, data = _candidate(connector.spec, data.item, candidate.known), data.data
        if data is None:
            return None
        content = identity.content_hash(data)
        key = blob_key(content)
        if not bench.objects.exists(key):
            with telemetry.effect("object:blob"):
                bench.objects.put(key, data)
        return candidate, content

    waiting = iter(candidates)
    with ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch") as pool:
        running: set[Future[tuple[_Candidate, str | DocumentError] | None]] = set()
        try:
            while True:
                while len(running) < 2 * FETCHERS and (candidate := next(waiting, None)) is not None:
                    running.add(pool.submit(fetch, candidate))
                if not running:
                    return
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    result = future.result()
                    if result is not None:
                        yield result
        finally:
            for future in running:
                future.cancel()


def _commit(
    bench: Workbench,
    spec: SourceSpec,
    batch: Sequence[tuple[_Candidate, str | DocumentError]],
    snapshot_id: str,
    run_id: str,
    report: SnapshotReport,
    outcome: SourceOutcome,
    added_hashes: Counter[str],
) -> None:
    ledger, digits = bench.ledger, bench.settings.partition_hex_digits
    changes: list[DocumentChange] = []
    failures: list[Failure] = []
    tokens: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for candidate, result in batch:
        known, item = candidate.known, candidate.item
        failed = isinstance(result, DocumentError)
        content = _unread(item) if isinstance(result, DocumentError) else result
        bucket = identity.bucket(candidate.document_id, digits)
        same_content = known is not None and known.live and known.content_hash == content
        if known is not None and same_content and known.metadata_hash == candidate.metadata_hash and not failed:
            tokens[candidate.document_id] = item.change_token
            outcome.unchanged += 1
            report.add(bucket, unchanged=1)
            continue
        document = Document(
            document_id=candidate.document_id,
            source=spec.name,
            uri=item.uri,
            bucket=bucket,
            live=True,
            generation=0,
            change_token=item.change_token,
            size=item.size,
            modified_at=item.modified_at,
            content_hash=content,
            metadata_hash=candidate.metadata_hash,
            metadata=candidate.metadata,
            snapshot_id=snapshot_id,
            run_id=run_id,
        )
        changes.append(DocumentChange(document, 0 if known is None else known.generation))
        kinds[document.document_id] = "changed" if known is not None and known.live else "added"
        if isinstance(result, DocumentError):
            failures.append(Failure(document, bench.pipeline.version_id(document), "snapshot", result))
    if tokens:
        ledger.documents.touch(tokens)
    committed = ledger.documents.commit(changes) if changes else set()
    for change in changes:
        document = change.document
        if document.document_id in committed:
            kind = kinds[document.document_id]
            report.add(document.bucket, **{kind: 1})
            report.add(document.bucket, bytes=document.size)
            if kind == "added":
                added_hashes[document.content_hash] += 1
    letters = ledger.dead_letters.record(
        [f for f in failures if f.document.document_id in committed],
        run_id=run_id,
        max_attempts=bench.settings.dead_letter_max_attempts,
        backoff_s=bench.settings.dead_letter_backoff_s,
    )
    report.dead_letters += letters
    for letter in letters:
        report.add(letter.bucket, dead_lettered=1)


def _unread(item: SourceItem) -> str:
    """Return the stand-in for the content hash of a file that could not be read. Where there is a modification
    time it does not follow the change token, which may move without the bytes: the letter stays the same."""
    state = item.change_token if item.modified_at is None else f"{item.size}:{item.modified_at}"
    return UNREAD + identity.digest(state)[:32]


def _batched(
    items: Iterator[tuple[_Candidate, str | DocumentError]], size: int
) -> Iterator[list[tuple[_Candidate, str | DocumentError]]]:
    """Batch, and hand out what was fetched before a failure, so that it is not fetched again."""
    batch: list[tuple[_Candidate, str | DocumentError]] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except DependencyError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch
