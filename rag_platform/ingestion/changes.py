"""What an ingestion would do, found out without doing it: for the sensor and for `rag plan`."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from rag_platform import identity
from rag_platform.backends.sources import open_source
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.ingestion.stages.backlog import backlog
from rag_platform.ingestion.stages.replica import lagging, replica_of
from rag_platform.ingestion.stages.snapshot import document_metadata, guard
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.documents import Document
from rag_platform.records import SourceItem, SourceSpec


@dataclass(slots=True)
class SourceDifference:
    """How a source's listing differs from the ledger. ``changed`` may still turn out to be unchanged
    when its bytes are read. ``held`` and ``failed`` as in the snapshot stage."""

    spec: SourceSpec
    added: list[SourceItem] = field(default_factory=list)
    changed: list[tuple[SourceItem, Document]] = field(default_factory=list)
    deleted: list[Document] = field(default_factory=list)
    unchanged: int = 0
    held: str | None = None
    failed: str | None = None


def difference(bench: Workbench, spec: SourceSpec) -> SourceDifference:
    """List one source and compare it with the ledger; a failure is told, not raised."""
    result = SourceDifference(spec)
    live = {u: d for u, d in bench.ledger.documents.of_source(spec.name).items() if d.live}
    try:
        items = open_source(spec, bench.settings).list()
    except (DependencyError, ConfigurationError) as e:
        result.failed = str(e)
        return result
    listed = set()
    for item in items:
        listed.add(item.uri)
        known = live.get(item.uri)
        if known is None:
            result.added.append(item)
        elif known.change_token != item.change_token or known.metadata_hash != identity.metadata_hash(
            document_metadata(spec, item)
        ):
            result.changed.append((item, known))
        else:
            result.unchanged += 1
    result.deleted = [d for u, d in live.items() if u not in listed]
    result.held = guard(
        known=len(live),
        missing=len(result.deleted),
        listed=len(items),
        max_share=bench.settings.source_max_deletion_share,
        min_documents=bench.settings.source_min_guarded_documents,
    )
    return result


def changed_buckets(bench: Workbench, differences: Sequence[SourceDifference]) -> dict[str, str]:
    """Return bucket → digest of everything that moved in it: new state in, new digest out."""
    digits = bench.settings.partition_hex_digits
    moved: dict[str, list[str]] = {}

    def note(source: str, uri: str, what: str) -> None:
        document_id = identity.document_id(source, uri)
        moved.setdefault(identity.bucket(document_id, digits), []).append(f"{document_id}:{what}")

    for one in differences:
        if one.failed is not None:
            continue
        for item in one.added:
            note(one.spec.name, item.uri, item.change_token)
        for item, _ in one.changed:
            metadata = identity.metadata_hash(document_metadata(one.spec, item))
            note(one.spec.name, item.uri, f"{item.change_token}:{metadata}")
        for document in one.deleted:
            note(one.spec.name, document.uri, "deleted")
    return {bucket: identity.digest(*sorted(what))[:16] for bucket, what in moved.items()}


def waiting_buckets(bench: Workbench, now: float | None = None) -> dict[str, str]:
    """Return bucket → digest of work that an earlier run left: documents in flight, dead letters whose served
    version must be restored, deletions that have not reached an index, what the keyword replica lacks, replays
    that are due."""
    waiting: dict[str, list[str]] = {}
    serving = bench.ledger.releases.serving()
    releases = {bench.release_id, *([serving.release_id] if serving else [])}
    for bucket in bench.bucket_names:
        standing = backlog(bench, bucket)
        left = [t.version_id for t in standing.tasks]
        left += [t.version_id for t in standing.blocked if t.entry is not None and t.entry.version_id is None]
        for release in releases:
            left += [e.document_id for e in bench.ledger.documents.retired_entries(release, bucket)]
        if left:
            waiting.setdefault(bucket, []).extend(left)
    replica = replica_of(bench)
    for one in [] if replica is None else lagging(bench, replica):
        what = "removed" if one.entry is None else one.entry.version_id
        waiting.setdefault(one.bucket, []).append(f"replica:{one.document_id}:{what}")
    for letter in bench.ledger.dead_letters.due(time.time() if now is None else now):
        waiting.setdefault(letter.bucket, []).append(f"{letter.dead_letter_id}:{letter.attempts}")
    return {bucket: identity.digest(*sorted(what))[:16] for bucket, what in waiting.items()}


def range_to_run(bench: Workbench, specs: Sequence[SourceSpec], *, replay: Collection[str] = ()) -> tuple[str, str]:
    """Return the first and last bucket that an ingestion of these sources has to cover.

    With nothing to do that is a single bucket: the run still lists every source completely, watches the
    guard and audits the index, and its record shows that somebody looked.

    Args:
        replay: ids of dead letters that the run will try again, or ``all``.
    """
    universe = bench.bucket_names
    position = {name: number for number, name in enumerate(universe)}
    if set(bench.ledger.documents.buckets()) - set(universe):
        return universe[0], universe[-1]  # the number of buckets was changed: every document moves
    touched = {*changed_buckets(bench, [difference(bench, s) for s in specs]), *waiting_buckets(bench)}
    letters = bench.ledger.dead_letters.search(state="open") if replay else []
    touched |= {x.bucket for x in letters if x.dead_letter_id in replay or "all" in replay}
    numbers = sorted(position[b] for b in touched) or [0]
    return universe[numbers[0]], universe[numbers[-1]]
