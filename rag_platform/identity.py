"""Every id and hash of the platform, computed in one place (DESIGN §3).

Ids are lower-case hex digests of length-prefixed UTF-8 fields, so that no two different inputs
can run together into the same bytes, and never Python's ``hash()``.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_CHUNK_NAMESPACE = uuid.UUID("8d2f7a52-5b0e-5f0a-9d58-3f1c7e0f4b11")


def digest(*parts: str | bytes) -> str:
    """Return the SHA-256 hex digest of the length-prefixed ``parts``."""
    h = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        h.update(len(raw).to_bytes(8, "big"))
        h.update(raw)
    return h.hexdigest()


def canonical_json(value: Any) -> str:
    """Return JSON that is equal for equal values: sorted keys, no white space."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def content_hash(data: bytes) -> str:
    """Return the plain SHA-256 of ``data``: the name under which the bytes are stored."""
    return hashlib.sha256(data).hexdigest()


def text_hash(text: str) -> str:
    """Return the plain SHA-256 of a chunk's UTF-8 text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def document_id(source: str, uri: str) -> str:
    """Identify a document by where it lives; stable across its versions. 32 hex digits."""
    return digest("document", source, uri)[:32]


def metadata_hash(metadata: Mapping[str, Any]) -> str:
    """Hash the stored fields that are not content: title override, tags, ACL, tenant …"""
    return digest("metadata", canonical_json(dict(metadata)))


def fingerprint(component: str, settings: Mapping[str, Any]) -> str:
    """Hash a component's name, settings and code version. 16 hex digits."""
    return digest("fingerprint", component, canonical_json(dict(settings)))[:16]


def pipeline_fingerprint(parts: Sequence[str]) -> str:
    """Hash the fingerprints of parser, chunker and embedder, in that order. 16 hex digits."""
    return digest("pipeline", *parts)[:16]


def version_id(content: str, metadata: str, pipeline: str) -> str:
    """Identify one version of a document: bytes, metadata and the pipeline that read them."""
    return digest("version", content, metadata, pipeline)[:32]


def parse_key(content: str, suffix: str, parser: str) -> str:
    """Identify the parse of these bytes, read as a file with this suffix, by this parser."""
    return digest("parse", content, suffix, parser)[:32]


def chunk_set_key(parse: str, chunker: str) -> str:
    """Identify all chunks made from one parse by one chunker."""
    return digest("chunks", parse, chunker)[:32]


def chunk_id(document: str, version: str, ordinal: int) -> str:
    """Identify one chunk of one version of a document, as a UUID."""
    return str(uuid.uuid5(_CHUNK_NAMESPACE, f"{document}:{version}:{ordinal}"))


def embedding_key(embedder: str, dimensions: int, text: str) -> str:
    """Identify the vector of ``text``: equal for equal text in any document. 32 hex digits."""
    return digest("embedding", embedder, str(dimensions), text)[:32]


def bucket(document: str, hex_digits: int) -> str:
    """Return the partition key of a document: the first digits of SHA-256 of its id."""
    return hashlib.sha256(document.encode()).hexdigest()[:hex_digits]


def buckets(hex_digits: int) -> list[str]:
    """Return all partition keys in order."""
    return [format(i, f"0{hex_digits}x") for i in range(16**hex_digits)]


def manifest_hash(rows: Iterable[tuple[str, str, str]]) -> str:
    """Hash a bucket's (document_id, content_hash, metadata_hash) rows, in any order."""
    return digest("manifest", *("\x1f".join(row) for row in sorted(rows)))
