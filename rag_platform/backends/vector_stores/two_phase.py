"""How a store without transactions replaces documents so that no search ever sees a gap or a mixture (P1, P2).

Rows are written under a fresh *write id* and counted back; then the document's *manifest entry*, one small object
that names the write whose rows are visible, is exchanged; then the rows of all other writes are deleted. A document
vanishes entry first, rows afterwards. What a crash leaves behind are rows that no entry names: nothing returns or
counts them, the next ``replace`` of the document deletes them, ``maintain`` those that nobody came back for.

A search cannot see rows and entries at one moment, so it asks for the rows, then for the entries of the documents
that it found, and believes the rows only when every one of these entries was already known *before* it asked: all
rows of a write are there before its entry is, and stay until after another one is. Otherwise it asks again. What is
known is remembered, so that this happens once after a document has changed, not with every search.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from rag_platform.backends.vector_stores.base import Capabilities, IndexStats, Leg, SearchRequest, SearchResult
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.records import Hit, Principal, index_schema

MAX_IDS = 500
"""Documents that one request to a store names."""
MAX_TRIES = 20
ABANDONED_S = 3600.0
"""Age from which rows that no entry names belong to a write that died: no write takes that long."""
_MAX_KNOWN = 200_000


@dataclass(frozen=True, slots=True)
class Published:
    """A manifest entry: which write of a document is visible, and how many rows that has."""

    write_id: str
    chunks: int


@dataclass(frozen=True, slots=True)
class Found:
    """A row, and the write that it belongs to."""

    hit: Hit
    write_id: str


class Rows(Protocol):
    """What a vendor implements. Asynchronous; every call ends within the vendor's deadline.

    Each raises ``KeyError`` for an index that does not exist and ``DependencyError`` when the store fails. What has
    been written is seen by every call that begins after the write has returned.
    """

    name: str

    async def create(self, index: str, dimensions: int) -> None:
        """Create an index with room for rows and manifest; a no-op when it exists."""
        ...

    async def dimensions(self, index: str) -> int: ...

    async def names(self) -> list[str]: ...

    async def drop(self, index: str) -> None:
        """Delete rows and manifest; absent is a no-op."""
        ...

    async def ping(self) -> None: ...

    async def aclose(self) -> None: ...

    async def put_rows(self, index: str, rows: Sequence[Mapping[str, Any]], write_id: str) -> None:
        """Store rows (the columns of ``index_schema``), each a new object: other writes of a chunk id stay."""
        ...

    async def count_rows(
        self, index: str, document_ids: Sequence[str] | None = None, write_ids: Sequence[str] | None = None
    ) -> int:
        """Count rows that satisfy all that is given; at most ``MAX_IDS`` of each."""
        ...

    async def delete_rows(
        self,
        index: str,
        document_ids: Sequence[str] | None,
        *,
        write_id: str | None = None,
        except_write_id: str | None = None,
    ) -> None:
        """Delete rows of at most ``MAX_IDS`` documents (None: any): of one write, of every other one, or all."""
        ...

    async def read_rows(
        self, index: str, document_ids: Sequence[str], write_ids: Sequence[str], columns: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Return every row of these documents and writes: the given columns, and always ``write_id``."""
        ...

    async def writes(self, index: str) -> set[str]:
        """Return the ids of all writes that rows belong to."""
        ...

    async def find(self, index: str, leg: Leg, request: SearchRequest, k: int) -> list[Found]:
        """Return the ``k`` best rows of any write that the principal may read and that satisfy ``where``."""
        ...

    async def fetch(self, index: str, chunk_ids: Sequence[str], principal: Principal) -> list[Found]:
        """Return the rows of any write with these chunk ids that the principal may read, in any order."""
        ...

    async def publish(self, index: str, entries: Mapping[str, Published]) -> None:
        """Exchange manifest entries, each atomically."""
        ...

    async def withdraw(self, index: str, document_ids: Sequence[str]) -> None:
        """Delete manifest entries; absent ones are a no-op."""
        ...

    async def published(self, index: str, document_ids: Sequence[str]) -> dict[str, Published]:
        """Return the entries that exist of at most ``MAX_IDS`` documents."""
        ...

    def manifest(self, index: str) -> AsyncIterator[dict[str, Published]]:
        """Yield all entries, page by page."""
        ...


