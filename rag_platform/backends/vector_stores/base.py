"""What a vector store promises.

The unit of change is a document: ``replace`` exchanges all chunks of some documents for new ones,
and no query ever sees a mixture of the two. The unit of release is an index (a table, a
collection), named by the caller; an alias points at the one that serves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from rag_platform.backends.vector_stores.filters import Filter
from rag_platform.records import Hit, Principal

Leg = Literal["vector", "keyword"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do, as data: callers ask here, never for a vendor's name.

    Attributes:
        atomic_replace: ``replace`` is one commit (otherwise: write, verify, publish, retire).
        keyword: it ranks by BM25.
        exact_count: ``count`` is exact immediately after a write.
        multi_process_read: other processes may search while one writes.
        survives_server_outage: it does not need a server.
    """

    atomic_replace: bool
    keyword: bool
    exact_count: bool
    multi_process_read: bool
    survives_server_outage: bool


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One search. Every leg in ``legs`` answers from the same state of the index.

    ``vector`` (float32, (dimensions,)) is needed by the vector leg, ``text`` by the keyword leg; a leg
    without what it needs, or that the store's capabilities do not name, raises ``ValueError``.
    The store itself adds the tenant and ACL filter of ``principal``; it cannot be left out.
    """

    principal: Principal
    k: int
    legs: tuple[Leg, ...]
    text: str | None = None
    vector: np.ndarray[Any, np.dtype[np.float32]] | None = None
    where: Filter | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Ranked hits of each leg, best first. Scores: cosine similarity for ``vector``, BM25 for
    ``keyword``; larger is better."""

    legs: Mapping[Leg, list[Hit]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IndexStats:
    """Size of an index."""

    rows: int
    bytes: int | None
    details: Mapping[str, Any] = field(default_factory=dict)


class VectorStore(Protocol):
    """Asynchronous; construction does no I/O. Unknown index names raise ``KeyError`` on reading."""

    @property
    def capabilities(self) -> Capabilities: ...

    async def ensure(self, index: str, dimensions: int) -> None:
        """Create the index if it does not exist; a no-op otherwise."""
        ...

    async def replace(self, index: str, rows: pa.Table, *, stale: Collection[str]) -> None:
        """Make ``rows`` (``records.index_schema``) the only chunks of the documents they belong to.

        ``rows`` holds every chunk of each of its documents. ``stale`` names the documents that may
        already have rows, including documents without any new row, which thereby vanish. Documents
        outside ``stale`` must be new. On return the rows are searchable and were counted back; on an
        error nothing is half visible, and calling again is safe.

        Raises:
            DependencyError: the store failed or did not hold the rows afterwards.
        """
        ...

    async def delete(self, index: str, document_ids: Collection[str]) -> None:
        """Remove every chunk of these documents; absent ones are a no-op."""
        ...

    async def search(self, index: str, request: SearchRequest) -> SearchResult: ...

    async def get(self, index: str, chunk_ids: Sequence[str], principal: Principal) -> list[Hit]:
        """Return the chunks that exist and that the principal may read, in the order asked."""
        ...

    def scan(self, index: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Stream the given columns of every row, from one state of the index. For operators."""
        ...

    async def count(self, index: str, document_ids: Collection[str] | None = None) -> int:
        """Count chunks, of these documents or of all."""
        ...

    async def maintain(self, index: str, *, force: bool = False) -> Mapping[str, Any]:
        """Compact, refresh search indices, drop old versions, when enough has changed; report."""
        ...

    def state_token(self, index: str) -> str | None:
        """Return a token that moves with every change of the index and is much cheaper than reading it,
        or None where the store has none (or no such index)."""
        ...

    async def stats(self, index: str) -> IndexStats: ...

    async def indexes(self) -> list[str]: ...

    async def drop(self, index: str) -> None:
        """Delete an index with its rows; absent is a no-op."""
        ...

    async def ping(self) -> None:
        """Raise ``DependencyError`` when the store cannot be used."""
        ...

    async def aclose(self) -> None: ...
