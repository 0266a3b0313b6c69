"""What the stages have made: segments, and which segment holds which artifact."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from rag_platform.ledger import schema
from rag_platform.ledger.database import Database, batches

_a = schema.artifacts
_s = schema.segments


@dataclass(frozen=True, slots=True)
class Artifact:
    """``items`` counts characters (parse), chunks (chunk) or 1 (embed)."""

    key: str
    segment_id: int
    items: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Segment:
    segment_id: int
    stage: str
    object_key: str
    rows: int
    bytes: int
    created_at: float


class Artifacts:
    def __init__(self, database: Database) -> None:
        self._db = database

    def find(self, stage: str, keys: Iterable[str]) -> dict[str, Artifact]:
        """Return the artifacts that exist among ``keys``."""
        found: dict[str, Artifact] = {}
        with self._db.read() as c:
            for batch in batches(set(keys)):
                query = sa.select(_a).where(_a.c.stage == stage, _a.c.key.in_(batch))
                found.update({r.key: Artifact(r.key, r.segment_id, r.items, r.tokens) for r in c.execute(query)})
        return found

    def add_segment(
        self, stage: str, object_key: str, *, rows: int, size: int, entries: Sequence[tuple[str, int, int]]
    ) -> None:
        """Commit a written segment with its artifacts: (key, items, tokens). A key that exists stays
        with the segment it has."""
        with self._db.write(f"segment_{stage}") as c:
            inserted = c.execute(
                _s.insert().values(stage=stage, object_key=object_key, rows=rows, bytes=size, created_at=time.time())
            )
            segment_id = int(inserted.inserted_primary_key[0])  # type: ignore[index]
            self._db.upsert(
                c,
                _a,
                [
                    {"stage": stage, "key": k, "segment_id": segment_id, "items": items, "tokens": tokens}
                    for k, items, tokens in entries
                ],
            )

    def replace_segments(self, stage: str, old: Collection[int], object_key: str, *, rows: int, size: int) -> None:
        """Point every artifact of the old segments at one new segment, and forget the old ones."""
        with self._db.write("compact_segments") as c:
            inserted = c.execute(
                _s.insert().values(stage=stage, object_key=object_key, rows=rows, bytes=size, created_at=time.time())
            )
            new_id = int(inserted.inserted_primary_key[0])  # type: ignore[index]
            for batch in batches(old):
                c.execute(_a.update().where(_a.c.segment_id.in_(batch)).values(segment_id=new_id))
                c.execute(_s.delete().where(_s.c.segment_id.in_(batch)))

    def segments(self, ids: Iterable[int]) -> dict[int, Segment]:
        found: dict[int, Segment] = {}
        with self._db.read() as c:
            for batch in batches(set(ids)):
                found.update(
                    {r.segment_id: _segment(r) for r in c.execute(sa.select(_s).where(_s.c.segment_id.in_(batch)))}
                )
        return found

    def all_segments(self, stage: str | None = None) -> list[Segment]:
        query = sa.select(_s).order_by(_s.c.segment_id)
        if stage is not None:
            query = query.where(_s.c.stage == stage)
        with self._db.read() as c:
            return [_segment(r) for r in c.execute(query)]

    def keys_of(self, segment_ids: Iterable[int]) -> set[str]:
        """Return the artifact keys that these segments hold."""
        keys: set[str] = set()
        with self._db.read() as c:
            for batch in batches(set(segment_ids)):
                keys.update(r.key for r in c.execute(sa.select(_a.c.key).where(_a.c.segment_id.in_(batch))))
        return keys

    def drop_artifacts(self, stage: str, keys: Iterable[str]) -> None:
        """Forget artifacts, so that they are made again."""
        with self._db.write("drop_artifacts") as c:
            for batch in batches(keys):
                c.execute(_a.delete().where(_a.c.stage == stage, _a.c.key.in_(batch)))
                if stage == "chunk":
                    e = schema.embedded_sets
                    c.execute(e.delete().where(e.c.chunk_set_key.in_(batch)))

    def forget_segments(self, segment_ids: Collection[int], broken_sets: Collection[str]) -> None:
        """Forget segments that are lost with all that they held; ``broken_sets`` are the chunk sets that are no
        longer complete."""
        with self._db.write("forget_segments") as c:
            for batch in batches(segment_ids):
                c.execute(_a.delete().where(_a.c.segment_id.in_(batch)))
                c.execute(_s.delete().where(_s.c.segment_id.in_(batch)))
            e = schema.embedded_sets
            for keys in batches(broken_sets):
                c.execute(e.delete().where(e.c.chunk_set_key.in_(keys)))

    def embedded(self, embedder: str, chunk_set_keys: Iterable[str]) -> set[str]:
        """Return the chunk sets all of whose vectors exist."""
        e = schema.embedded_sets
        found: set[str] = set()
        with self._db.read() as c:
            for batch in batches(set(chunk_set_keys)):
                query = sa.select(e.c.chunk_set_key).where(e.c.embedder == embedder, e.c.chunk_set_key.in_(batch))
                found.update(r.chunk_set_key for r in c.execute(query))
        return found

    def mark_embedded(self, embedder: str, chunk_set_keys: Collection[str]) -> None:
        with self._db.write("mark_embedded") as c:
            self._db.upsert(
                c, schema.embedded_sets, [{"chunk_set_key": k, "embedder": embedder} for k in chunk_set_keys]
            )

    def sizes(self) -> dict[str, int]:
        """Return the bytes of all segments, by stage."""
        with self._db.read() as c:
            rows = c.execute(sa.select(_s.c.stage, sa.func.sum(_s.c.bytes)).group_by(_s.c.stage))
            return {r[0]: int(r[1]) for r in rows}


def _segment(row: sa.Row[tuple[object, ...]]) -> Segment:
    return Segment(row.segment_id, row.stage, row.object_key, row.rows, row.bytes, row.created_at)
