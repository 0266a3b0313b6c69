"""How an index is laid out: a collection of points with two vectors each, and one for the manifest."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from rag_platform.backends.vector_stores.qdrant_points.words import passage_weights
from rag_platform.records import HIT_COLUMNS, Hit

DENSE, SPARSE = "vector", "words"
_MANIFEST = "--manifest"
_IDS = uuid.UUID("5d3b7f0c-4c55-5a0e-9a3e-0c1c2f7b6a11")

KEYWORD_FIELDS = (
    *("write_id", "document_id", "chunk_id", "tenant", "acl", "tags"),
    *("source", "uri", "title", "mime_type", "language", "heading_path"),
)
PREFIX_FIELDS = frozenset({"source", "uri", "title", "mime_type", "heading_path"})
NUMBER_FIELDS = ("page", "modified_at")


def manifest_of(index: str) -> str:
    """Name of the collection of manifest entries."""
    return index + _MANIFEST


def is_manifest(collection: str) -> bool:
    return collection.endswith(_MANIFEST)


def point_id(*parts: str) -> str:
    """Points are numbered by UUIDs."""
    return str(uuid.uuid5(_IDS, "/".join(parts)))


def point(row: Mapping[str, Any], write_id: str, average_words: float) -> Any:
    """A row as a point: its columns but the vector and missing values, ``write_id``, vector and words."""
    from qdrant_client import models

    payload = {c: row[c] for c in HIT_COLUMNS if row[c] is not None}
    vectors: dict[str, Any] = {DENSE: list(row["vector"])}
    weights = passage_weights(row["title"], row["heading_path"], row["text"], average_words)
    if weights:
        vectors[SPARSE] = models.SparseVector(indices=list(weights), values=list(weights.values()))
    return models.PointStruct(
        id=point_id(write_id, row["chunk_id"]), vector=vectors, payload=payload | {"write_id": write_id}
    )


def hit_of(payload: Mapping[str, Any], score: float) -> Hit:
    """Make a hit of a point's payload."""
    values: dict[str, Any] = {c: tuple(payload[c]) if c in ("tags", "acl") else payload.get(c) for c in HIT_COLUMNS}
    return Hit(**values, score=score)


def payload_indexes() -> dict[str, Any]:
    """What Qdrant shall index of a payload: all that is filtered on."""
    from qdrant_client import models

    found: dict[str, Any] = {
        name: models.KeywordIndexParams(
            type=models.KeywordIndexType.KEYWORD,
            is_tenant=True if name == "tenant" else None,
            prefix=True if name in PREFIX_FIELDS else None,
        )
        for name in KEYWORD_FIELDS
    }
    # Float also for page numbers: the bounds of a filter may be fractions, or larger than an integer of Qdrant's.
    return found | dict.fromkeys(NUMBER_FIELDS, models.FloatIndexParams(type=models.FloatIndexType.FLOAT))
