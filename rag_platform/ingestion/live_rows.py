"""The stored rows that the live documents of some partitions stand on."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from rag_platform.ingestion.workbench import Workbench
from rag_platform.records import CHUNK_SCHEMA, PARSED_SCHEMA, embedding_schema

_SNAPSHOT_SCHEMA = pa.schema(
    [
        pa.field("document_id", pa.string()),
        pa.field("source", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("content_hash", pa.string()),
        pa.field("metadata_hash", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("modified_at", pa.float64()),
        pa.field("snapshot_id", pa.string()),
    ]
)


def live_rows(bench: Workbench, stage: str, buckets: Iterable[str]) -> pa.Table:
    """Return the rows of ``stage`` for the live documents of ``buckets``, as stored.

    Args:
        bench: an open workbench.
        stage: ``snapshot``, ``parse``, ``chunk`` or ``embed``.
        buckets: partition keys.
    """
    documents = [s.document for b in buckets for s in bench.ledger.documents.standing(bench.release_id, b)]
    if stage == "snapshot":
        rows = [{name: getattr(d, name) for name in _SNAPSHOT_SCHEMA.names} for d in documents]
        return pa.Table.from_pylist(rows, schema=_SNAPSHOT_SCHEMA)
    pipeline = bench.pipeline
    if stage == "parse":
        keys = {pipeline.parse_key(d.content_hash, d.uri) for d in documents}
        return _concat(bench, "parse", keys, PARSED_SCHEMA)
    sets = {pipeline.chunk_set_key(d.content_hash, d.uri) for d in documents}
    chunks = _concat(bench, "chunk", sets, CHUNK_SCHEMA)
    if stage == "chunk":
        return chunks
    keys = set(chunks["embedding_key"].to_pylist())
    return _concat(bench, "embed", keys, embedding_schema(pipeline.embedder.dimensions))


def _concat(bench: Workbench, stage: str, keys: set[str], schema: pa.Schema) -> pa.Table:
    return pa.concat_tables([schema.empty_table(), *bench.segments.read(stage, keys)])
