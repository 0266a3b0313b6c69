"""Documents: what should be searchable, and the work that separates it from what is."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from rag_platform import identity
from rag_platform.ledger import schema
from rag_platform.ledger.database import Database, batches

_d = schema.documents
_e = schema.index_entries


@dataclass(frozen=True, slots=True)
class Document:
    """The desired state of one document, as its source last showed it."""

    document_id: str
    source: str
    uri: str
    bucket: str
    live: bool
    generation: int
    change_token: str
    size: int
    modified_at: float | None
    content_hash: str
    metadata_hash: str
    metadata: Mapping[str, Any]
    snapshot_id: str
    run_id: str


@dataclass(frozen=True, slots=True)
class DocumentChange:
    """A new desired state. ``expected_generation`` is what the writer read (0: no row); the change
    is dropped when somebody else committed in between."""

    document: Document
    expected_generation: int


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What an index holds of a document. ``version_id`` None means dirty: it may hold anything."""

    document_id: str
    version_id: str | None
    content_hash: str
    metadata_hash: str
    chunk_count: int


@dataclass(frozen=True, slots=True)
class Standing:
    """A live document beside what one release's index holds of it."""

    document: Document
    entry: IndexEntry | None


@dataclass(frozen=True, slots=True)
class BucketState:
    generation: int
    manifest_hash: str
    documents: int


