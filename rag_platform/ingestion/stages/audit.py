"""Is what we serve what we should serve? Compares ledger, backlog and index, and finishes a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from rag_platform import identity, telemetry
from rag_platform.ingestion.stages.backlog import backlog
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.documents import IndexEntry

KEEP_RETIRED_RELEASES = 1


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
    """
    release = bench.release
    entries = bench.ledger.documents.entries(release.release_id)
    expected = sum(e.chunk_count for e in entries.values() if e.version_id is not None)
    token = bench.store.state_token(release.index_name)
    if not force and token is not None and token == _verified(release.verified_state, entries):
        return IndexAudit(expected, expected, 0, 0, checked=False)
    held: Counter[tuple[str, str]] = Counter()
    try:
        for batch in bench.store.scan(release.index_name, ("document_id", "version_id")):
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
    if not ghosts and not missing:
        bench.ledger.releases.note_verified(
            release.release_id, None if token is None else f"{token}/{_ledger_token(entries)}"
        )
    return IndexAudit(expected, sum(held.values()), ghosts, missing, wrong)


def repair(bench: Workbench, documents: Collection[str]) -> None:
    """Mark documents dirty, so that the next pass writes or removes them again; chunks of documents that
    the ledger has no entry of are removed at once: no pass would ever look at them."""
    release = bench.release
    with bench.ledger.database.locks(f"index-{b}" for b in bench.bucket_names):
        known = bench.ledger.documents.entries(release.release_id)
        strangers = sorted(d for d in set(documents) if d not in known)
        if strangers:
            with telemetry.effect("store:delete"):
                bench.run(bench.store.delete(release.index_name, strangers))
        bench.ledger.documents.mark_dirty_ids(release.release_id, documents)


def finish(bench: Workbench) -> str | None:
    """Promote this pipeline's release when it may serve, and drop releases that nothing needs.

    The first release serves at once, there is nothing better. A later one serves when every live
    document is indexed in it or is a dead letter, no more of them are dead letters than
    ``max_dead_letter_share`` allows, and its index was found to hold just that; until then the old one
    goes on answering.

    Returns:
        The id of the release that serves.
    """
    releases = bench.ledger.releases
    serving = releases.serving()
    release = bench.release
    if serving is None or serving.release_id != release.release_id:
        state = conservation(bench, bench.bucket_names)
        lost = state.dead_lettered / state.received if state.received else 0.0
        complete = state.in_flight == 0 and state.indexed > 0 and lost <= bench.settings.max_dead_letter_share
        if serving is None or (complete and not audit_index(bench).wrong):
            with telemetry.effect("store:ensure"):
                bench.run(bench.store.ensure(release.index_name, bench.pipeline.embedder.dimensions))
            releases.promote(release.release_id)
    retired = sorted(
        (r for r in releases.all() if r.state == "retired"), key=lambda r: r.promoted_at or 0.0, reverse=True
    )
    for old in retired[KEEP_RETIRED_RELEASES:]:
        # Dirty first: should this die half-way and its pipeline come back, nothing is believed of it.
        releases.reset_entries(old.release_id, bench.bucket_names)
        with telemetry.effect("store:drop"):
            bench.run(bench.store.drop(old.index_name))
        releases.forget(old.release_id)
    now = releases.serving()
    return None if now is None else now.release_id


def _ledger_token(entries: Mapping[str, IndexEntry]) -> str:
    return identity.digest(*sorted(f"{e.document_id}:{e.version_id}:{e.chunk_count}" for e in entries.values()))[:16]


def _verified(state: str | None, entries: Mapping[str, IndexEntry]) -> str | None:
    if state is None:
        return None
    token, _, ledger = state.rpartition("/")
    return token if ledger == _ledger_token(entries) else None
