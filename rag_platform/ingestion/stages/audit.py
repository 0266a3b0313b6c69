"""Is what we serve what we should serve? Compares ledger, backlog and index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from rag_platform import identity, telemetry
from rag_platform.backends.vector_stores.base import VectorStore
from rag_platform.ingestion.stages.backlog import backlog
from rag_platform.ingestion.stages.exchange import Target, index_of, locked
from rag_platform.ingestion.stages.replica import replica_of
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.documents import IndexEntry


@dataclass(frozen=True, slots=True)
class Conservation:
    """received = indexed + dead-lettered + in flight, document by document (deleted ones are gone)."""

    received: int
    indexed: int
    dead_lettered: int
    in_flight: int

    @property
    def holds(self) -> bool:
        return self.received == self.indexed + self.dead_lettered + self.in_flight


@dataclass(frozen=True, slots=True)
class IndexAudit:
    """Chunks in the ledger and in the index, and the documents for which they differ.

    Attributes:
        ghosts: chunks of documents or versions that should not be there.
        missing: chunks that should be there and are not.
        wrong: the ids of those documents.
        checked: False when the index had not moved since it was last found right.
    """

    ledger_chunks: int
    index_chunks: int
    ghosts: int
    missing: int
    wrong: list[str] = field(default_factory=list)
    checked: bool = True

    @property
    def examples(self) -> list[str]:
        """A few of the wrong documents, for messages."""
        return self.wrong[:10]


def conservation(bench: Workbench, buckets: Collection[str]) -> Conservation:
    """Count where every live document of the buckets stands."""
    received = indexed = dead = flight = 0
    for bucket in buckets:
        standing = backlog(bench, bucket)
        received += len(standing.wanted)
        indexed += len(standing.indexed)
        dead += len(standing.blocked)
        flight += len(standing.tasks)
    return Conservation(received, indexed, dead, flight)


def audit_index(bench: Workbench, *, force: bool = False) -> IndexAudit:
    """Compare every chunk's (document, version) in the index with the ledger's entries.

    An index whose state token has not moved since it was last found right is not read again.

    Raises:
        DependencyError: the store failed.
    """
    release = bench.release
    entries = bench.ledger.documents.entries(release.release_id)
    expected = _chunks(entries)
    token = bench.store.state_token(release.index_name)
    if not force and token is not None and token == _verified(release.verified_state, entries):
        return IndexAudit(expected, expected, 0, 0, checked=False)
    audit = compare(bench.store, release.index_name, entries)
    if not audit.wrong:
        bench.ledger.releases.note_verified(
            release.release_id, None if token is None else f"{token}/{_ledger_token(entries)}"
        )
    return audit


def audit_replica(bench: Workbench) -> IndexAudit | None:
    """Compare the keyword replica of this bench's release with what the ledger says that it holds; None where
    there is none. Raises as ``audit_index``."""
    target = replica_of(bench)
    if target is None:
        return None
    return compare(target.store, target.index, bench.ledger.documents.entries(target.entries_id))


def compare(store: VectorStore, index: str, entries: Mapping[str, IndexEntry]) -> IndexAudit:
    """Compare an index, chunk by chunk, with what the ledger says that it holds.

    Raises:
        DependencyError: the store failed.
    """
    held: Counter[tuple[str, str]] = Counter()
    try:
        for batch in store.scan(index, ("document_id", "version_id")):
            held.update(zip(batch["document_id"].to_pylist(), batch["version_id"].to_pylist(), strict=True))
    except KeyError:
        pass  # the index does not exist: everything that should be there is missing
    ghosts = missing = 0
    wrong: list[str] = []
    seen: set[str] = set()
    for (document_id, version_id), count in held.items():
        entry = entries.get(document_id)
        right = 0
        if entry is not None and entry.version_id == version_id:
            seen.add(document_id)
            right = entry.chunk_count
        if count != right:
            ghosts += max(0, count - right)
            missing += max(0, right - count)
            wrong.append(document_id)
    for entry in entries.values():
        if entry.version_id is not None and entry.document_id not in seen and entry.chunk_count:
            missing += entry.chunk_count
            wrong.append(entry.document_id)
    return IndexAudit(_chunks(entries), sum(held.values()), ghosts, missing, wrong)


def repair(bench: Workbench, documents: Collection[str], target: Target | None = None) -> None:
    """Mark documents dirty, so that the next pass writes or removes them again; chunks of documents that
    the ledger has no entry of are removed at once: no pass would ever look at them.

    Args:
        target: the index that they are wrong in; default: that of the bench's release.
    """
    target = target or index_of(bench)
    with locked(bench, target):
        known = bench.ledger.documents.entries(target.entries_id)
        strangers = sorted(d for d in set(documents) if d not in known)
        if strangers:
            with telemetry.effect(f"{target.name}:delete"):
                bench.run(target.store.delete(target.index, strangers))
        bench.ledger.documents.mark_dirty_ids(target.entries_id, documents)


def _chunks(entries: Mapping[str, IndexEntry]) -> int:
    return sum(e.chunk_count for e in entries.values() if e.version_id is not None)


def _ledger_token(entries: Mapping[str, IndexEntry]) -> str:
    return identity.digest(*sorted(f"{e.document_id}:{e.version_id}:{e.chunk_count}" for e in entries.values()))[:16]


def _verified(state: str | None, entries: Mapping[str, IndexEntry]) -> str | None:
    if state is None:
        return None
    token, _, ledger = state.rpartition("/")
    return token if ledger == _ledger_token(entries) else None