class Documents:
    def __init__(self, database: Database) -> None:
        self._db = database

    # ── desired state ──
    def of_source(self, source: str) -> dict[str, Document]:
        """Return every document ever seen in the source, by uri, deleted ones included."""
        with self._db.read() as c:
            return {r.uri: _document(r) for r in c.execute(sa.select(_d).where(_d.c.source == source))}

    def get(self, document_id: str) -> Document | None:
        with self._db.read() as c:
            row = c.execute(sa.select(_d).where(_d.c.document_id == document_id)).first()
        return None if row is None else _document(row)

    def commit(self, changes: Sequence[DocumentChange]) -> set[str]:
        """Commit changes by compare-and-swap on the generation; return the ids that were committed."""
        done: set[str] = set()
        now = time.time()
        with self._db.write("documents") as c:
            ids = [change.document.document_id for change in changes]
            current: dict[str, int] = {}
            for batch in batches(ids):
                query = sa.select(_d.c.document_id, _d.c.generation).where(_d.c.document_id.in_(batch))
                current.update({r.document_id: r.generation for r in c.execute(query)})
            rows = []
            for change in changes:
                document = change.document
                if current.get(document.document_id, 0) != change.expected_generation:
                    continue
                done.add(document.document_id)
                rows.append(_row(document, change.expected_generation + 1, now))
            self._db.upsert(
                c,
                _d,
                rows,
                update=(
                    "live", "generation", "change_token", "size", "modified_at", "content_hash",
                    "metadata_hash", "metadata", "snapshot_id", "run_id", "changed_at",
                ),
            )  # fmt: skip
        return done

    def touch(self, tokens: Mapping[str, str]) -> None:
        """Record new change tokens of documents whose bytes turned out to be the same."""
        with self._db.write("touch") as c:
            statement = _d.update().where(_d.c.document_id == sa.bindparam("id")).values(change_token=sa.bindparam("t"))
            c.execute(statement, [{"id": i, "t": t} for i, t in tokens.items()])

    def retire(self, found: Mapping[str, int], *, run_id: str) -> set[str]:
        """Mark documents (id → generation read) as deleted, by compare-and-swap; return those done."""
        done: set[str] = set()
        with self._db.write("retire") as c:
            for document_id, generation in found.items():
                result = c.execute(
                    _d.update()
                    .where(_d.c.document_id == document_id, _d.c.generation == generation, _d.c.live.is_(True))
                    .values(live=False, generation=generation + 1, changed_at=time.time(), run_id=run_id)
                )
                if result.rowcount == 1:
                    done.add(document_id)
        return done

    # ── buckets ──
    def refresh_buckets(self, names: Iterable[str]) -> dict[str, BucketState]:
        """Recompute the manifest of each bucket; its generation rises when the manifest moved."""
        states: dict[str, BucketState] = {}
        names = sorted(set(names))
        if not names:
            return states
        with self._db.write("buckets") as c:
            for name in names:
                rows = c.execute(
                    sa.select(_d.c.document_id, _d.c.content_hash, _d.c.metadata_hash).where(
                        _d.c.bucket == name, _d.c.live.is_(True)
                    )
                ).all()
                manifest = identity.manifest_hash((r.document_id, r.content_hash, r.metadata_hash) for r in rows)
                old = c.execute(sa.select(schema.buckets).where(schema.buckets.c.bucket == name)).first()
                generation = 1 if old is None else old.generation + (old.manifest_hash != manifest)
                states[name] = BucketState(generation, manifest, len(rows))
                self._db.upsert(
                    c,
                    schema.buckets,
                    [
                        {
                            "bucket": name,
                            "generation": generation,
                            "manifest_hash": manifest,
                            "documents": len(rows),
                            "updated_at": time.time(),
                        }
                    ],
                    update=("generation", "manifest_hash", "documents", "updated_at"),
                )
        return states

    def buckets(self) -> dict[str, BucketState]:
        with self._db.read() as c:
            rows = c.execute(sa.select(schema.buckets))
            return {r.bucket: BucketState(r.generation, r.manifest_hash, r.documents) for r in rows}

    def rebucket(self, hex_digits: int) -> int:
        """Move every document to its bucket of a new bucket count; return how many moved."""
        moved = 0
        with self._db.read() as c:
            placed = c.execute(sa.select(_d.c.document_id, _d.c.bucket)).all()
        if all(identity.bucket(r.document_id, hex_digits) == r.bucket for r in placed):
            return 0
        with self._db.write("rebucket") as c:
            for row in c.execute(sa.select(_d.c.document_id, _d.c.bucket)).all():
                wanted = identity.bucket(row.document_id, hex_digits)
                if wanted != row.bucket:
                    moved += 1
                    for table in (_d, _e, schema.dead_letters):
                        c.execute(table.update().where(table.c.document_id == row.document_id).values(bucket=wanted))
            if moved:
                c.execute(schema.buckets.delete())
        return moved

    # ── desired state beside indexed state ──
    def standing(self, release_id: str, bucket: str) -> list[Standing]:
        """Return every live document of a bucket beside its entry in the release's index."""
        joined = sa.outerjoin(_d, _e, sa.and_(_e.c.document_id == _d.c.document_id, _e.c.release_id == release_id))
        query = (
            sa.select(
                _d,
                _e.c.document_id.label("entry_id"),
                _e.c.version_id,
                _e.c.content_hash.label("entry_content"),
                _e.c.metadata_hash.label("entry_metadata"),
                _e.c.chunk_count,
            )
            .select_from(joined)
            .where(_d.c.bucket == bucket, _d.c.live.is_(True))
            .order_by(_d.c.source, _d.c.uri)
        )
        with self._db.read() as c:
            return [
                Standing(
                    _document(r),
                    None
                    if r.entry_id is None
                    else IndexEntry(r.document_id, r.version_id, r.entry_content, r.entry_metadata, r.chunk_count),
                )
                for r in c.execute(query)
            ]

    def retired_entries(self, release_id: str, bucket: str) -> list[IndexEntry]:
        """Return the entries of documents that are no longer live."""
        query = (
            sa.select(_e)
            .select_from(sa.join(_e, _d, _e.c.document_id == _d.c.document_id))
            .where(_e.c.release_id == release_id, _e.c.bucket == bucket, _d.c.live.is_(False))
        )
        with self._db.read() as c:
            return [
                IndexEntry(r.document_id, r.version_id, r.content_hash, r.metadata_hash, r.chunk_count)
                for r in c.execute(query)
            ]

    def mark_dirty(self, release_id: str, documents: Collection[Document], run_id: str) -> None:
        """Say, before the index is touched, that it may now hold anything for these documents."""
        rows = [
            {
                "release_id": release_id,
                "document_id": d.document_id,
                "bucket": d.bucket,
                "version_id": None,
                "content_hash": "",
                "metadata_hash": "",
                "chunk_count": 0,
                "indexed_at": time.time(),
                "run_id": run_id,
            }
            for d in documents
        ]
        with self._db.write("mark_dirty") as c:
            self._db.upsert(c, _e, rows, update=("version_id", "run_id"))

    def mark_dirty_ids(self, release_id: str, document_ids: Collection[str]) -> None:
        """``mark_dirty`` for documents that have an entry already."""
        with self._db.write("mark_dirty") as c:
            for batch in batches(document_ids):
                c.execute(
                    _e.update()
                    .where(_e.c.release_id == release_id, _e.c.document_id.in_(batch))
                    .values(version_id=None)
                )

    def mark_indexed(self, release_id: str, entries: Sequence[tuple[IndexEntry, str]], run_id: str) -> None:
        """Say, after the index was verified, what it holds; each entry comes with its bucket."""
        rows = [
            {
                "release_id": release_id,
                "document_id": e.document_id,
                "bucket": bucket,
                "version_id": e.version_id,
                "content_hash": e.content_hash,
                "metadata_hash": e.metadata_hash,
                "chunk_count": e.chunk_count,
                "indexed_at": time.time(),
                "run_id": run_id,
            }
            for e, bucket in entries
        ]
        with self._db.write("mark_indexed") as c:
            self._db.upsert(
                c,
                _e,
                rows,
                update=("version_id", "content_hash", "metadata_hash", "chunk_count", "indexed_at", "run_id"),
            )

    def forget_entries(self, release_id: str, document_ids: Collection[str]) -> None:
        """Say that the index holds nothing of these documents any more."""
        with self._db.write("forget_entries") as c:
            for batch in batches(document_ids):
                c.execute(_e.delete().where(_e.c.release_id == release_id, _e.c.document_id.in_(batch)))

    def entries(self, release_id: str) -> dict[str, IndexEntry]:
        """Return all entries of a release, by document."""
        with self._db.read() as c:
            return {
                r.document_id: IndexEntry(r.document_id, r.version_id, r.content_hash, r.metadata_hash, r.chunk_count)
                for r in c.execute(sa.select(_e).where(_e.c.release_id == release_id))
            }

    def of_ids(self, document_ids: Collection[str]) -> dict[str, Document]:
        """Return these documents by id, deleted ones included; one that was never seen is missing."""
        found: dict[str, Document] = {}
        with self._db.read() as c:
            for some in batches(document_ids):
                rows = c.execute(sa.select(_d).where(_d.c.document_id.in_(some)))
                found.update({r.document_id: _document(r) for r in rows})
        return found

    def totals(self, release_id: str | None) -> dict[str, int]:
        """Count live and deleted documents, and documents and chunks of a release's index."""
        with self._db.read() as c:
            live = c.execute(sa.select(sa.func.count()).where(_d.c.live.is_(True))).scalar_one()
            deleted = c.execute(sa.select(sa.func.count()).where(_d.c.live.is_(False))).scalar_one()
            indexed, chunks = c.execute(
                sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_e.c.chunk_count), 0)).where(
                    _e.c.release_id == (release_id or ""), _e.c.version_id.is_not(None)
                )
            ).one()
        return {"live": live, "deleted": deleted, "indexed": indexed, "chunks": int(chunks)}

    def content_hashes(self) -> set[str]:
        """Return the content hashes that any document or index entry still refers to."""
        with self._db.read() as c:
            live = {r[0] for r in c.execute(sa.select(_d.c.content_hash).where(_d.c.live.is_(True)))}
            served = {r[0] for r in c.execute(sa.select(_e.c.content_hash).distinct())}
            letters = schema.dead_letters
            open_letters = {
                r[0] for r in c.execute(sa.select(letters.c.content_hash).where(letters.c.state != "resolved"))
            }
        return live | served | open_letters


def _document(row: Any) -> Document:
    return Document(
        document_id=row.document_id,
        source=row.source,
        uri=row.uri,
        bucket=row.bucket,
        live=row.live,
        generation=row.generation,
        change_token=row.change_token,
        size=row.size,
        modified_at=row.modified_at,
        content_hash=row.content_hash,
        metadata_hash=row.metadata_hash,
        metadata=json.loads(row.metadata),
        snapshot_id=row.snapshot_id,
        run_id=row.run_id,
    )


def _row(document: Document, generation: int, now: float) -> dict[str, Any]:
    return {
        "document_id": document.document_id,
        "source": document.source,
        "uri": document.uri,
        "bucket": document.bucket,
        "live": document.live,
        "generation": generation,
        "change_token": document.change_token,
        "size": document.size,
        "modified_at": document.modified_at,
        "content_hash": document.content_hash,
        "metadata_hash": document.metadata_hash,
        "metadata": identity.canonical_json(dict(document.metadata)),
        "snapshot_id": document.snapshot_id,
        "run_id": document.run_id,
        "first_seen_at": now,
        "changed_at": now,
    }
