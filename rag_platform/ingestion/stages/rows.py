"""Index rows of documents, from their stored chunks and vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rag_platform import identity
from rag_platform.errors import DependencyError
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.artifacts import Artifact
from rag_platform.ledger.documents import Document
from rag_platform.records import index_schema

CURE = (
    "restore the object store from a backup; without one, `rag doctor --repair` and then `rag ingest` make them "
    "again from the stored documents"
)


@dataclass(frozen=True, slots=True)
class Write:
    """A document that an index is to hold.

    Attributes:
        document: its metadata are written as they are here.
        version_id: the version to serve, made of ``content_hash``.
        chunk_set: its chunks; None: nothing may be served of it.
        known: whether the index may hold rows of it.
    """

    document: Document
    version_id: str
    content_hash: str
    chunk_set: Artifact | None
    known: bool


def index_rows(
    bench: Workbench, batch: Sequence[Write], run_id: str, dimensions: int
) -> tuple[pa.Table, dict[str, int]]:
    """Return the rows of a batch (``records.index_schema``; 0 dimensions: without vectors), and the number of
    rows of each document.

    Raises:
        DependencyError: the object store has lost chunks or vectors.
    """
    by_set: dict[str, list[Write]] = {}
    for write in batch:
        if write.chunk_set is not None:
            by_set.setdefault(write.chunk_set.key, []).append(write)
    schema = index_schema(dimensions)
    columns: dict[str, list[Any]] = {name: [] for name in schema.names if name != "vector"}
    keys: list[str] = []
    counts: dict[str, int] = {w.document.document_id: 0 for w in batch}
    seen: set[tuple[str, int]] = set()
    for table in bench.segments.read("chunk", by_set):
        for row in table.to_pylist():
            at = (row["chunk_set_key"], row["ordinal"])
            if at in seen:  # the same set was written by two runs at once
                continue
            seen.add(at)
            for write in by_set[row["chunk_set_key"]]:
                _append(columns, write, row, run_id)
                keys.append(row["embedding_key"])
                counts[write.document.document_id] += 1
    if dimensions:
        columns["vector"] = _vectors(bench, keys, dimensions)
    return pa.table(columns, schema=schema), counts


def _append(columns: dict[str, list[Any]], write: Write, row: Mapping[str, Any], run_id: str) -> None:
    document, metadata = write.document, write.document.metadata
    values = {
        "chunk_id": identity.chunk_id(document.document_id, write.version_id, row["ordinal"]),
        "document_id": document.document_id,
        "source": document.source,
        "uri": document.uri,
        "title": metadata.get("title") or row["title"] or PurePosixPath(document.uri).name,
        "version_id": write.version_id,
        "content_hash": write.content_hash,
        "snapshot_id": document.snapshot_id,
        "run_id": run_id,
        "language": row["language"] or "",
        "modified_at": document.modified_at,
        "tags": metadata["tags"],
        "tenant": metadata["tenant"],
        "acl": metadata["acl"],
    }
    for name, column in columns.items():
        column.append(values[name] if name in values else row[name])


def _vectors(bench: Workbench, keys: list[str], dimensions: int) -> pa.FixedSizeListArray:
    """Return the vectors of ``keys`` in their order."""
    distinct = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    matrix = np.full((len(distinct), dimensions), np.nan, dtype=np.float32)
    for table in bench.segments.read("embed", distinct):
        flat = pc.list_flatten(table["vector"].combine_chunks()).to_numpy(zero_copy_only=False)
        at = [distinct[k] for k in table["embedding_key"].to_pylist()]
        matrix[at] = flat.reshape(-1, dimensions)
    ordered = matrix[[distinct[k] for k in keys]] if keys else matrix
    if np.isnan(ordered).any():
        raise DependencyError("object store", f"stored vectors are missing: {CURE}", retryable=False)
    return pa.FixedSizeListArray.from_arrays(pa.array(ordered.reshape(-1)), dimensions)