class TwoPhaseStore:
    """See ``base.VectorStore``. The protocol of this module over a vendor's ``Rows``.

    Args:
        keyword: whether the store has a keyword leg.
    """

    def __init__(self, rows: Rows, *, keyword: bool) -> None:
        self.rows = rows
        self.capabilities = Capabilities(
            atomic_replace=False,
            keyword=keyword,
            exact_count=True,
            multi_process_read=True,
            survives_server_outage=False,
        )
        self._known: dict[str, dict[str, tuple[Published | None, int]]] = defaultdict(dict)
        self._clock = itertools.count()

    # ── writing ──

    async def ensure(self, index: str, dimensions: int) -> None:
        await self.rows.create(index, dimensions)
        found = await self.rows.dimensions(index)
        if found != dimensions:
            raise ConfigurationError(f"index {index!r} holds vectors of {found} dimensions, not {dimensions}")

    async def replace(self, index: str, rows: pa.Table, *, stale: Collection[str]) -> None:
        schema = index_schema(await self.rows.dimensions(index))
        rows = rows.select(schema.names).cast(schema)
        if pc.count_distinct(rows["chunk_id"]).as_py() != rows.num_rows:
            raise ValueError("the rows hold a chunk_id twice")
        chunks = {r["values"]: r["counts"] for r in pc.value_counts(rows["document_id"]).to_pylist()}
        write_id = _new_write_id()
        if rows.num_rows:
            for batch in rows.to_batches(max_chunksize=1000):
                await self.rows.put_rows(index, batch.to_pylist(), write_id)
            held = await self.rows.count_rows(index, write_ids=[write_id])
            if held != rows.num_rows:
                raise DependencyError(
                    self.rows.name, f"index {index!r} holds {held} rows after a write of {rows.num_rows}"
                )
        old = set(stale)
        for part in slices(set(chunks) - old):  # a caller that repeats a call whose outcome it never learnt
            old |= set(await self.rows.published(index, part))
        for part in slices(chunks):
            await self.rows.publish(index, {d: Published(write_id, chunks[d]) for d in part})
        for part in slices(old - set(chunks)):
            await self.rows.withdraw(index, part)
        for part in slices(old):
            await self.rows.delete_rows(index, part, except_write_id=write_id)

    async def delete(self, index: str, document_ids: Collection[str]) -> None:
        for part in slices(set(document_ids)):
            await self.rows.withdraw(index, part)
            await self.rows.delete_rows(index, part)

    # ── reading ──

    async def search(self, index: str, request: SearchRequest) -> SearchResult:
        _check(request, self.capabilities)
        more = 0
        for _ in range(MAX_TRIES):
            began = next(self._clock)
            found = await _side_by_side(
                *(self.rows.find(index, leg, request, request.k + more) for leg in request.legs)
            )
            documents = {f.hit.document_id for leg in found for f in leg}
            entries = await self._entries(index, documents)
            legs: dict[Leg, list[Hit]] = {}
            short = 0
            for leg, hits in zip(request.legs, found, strict=True):
                kept = [f.hit for f in hits if _visible(f, entries)]
                if len(kept) < request.k and len(hits) >= request.k + more:
                    short = max(short, len(hits) - len(kept))
                legs[leg] = sorted(kept, key=lambda h: (-h.score, h.chunk_id))[: request.k]
            if not short and self._known_since(index, entries, began):
                return SearchResult(legs)
            more += 2 * short
        raise DependencyError(self.rows.name, f"index {index!r} changes faster than it can be searched")

    def _known_since(self, index: str, entries: Mapping[str, Published | None], began: int) -> bool:
        """Whether each of these entries had been read before ``began``."""
        known = self._known[index]
        return all(d in known and known[d][0] == e and known[d][1] < began for d, e in entries.items())

    async def _entries(self, index: str, documents: Collection[str]) -> dict[str, Published | None]:
        """Return the entry of each document (None: it has none), and remember since when it is known."""
        entries: dict[str, Published | None] = dict.fromkeys(documents)
        for part in slices(documents):
            entries.update(await self.rows.published(index, part))
        known = self._known[index]
        if len(known) + len(entries) > _MAX_KNOWN:
            known.clear()
        now = next(self._clock)
        for document_id, entry in entries.items():
            if document_id not in known or known[document_id][0] != entry:
                known[document_id] = entry, now
        return entries

    async def get(self, index: str, chunk_ids: Sequence[str], principal: Principal) -> list[Hit]:
        found: list[Found] = []
        if not chunk_ids:
            await self.rows.dimensions(index)
        for part in slices(dict.fromkeys(chunk_ids)):
            found += await self.rows.fetch(index, part, principal)
        entries = await self._entries(index, {f.hit.document_id for f in found})
        visible = {f.hit.chunk_id: f.hit for f in found if _visible(f, entries)}
        return [visible[c] for c in chunk_ids if c in visible]

    def scan(self, index: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """As ``base.VectorStore.scan``; one state of each document, not of the whole index."""
        loop = asyncio.new_event_loop()
        try:
            batches = self._scan(index, columns)
            while (batch := loop.run_until_complete(anext(batches, None))) is not None:
                yield batch
        finally:
            with contextlib.suppress(Exception):
                loop.run_until_complete(self.rows.aclose())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _scan(self, index: str, columns: Sequence[str]) -> AsyncIterator[pa.RecordBatch]:
        full = index_schema(await self.rows.dimensions(index))
        schema = pa.schema([full.field(c) for c in columns])
        needed = list(dict.fromkeys([*columns, "document_id"]))
        async for page in self.rows.manifest(index):
            for part in slices(page):
                rows = await self._read(index, {d: page[d] for d in part}, needed)
                if rows:
                    table = pa.Table.from_pylist([{c: r[c] for c in columns} for r in rows], schema=schema)
                    for batch in table.to_batches():
                        yield batch

    async def _read(self, index: str, wanted: dict[str, Published], columns: list[str]) -> list[dict[str, Any]]:
        """Read documents whole; one that changes meanwhile is read again, one that vanishes is left out."""
        rows: list[dict[str, Any]] = []
        for _ in range(MAX_TRIES):
            writes = sorted({p.write_id for p in wanted.values()})
            by_document: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for row in await self.rows.read_rows(index, list(wanted), writes, columns):
                if row["write_id"] == wanted[row["document_id"]].write_id:
                    by_document[row["document_id"]].append(row)
            torn = [d for d, entry in wanted.items() if len(by_document[d]) != entry.chunks]
            rows += [row for d in wanted if d not in torn for row in by_document[d]]
            if not torn:
                return rows
            again = await self.rows.published(index, torn)
            if again == {d: wanted[d] for d in torn}:  # not replaced: rows are lost, and are shown as they are
                return rows + [row for d in torn for row in by_document[d]]
            wanted = again
        raise DependencyError(self.rows.name, f"index {index!r} changes faster than it can be read")

    async def count(self, index: str, document_ids: Collection[str] | None = None) -> int:
        if document_ids is None:
            entries: dict[str, Published] = {}
            held = await self.rows.count_rows(index)
            async for page in self.rows.manifest(index):
                entries |= page
            return held if held == sum(p.chunks for p in entries.values()) else await self._count(index, entries)
        await self.rows.dimensions(index)
        total = 0
        for part in slices(set(document_ids)):
            entries = await self.rows.published(index, part)
            held = await self.rows.count_rows(index, document_ids=part)
            agreed = held == sum(p.chunks for p in entries.values())
            total += held if agreed else await self._count(index, entries)
        return total

    async def _count(self, index: str, entries: Mapping[str, Published]) -> int:
        """Count the rows of these documents and writes alone: there are others beside them."""
        by_write: dict[str, list[str]] = defaultdict(list)
        for document_id, entry in entries.items():
            by_write[entry.write_id].append(document_id)
        total = 0
        for write_id, documents in by_write.items():
            for part in slices(documents):
                total += await self.rows.count_rows(index, document_ids=part, write_ids=[write_id])
        return total

    # ── keeping ──

    async def maintain(self, index: str, *, force: bool = False) -> Mapping[str, Any]:
        """Delete the rows of writes that died: those whose write is old and that no entry names."""
        named: set[str] = set()
        chunks = 0
        async for page in self.rows.manifest(index):
            named |= {p.write_id for p in page.values()}
            chunks += sum(p.chunks for p in page.values())
        held = await self.rows.count_rows(index)
        abandoned: list[str] = []
        if force or held != chunks:
            now = time.time()
            present = await self.rows.writes(index)
            abandoned = sorted(w for w in present - named if now - _written_at(w) > ABANDONED_S)
            for write_id in abandoned:
                await self.rows.delete_rows(index, None, write_id=write_id)
        return {"rows": chunks, "abandoned_writes": len(abandoned)}

    def state_token(self, index: str) -> str | None:
        return None

    async def stats(self, index: str) -> IndexStats:
        return IndexStats(rows=await self.count(index), bytes=None)

    async def indexes(self) -> list[str]:
        return sorted(await self.rows.names())

    async def drop(self, index: str) -> None:
        self._known.pop(index, None)
        await self.rows.drop(index)

    async def ping(self) -> None:
        await self.rows.ping()

    async def aclose(self) -> None:
        await self.rows.aclose()


def slices(ids: Iterable[str], size: int = MAX_IDS) -> Iterator[list[str]]:
    """Cut ids into lists of at most ``size``."""
    remaining = iter(ids)
    while part := list(itertools.islice(remaining, size)):
        yield part


_side_by_side = asyncio.gather


def _visible(found: Found, entries: Mapping[str, Published | None]) -> bool:
    entry = entries.get(found.hit.document_id)
    return entry is not None and entry.write_id == found.write_id


def _check(request: SearchRequest, capabilities: Capabilities) -> None:
    if "keyword" in request.legs and not capabilities.keyword:
        raise ValueError("this store has no keyword leg: see its capabilities")
    if "vector" in request.legs and request.vector is None:
        raise ValueError("the vector leg needs a vector")
    if "keyword" in request.legs and request.text is None:
        raise ValueError("the keyword leg needs a text")


def _new_write_id() -> str:
    """Begins with the time in seconds, which ``maintain`` reads."""
    return f"{int(time.time()):010x}{uuid.uuid4().hex[:22]}"


def _written_at(write_id: str) -> float:
    return float(int(write_id[:10], 16))
