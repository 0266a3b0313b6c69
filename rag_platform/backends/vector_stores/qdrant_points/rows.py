"""Qdrant's part of ``two_phase``: rows and manifest entries as points."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rag_platform.backends.vector_stores.base import Leg, SearchRequest
from rag_platform.backends.vector_stores.deadlines import Deadline, within
from rag_platform.backends.vector_stores.qdrant_points.clients import NAME, Clients, errors
from rag_platform.backends.vector_stores.qdrant_points.collections import (
    DENSE,
    SPARSE,
    hit_of,
    is_manifest,
    manifest_of,
    payload_indexes,
    point,
    point_id,
)
from rag_platform.backends.vector_stores.qdrant_points.filters import any_of, visible
from rag_platform.backends.vector_stores.qdrant_points.words import question_weights
from rag_platform.backends.vector_stores.two_phase import Found, Published
from rag_platform.records import Principal

if TYPE_CHECKING:
    from rag_platform.backends.vector_stores.qdrant import Settings

T = TypeVar("T")
_INDEX_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")
_WRITTEN = 200
"""Points in one request: at 3,072 dimensions some 10 MB, of 32 that Qdrant takes."""
_PAGE = 1000


class QdrantRows:
    """See ``two_phase.Rows``. Calls that write try again within their deadline, those that a question waits for
    do not."""

    name = NAME

    def __init__(self, own: Settings) -> None:
        self._own = own
        self._clients = Clients(
            own.url,
            own.api_key,
            prefer_grpc=own.prefer_grpc,
            grpc_port=own.grpc_port,
            timeout_s=max(own.timeout_s, own.write_timeout_s),
        )

    # ── indexes ──

    async def create(self, index: str, dimensions: int) -> None:
        if not _INDEX_NAME.match(index) or is_manifest(index):
            raise ValueError(f"an index name is letters, digits, '_', '.' and '-', not {index!r}")
        # The rows come last: they are what says that the index exists.
        await self._write(manifest_of(index), lambda c: self._create(c, manifest_of(index), {}, {}))
        await self._write(index, lambda c: self._create(c, index, *self._vectors(dimensions)))
        if not self._clients.local:  # it has no indices, and warns when asked for one
            await self._write(index, lambda c: self._index_payload(c, index))

    async def _create(self, client: Any, name: str, dense: Mapping[str, Any], sparse: Mapping[str, Any]) -> None:
        if await client.collection_exists(name):
            return
        own = self._own
        try:
            await client.create_collection(
                name,
                vectors_config=dense,
                sparse_vectors_config=sparse,
                shard_number=own.shards,
                replication_factor=own.replicas,
                write_consistency_factor=own.replicas // 2 + 1,
                on_disk_payload=own.on_disk_payload,
            )
        except Exception:
            if not await client.collection_exists(name):  # else another process was faster
                raise

    @staticmethod
    async def _index_payload(client: Any, index: str) -> None:
        for field, schema in payload_indexes().items():
            await client.create_payload_index(index, field, schema, wait=True)

    def _vectors(self, dimensions: int) -> tuple[dict[str, Any], dict[str, Any]]:
        from qdrant_client import models

        quantized = models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
        )
        dense = models.VectorParams(
            size=dimensions,
            distance=models.Distance.COSINE,
            on_disk=self._own.on_disk,
            quantization_config=quantized if self._own.quantization == "scalar" else None,
        )
        return {DENSE: dense}, {SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)}

    async def dimensions(self, index: str) -> int:
        info = await self._read(index, lambda c: c.get_collection(index))
        return int(info.config.params.vectors[DENSE].size)

    async def names(self) -> list[str]:
        found = await self._read(None, lambda c: c.get_collections())
        return [c.name for c in found.collections if not is_manifest(c.name)]

    async def drop(self, index: str) -> None:
        await self._write(None, lambda c: c.delete_collection(index))
        await self._write(None, lambda c: c.delete_collection(manifest_of(index)))

    async def ping(self) -> None:
        await self.names()

    async def aclose(self) -> None:
        await self._clients.aclose()

    # ── writing ──

    async def put_rows(self, index: str, rows: Sequence[Mapping[str, Any]], write_id: str) -> None:
        for at in range(0, len(rows), _WRITTEN):
            points = [point(r, write_id, self._own.average_words) for r in rows[at : at + _WRITTEN]]
            await self._write(index, partial(_upsert, index=index, points=points))

    async def delete_rows(
        self,
        index: str,
        document_ids: Sequence[str] | None,
        *,
        write_id: str | None = None,
        except_write_id: str | None = None,
    ) -> None:
        from qdrant_client import models

        must = _of(document_ids, None if write_id is None else [write_id])
        must_not = [] if except_write_id is None else [any_of("write_id", [except_write_id])]
        if not must:
            return
        chosen = models.FilterSelector(filter=models.Filter(must=must, must_not=must_not))
        await self._write(index, lambda c: c.delete(index, chosen, wait=True))

    async def publish(self, index: str, entries: Mapping[str, Published]) -> None:
        from qdrant_client import models

        points = [
            models.PointStruct(
                id=point_id(d), vector={}, payload={"document_id": d, "write_id": e.write_id, "chunks": e.chunks}
            )
            for d, e in entries.items()
        ]
        strong = models.WriteOrdering.STRONG
        await self._write(index, lambda c: c.upsert(manifest_of(index), points, wait=True, ordering=strong))

    async def withdraw(self, index: str, document_ids: Sequence[str]) -> None:
        from qdrant_client import models

        if document_ids:
            chosen = models.PointIdsList(points=[point_id(d) for d in document_ids])
            strong = models.WriteOrdering.STRONG
            await self._write(index, lambda c: c.delete(manifest_of(index), chosen, wait=True, ordering=strong))

    # ── counting and reading ──

    async def count_rows(
        self, index: str, document_ids: Sequence[str] | None = None, write_ids: Sequence[str] | None = None
    ) -> int:
        from qdrant_client import models

        where = models.Filter(must=_of(document_ids, write_ids))
        return int((await self._write(index, lambda c: c.count(index, where, exact=True))).count)

    async def read_rows(
        self, index: str, document_ids: Sequence[str], write_ids: Sequence[str], columns: Sequence[str]
    ) -> list[dict[str, Any]]:
        wanted = [c for c in columns if c != "vector"]
        vectors = [DENSE] if "vector" in columns else False
        rows = []
        async for page in self._pages(index, _of(document_ids, write_ids), [*wanted, "write_id"], vectors):
            for p in page:
                row = {c: p.payload.get(c) for c in (*wanted, "write_id")}
                rows.append(row | {"vector": p.vector[DENSE]} if vectors else row)
        return rows

    async def writes(self, index: str) -> set[str]:
        return {p.payload["write_id"] async for page in self._pages(index, [], ["write_id"], False) for p in page}

    async def find(self, index: str, leg: Leg, request: SearchRequest, k: int) -> list[Found]:
        from qdrant_client import models

        query: Any
        if leg == "vector":
            assert request.vector is not None
            query, using = [float(v) for v in request.vector], DENSE
        else:
            weights = question_weights(request.text or "")
            if not weights:
                await self.dimensions(index)
                return []
            query, using = models.SparseVector(indices=list(weights), values=list(weights.values())), SPARSE
        conditions = visible(request.principal, request.where)
        answer = await self._read(
            index,
            lambda c: c.query_points(
                index,
                query=query,
                using=using,
                query_filter=models.Filter(must=conditions) if conditions else None,
                limit=k,
                with_payload=True,
                consistency=self._consistency(),
            ),
        )
        return [Found(hit_of(p.payload, p.score), p.payload["write_id"]) for p in answer.points]

    async def fetch(self, index: str, chunk_ids: Sequence[str], principal: Principal) -> list[Found]:
        conditions = [any_of("chunk_id", list(chunk_ids)), *visible(principal, None)]
        async with self._reading():
            pages = [page async for page in self._pages(index, conditions, True, False)]
        return [Found(hit_of(p.payload, 0.0), p.payload["write_id"]) for page in pages for p in page]

    # ── manifest ──

    async def published(self, index: str, document_ids: Sequence[str]) -> dict[str, Published]:
        ids = [point_id(d) for d in document_ids]
        found = await self._read(
            index,
            lambda c: c.retrieve(manifest_of(index), ids, with_payload=True, consistency=self._consistency()),
        )
        return _entries(found)

    async def manifest(self, index: str) -> AsyncIterator[dict[str, Published]]:
        async for page in self._pages(index, [], True, False, collection=manifest_of(index)):
            yield _entries(page)

    async def _pages(
        self,
        index: str,
        must: list[Any],
        payload: bool | list[str],
        vectors: bool | list[str],
        collection: str | None = None,
    ) -> AsyncIterator[list[Any]]:
        """Points that satisfy all conditions, page by page."""
        from qdrant_client import models

        where = models.Filter(must=must) if must else None
        offset = None
        while True:
            page, offset = await self._write(
                index,
                partial(
                    _scroll,
                    collection_name=collection or index,
                    scroll_filter=where,
                    limit=_PAGE,
                    offset=offset,
                    with_payload=payload,
                    with_vectors=vectors,
                    consistency=self._consistency(),
                ),
            )
            if page:
                yield page
            if offset is None:
                return

    # ── the client ──

    def _consistency(self) -> Any:
        """With copies, ask most of them, as most of them have confirmed every write."""
        from qdrant_client import models

        return models.ReadConsistencyType.MAJORITY if self._own.replicas > 1 else None

    async def _read(self, index: str | None, call: Callable[[Any], Awaitable[T]]) -> T:
        async with self._reading():
            return await self._asked(index, call)

    async def _write(self, index: str | None, call: Callable[[Any], Awaitable[T]]) -> T:
        async with within(self._own.write_timeout_s, NAME) as deadline:
            return await deadline.insist(lambda: self._asked(index, call))

    def _reading(self) -> AbstractAsyncContextManager[Deadline]:
        return within(self._own.timeout_s, NAME)

    async def _asked(self, index: str | None, call: Callable[[Any], Awaitable[T]]) -> T:
        with errors(index):
            return await call(await self._clients.get())


async def _upsert(client: Any, index: str, points: list[Any]) -> None:
    await client.upsert(index, points, wait=True)


async def _scroll(client: Any, **options: Any) -> tuple[list[Any], Any]:
    found: tuple[list[Any], Any] = await client.scroll(**options)
    return found


def _of(document_ids: Sequence[str] | None, write_ids: Sequence[str] | None) -> list[Any]:
    named = {"document_id": document_ids, "write_id": write_ids}
    return [any_of(field, list(values)) for field, values in named.items() if values is not None]


def _entries(points: Sequence[Any]) -> dict[str, Published]:
    return {p.payload["document_id"]: Published(p.payload["write_id"], int(p.payload["chunks"])) for p in points}
