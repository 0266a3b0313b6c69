"""Rows as Pinecone records: an id, a vector, and metadata to filter by and to make a hit of.

The whole row travels compressed in one text, which keeps every type exact (Pinecone has no null, no empty list
that is documented, and only 64-bit floats). Beside it stand the values that can be filtered by.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rag_platform.backends.vector_stores.filters import FIELDS
from rag_platform.backends.vector_stores.pinecone_api.filters import NO_VALUE, prefix_keys, value_key
from rag_platform.errors import ConfigurationError
from rag_platform.records import HIT_COLUMNS, Hit

MAX_METADATA_BYTES = 40_960
MAX_REQUEST_BYTES = 1_900_000
"""Of one upsert; Pinecone refuses more than 2 MB."""
MAX_REQUEST_RECORDS = 1000

_ROW = "row"
FILTERABLE = ("write_id", "chunk_id", "tenant", "acl", "prefixes", *FIELDS)
"""Metadata that Pinecone shall index; not the row itself."""


def record_id(row: Mapping[str, Any], write_id: str) -> str:
    """Begins with the write, because ids can be listed by what they begin with."""
    return f"{write_id}.{row['chunk_id']}"


def write_of(record: str) -> str:
    """The write that a record's id belongs to."""
    return record.partition(".")[0]


def encoded(row: Mapping[str, Any], write_id: str) -> bytes:
    """A record as JSON.

    Raises:
        ConfigurationError: its metadata is larger than Pinecone takes.
    """
    packed = zlib.compress(json.dumps({c: row[c] for c in HIT_COLUMNS}).encode())
    metadata: dict[str, Any] = {
        _ROW: base64.b64encode(packed).decode(),
        "write_id": write_id,
        "chunk_id": row["chunk_id"],
        "tenant": value_key(row["tenant"]),
        "acl": [NO_VALUE, *(value_key(g) for g in row["acl"])],
        "prefixes": [NO_VALUE, *prefix_keys(row)],
    }
    for name, (kind, _) in FIELDS.items():
        value = row[name]
        if isinstance(value, list):
            metadata[name] = [NO_VALUE, *(value_key(v) for v in value)]
        elif value is not None:
            metadata[name] = value_key(value) if kind is str else value
    text = json.dumps(metadata, ensure_ascii=False)
    if len(text.encode()) > MAX_METADATA_BYTES:
        raise ConfigurationError(
            f"a chunk of {len(row['text'])} characters, with its title, tags and groups, does not fit into the 40 KB of"
            " metadata that Pinecone keeps with a vector: set RAG_CHUNK_TOKENS lower"
        )
    # Nine digits carry a float32 exactly.
    values = ",".join(map("{:.9g}".format, row["vector"]))
    return f'{{"id":{json.dumps(record_id(row, write_id))},"values":[{values}],"metadata":{text}}}'.encode()


def row_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of a hit, ``write_id``, and ``vector`` where the answer holds it."""
    metadata = record["metadata"]
    row: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(metadata[_ROW])))
    return row | {"write_id": metadata["write_id"], "vector": record.get("values") or None}


def hit_of(row: Mapping[str, Any], score: float) -> Hit:
    """Make a hit of a row."""
    values: dict[str, Any] = {c: tuple(row[c]) if c in ("tags", "acl") else row[c] for c in HIT_COLUMNS}
    return Hit(**values, score=score)


def requests(records: Iterable[bytes], namespace: str) -> Iterator[bytes]:
    """Bodies of the upserts that take all records within Pinecone's limits."""
    head = f'{{"namespace":{json.dumps(namespace)},"vectors":['.encode()
    batch: list[bytes] = []
    size = 0
    for record in records:
        if batch and (size + len(record) > MAX_REQUEST_BYTES or len(batch) == MAX_REQUEST_RECORDS):
            yield head + b",".join(batch) + b"]}"
            batch, size = [], 0
        batch.append(record)
        size += len(record) + 1
    if batch:
        yield head + b",".join(batch) + b"]}"


def entry_record(document_id: str, write_id: str, chunks: int, dimensions: int) -> bytes:
    """A manifest entry as a record. Its vector says nothing, but Pinecone wants one that is not zero."""
    values: Sequence[float] = [1.0] + [0.0] * (dimensions - 1)
    entry = {"id": document_id, "values": values, "metadata": {"write_id": write_id, "chunks": chunks}}
    return json.dumps(entry).encode()
