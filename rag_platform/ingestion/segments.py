"""Append-only Parquet segments: what a stage made, written once, found through the ledger.

A segment becomes real when the ledger commits it; a file without a ledger row is the litter of a
crashed attempt and is collected. Rewriting a bucket's file for one changed document would cost seconds
at ten thousand documents, appending a segment costs milliseconds (docs/decisions/0002).
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rag_platform import telemetry
from rag_platform.backends.object_stores.base import ObjectStore
from rag_platform.errors import DependencyError
from rag_platform.ledger import Ledger
from rag_platform.ledger.artifacts import Segment

KEY_COLUMN = {"parse": "parse_key", "chunk": "chunk_set_key", "embed": "embedding_key"}

COMPACT_MIN_SEGMENTS = 64
"""A stage is compacted when it has this many small segments."""
SMALL_SEGMENT_BYTES = 4 * 1024 * 1024
LARGE_SEGMENT_BYTES = 64 * 1024 * 1024
ORPHAN_GRACE_S = 3600.0
"""A segment file without a ledger row may belong to a run that is just about to commit it."""
_READ_ATTEMPTS = 3
_CACHE_BYTES = 96 * 1024 * 1024


class SegmentStore:
    """Writes, reads and compacts segments. Not thread-safe; one a run."""

    def __init__(self, ledger: Ledger, objects: ObjectStore) -> None:
        self._ledger = ledger
        self._objects = objects
        self._cache: OrderedDict[tuple[int, tuple[str, ...]], pa.Table] = OrderedDict()

    def write(self, stage: str, table: pa.Table, entries: Sequence[tuple[str, int, int]]) -> int:
        """Write one segment and commit its artifacts (key, items, tokens); return its bytes."""
        key, size = self._put(stage, table)
        self._ledger.artifacts.add_segment(stage, key, rows=table.num_rows, size=size, entries=entries)
        return size

    def read(self, stage: str, keys: Collection[str], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows of the given artifacts, one table a segment, in the order they were written.

        Raises:
            DependencyError: the object store lost a segment that the ledger counts on.
        """
        waiting: Collection[str] = keys
        for attempt in itertools.count(1):
            artifacts = self._ledger.artifacts.find(stage, waiting)
            by_segment: dict[int, list[str]] = {}
            for artifact in artifacts.values():
                by_segment.setdefault(artifact.segment_id, []).append(artifact.key)
            segments = self._ledger.artifacts.segments(by_segment)
            moved: list[str] = []
            for segment_id, held in sorted(by_segment.items()):
                try:
                    table = self._load(segments[segment_id], columns)
                except KeyError:
                    moved += held  # another run has just compacted it away
                    continue
                wanted = pa.array(held, type=pa.string())
                yield table.filter(pc.is_in(table[KEY_COLUMN[stage]], value_set=wanted))
            if not moved:
                return
            if attempt == _READ_ATTEMPTS:
                raise DependencyError("object store", f"{len(moved)} stored {stage} results are missing")
            waiting = moved

    def compact(self, stage: str, *, force: bool = False) -> dict[str, int]:
        """Merge small segments of a stage into one when there are many; report what was done.

        The old files stay for readers that hold their names; garbage collection removes them.
        """
        if len(self._small(stage)) < (2 if force else COMPACT_MIN_SEGMENTS):
            return {"merged": 0}
        with self._ledger.database.lock(f"compact-{stage}"):
            return self._compact(stage)

    def _small(self, stage: str) -> list[Segment]:
        return [s for s in self._ledger.artifacts.all_segments(stage) if s.bytes < SMALL_SEGMENT_BYTES]

    def _compact(self, stage: str) -> dict[str, int]:
        chosen: list[Segment] = []
        total = 0
        for segment in self._small(stage):
            if total + segment.bytes > LARGE_SEGMENT_BYTES:
                break
            chosen.append(segment)
            total += segment.bytes
        alike: dict[str, dict[int, pa.Table]] = {}  # embeddings of two models do not fit into one file
        for segment in chosen:
            table = self._load(segment, None)
            # Not the keys of all: a row that lost to another segment's would be there twice.
            wanted = pa.array(sorted(self._ledger.artifacts.keys_of([segment.segment_id])), type=pa.string())
            kept = table.filter(pc.is_in(table[KEY_COLUMN[stage]], value_set=wanted))
            alike.setdefault(str(table.schema), {})[segment.segment_id] = kept
        tables = max(alike.values(), key=len, default={})
        if len(tables) < 2:
            return {"merged": 0}
        merged = pa.concat_tables(tables.values())
        key, size = self._put(stage, merged)
        self._ledger.artifacts.replace_segments(stage, tables, key, rows=merged.num_rows, size=size)
        return {"merged": len(tables), "bytes": size}

    def collect_garbage(self, *, grace_s: float = ORPHAN_GRACE_S) -> int:
        """Delete segment files that the ledger does not know and that are older than the grace."""
        known = {s.object_key for s in self._ledger.artifacts.all_segments()}
        cut = time.time() - grace_s
        orphans = [o.key for o in self._objects.list("segments") if o.key not in known and o.modified_at < cut]
        if orphans:
            with telemetry.effect("object:delete"):
                self._objects.delete(orphans)
        return len(orphans)

    def _put(self, stage: str, table: pa.Table) -> tuple[str, int]:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        data = sink.getvalue().to_pybytes()
        key = f"segments/{stage}/{uuid.uuid4().hex}.parquet"
        with telemetry.effect("object:segment"):
            self._objects.put(key, data)
        return key, len(data)

    def _load(self, segment: Segment, columns: Sequence[str] | None) -> pa.Table:
        at = (segment.segment_id, tuple(columns or ()))
        if at in self._cache:
            self._cache.move_to_end(at)
            return self._cache[at]
        source = pa.BufferReader(self._objects.get(segment.object_key))
        table = pq.read_table(source, columns=None if columns is None else list(columns))
        self._cache[at] = table
        while len(self._cache) > 1 and sum(t.nbytes for t in self._cache.values()) > _CACHE_BYTES:
            self._cache.popitem(last=False)
        return table
