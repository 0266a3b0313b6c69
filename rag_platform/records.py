"""The shapes that travel between stages, and the Parquet schemas they are stored in.

Plain frozen dataclasses: no behaviour beyond what the shape itself implies. ``SCHEMAS`` is the one
place where a stored column is declared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa

Stage = Literal["snapshot", "parse", "chunk", "embed", "index"]
STAGES: tuple[Stage, ...] = ("snapshot", "parse", "chunk", "embed", "index")

SearchMode = Literal["hybrid", "vector", "keyword"]

PUBLIC_GROUP = "public"
"""Every principal of a tenant belongs to this group."""

DEFAULT_TENANT = "default"
"""The tenant of sources and keys that name none."""


# ── sources ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One configured source. ``acl`` lists the groups that may read its documents."""

    name: str
    uri: str
    include: tuple[str, ...] = ("**/*",)
    exclude: tuple[str, ...] = ()
    tenant: str = DEFAULT_TENANT
    acl: tuple[str, ...] = (PUBLIC_GROUP,)
    tags: tuple[str, ...] = ()
    schedule: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One document of a listing. ``uri`` is relative to the source; ``change_token`` moves whenever
    the bytes may have moved (etag, or size and modification time)."""

    uri: str
    size: int
    change_token: str
    modified_at: float | None = None
    """Seconds since the epoch, UTC."""
    title: str | None = None
    tags: tuple[str, ...] | None = None
    acl: tuple[str, ...] | None = None
    tenant: str | None = None
    """Overrides of the source's own tags, ACL and tenant; ``None`` inherits."""


# ── parsing and chunking ───────────────────────────────────────────────────────────────────────

ElementKind = Literal["title", "heading", "text", "list_item", "table", "code", "other"]


@dataclass(frozen=True, slots=True)
class Element:
    """A stretch ``text[start:end]`` of a parsed document. ``page`` counts from 1; ``level`` is the
    heading level (1 is the outermost), 0 for anything that is not a heading."""

    kind: ElementKind
    start: int
    end: int
    page: int | None = None
    level: int = 0


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """Normalised text (NFC, no NUL, no lone surrogate, ``\\n`` newlines) with element spans that are
    sorted, do not overlap and lie inside the text."""

    text: str
    elements: tuple[Element, ...]
    mime_type: str
    title: str | None = None
    language: str | None = None
    page_count: int | None = None
    ocr_pages: tuple[int, ...] = ()
    parser: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChunkSpan:
    """One chunk: ``document.text[start:end]`` is its text, to the character."""

    ordinal: int
    start: int
    end: int
    token_count: int
    page: int | None = None
    heading_path: tuple[str, ...] = ()


# ── retrieval ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. A document is readable when its tenant is the principal's and its ACL shares a
    group with ``groups`` ∪ {``public``}. ``operator`` reads everything: only the command line on
    the machine that owns RAG_HOME is one."""

    tenant: str
    groups: frozenset[str] = frozenset()
    operator: bool = False

    @property
    def effective_groups(self) -> frozenset[str]:
        return self.groups | {PUBLIC_GROUP}


LOCAL_OPERATOR = Principal(tenant="", operator=True)


@dataclass(frozen=True, slots=True)
class Hit:
    """One retrieved chunk. ``score`` is comparable only within one result list."""

    chunk_id: str
    document_id: str
    source: str
    uri: str
    title: str
    version_id: str
    content_hash: str
    snapshot_id: str
    run_id: str
    ordinal: int
    start: int
    end: int
    page: int | None
    heading_path: str
    mime_type: str
    language: str
    modified_at: float | None
    tags: tuple[str, ...]
    tenant: str
    acl: tuple[str, ...]
    text: str
    score: float

    def with_score(self, score: float) -> Hit:
        return dataclasses.replace(self, score=score)


@dataclass(frozen=True, slots=True)
class EmbeddingBatch:
    """Vectors of a batch in the order of its texts.

    Attributes:
        vectors: float32, shape (texts, dimensions), L2-normalised.
        tokens: tokens that the embedder counted (and billed, where it bills).
    """

    vectors: np.ndarray[Any, np.dtype[np.float32]]
    tokens: int


# ── stored columns ─────────────────────────────────────────────────────────────────────────────

_ELEMENT = pa.struct(
    [
        pa.field("kind", pa.string()),
        pa.field("start", pa.int32()),
        pa.field("end", pa.int32()),
        pa.field("page", pa.int32()),
        pa.field("level", pa.int8()),
    ]
)

PARSED_SCHEMA = pa.schema(
    [
        pa.field("parse_key", pa.string(), nullable=False),
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("elements", pa.list_(_ELEMENT), nullable=False),
        pa.field("mime_type", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("language", pa.string()),
        pa.field("page_count", pa.int32()),
        pa.field("ocr_pages", pa.list_(pa.int32()), nullable=False),
        pa.field("parser", pa.string(), nullable=False),
        pa.field("warnings", pa.list_(pa.string()), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
    ]
)

CHUNK_SCHEMA = pa.schema(
    [
        pa.field("chunk_set_key", pa.string(), nullable=False),
        pa.field("ordinal", pa.int32(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
        pa.field("page", pa.int32()),
        pa.field("heading_path", pa.string(), nullable=False),
        pa.field("token_count", pa.int32(), nullable=False),
        pa.field("embedding_key", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("mime_type", pa.string(), nullable=False),
        pa.field("language", pa.string()),
        pa.field("text", pa.large_string(), nullable=False),
    ]
)


def embedding_schema(dimensions: int) -> pa.Schema:
    """Columns of an embeddings segment: the key and the float32 vector of ``dimensions``."""
    return pa.schema(
        [
            pa.field("embedding_key", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False),
        ]
    )


def index_schema(dimensions: int) -> pa.Schema:
    """Columns of the vector index: one row a chunk, with all that a citation needs. 0 dimensions: an index of
    words alone, without the column of vectors."""
    vector = [pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False)] if dimensions else []
    return pa.schema(
        [
            pa.field("chunk_id", pa.string(), nullable=False),
            pa.field("document_id", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("uri", pa.string(), nullable=False),
            pa.field("title", pa.string(), nullable=False),
            pa.field("version_id", pa.string(), nullable=False),
            pa.field("content_hash", pa.string(), nullable=False),
            pa.field("snapshot_id", pa.string(), nullable=False),
            pa.field("run_id", pa.string(), nullable=False),
            pa.field("ordinal", pa.int32(), nullable=False),
            pa.field("start", pa.int32(), nullable=False),
            pa.field("end", pa.int32(), nullable=False),
            pa.field("page", pa.int32()),
            pa.field("heading_path", pa.string(), nullable=False),
            pa.field("mime_type", pa.string(), nullable=False),
            pa.field("language", pa.string(), nullable=False),
            pa.field("modified_at", pa.float64()),
            pa.field("tags", pa.list_(pa.string()), nullable=False),
            pa.field("tenant", pa.string(), nullable=False),
            pa.field("acl", pa.list_(pa.string()), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            *vector,
        ]
    )


HIT_COLUMNS: Sequence[str] = tuple(f.name for f in dataclasses.fields(Hit) if f.name != "score")
