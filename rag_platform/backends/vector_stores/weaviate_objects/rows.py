"""Rows and manifest entries as Weaviate objects: what ``two_phase`` needs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from rag_platform.backends.vector_stores import stems
from rag_platform.backends.vector_stores.base import Leg, SearchRequest
from rag_platform.backends.vector_stores.two_phase import Found, Published
from rag_platform.backends.vector_stores.weaviate_objects import properties as p
from rag_platform.backends.vector_stores.weaviate_objects.connection import NAME, Connection
from rag_platform.backends.vector_stores.weaviate_objects.filters import plain, visible
from rag_platform.errors import DependencyError
from rag_platform.records import HIT_COLUMNS, Principal

T = TypeVar("T")
PAGE = 1000
MOST = 10_000
"""Objects that one request may return or delete (Weaviate's QUERY_MAXIMUM_RESULTS)."""
MAX_QUESTION_WORDS = 256
_DIMENSIONS = "dimensions="


class WeaviateRows:
    """See ``two_phase.Rows``.

    Args:
        replicas: copies of each object; None: as the server is set.
        consistency: ONE, QUORUM or ALL, of every read and write.
        vector_index: ``flat`` or ``hnsw``; of new indexes.
        ef: how many candidates a search of the HNSW graph looks at; -1: as the server chooses.
    """

    name = NAME

    def __init__(
        self, connection: Connection, *, replicas: int | None, consistency: str, vector_index: str, ef: int
    ) -> None:
        self._connection = connection
        self._replicas, self._consistency = replicas, consistency
        self._vector_index, self._ef = vector_index, ef
        self._dimensions: dict[str, int] = {}

    # ── indexes ──

    async def create(self, index: str, dimensions: int) -> None:
        from weaviate.classes.config import Configure, StopwordsPreset, VectorDistances

        shared: dict[str, Any] = {
            "inverted_index_config": Configure.inverted_index(
                index_null_state=True, stopwords_preset=StopwordsPreset.NONE
            )
        }
        if self._replicas is not None:
            shared["replication_config"] = Configure.replication(factor=self._replicas)

        vectors: Any
        if self._vector_index == "flat":
            vectors = Configure.VectorIndex.flat(distance_metric=VectorDistances.COSINE)
        else:
            vectors = Configure.VectorIndex.hnsw(distance_metric=VectorDistances.COSINE, ef=self._ef)

        async def work(client: Any) -> None:
            if await client.collections.exists(p.collection(p.ROWS, index)):
                return
            if not await client.collections.exists(p.collection(p.MANIFEST, index)):
                await client.collections.create(
                    p.collection(p.MANIFEST, index),
                    properties=p.manifest_schema(),
                    vector_config=Configure.Vectors.self_provided(vector_index_config=Configure.VectorIndex.none()),
                    **shared,
                )
            # Last, because it is what an index is recognised by.
            await client.collections.create(
                p.collection(p.ROWS, index),
                description=f"chunks of rag-platform, {_DIMENSIONS}{dimensions}",
                properties=p.row_schema(),
                vector_config=Configure.Vectors.self_provided(vector_index_config=vectors),
                **shared,
            )

        try:
            await self._connection.call(work)
        except DependencyError:
            # Another process may have created it at the same moment, which reads as a failure.
            if index not in await self.names():
                raise

    async def dimensions(self, index: str) -> int:
        if index not in self._dimensions:

            async def work(client: Any) -> str:
                name = p.collection(p.ROWS, index)
                if not await client.collections.exists(name):
                    raise KeyError(index)
                config = await client.collections.use(name).config.get(simple=True)
                return config.description or ""

            description = await self._connection.call(work, index)
            _, found, number = description.rpartition(_DIMENSIONS)
            if not found or not number.isdigit():
                raise DependencyError(NAME, f"the collection of index {index!r} was not made by this platform")
            self._dimensions[index] = int(number)
        return self._dimensions[index]

    async def names(self) -> list[str]:
        found = await self._connection.call(lambda client: client.collections.list_all(simple=True))
        return [index for name in found if (index := p.index_of(name)) is not None]

    async def drop(self, index: str) -> None:
        self._dimensions.pop(index, None)

        async def work(client: Any) -> None:
            for prefix in (p.ROWS, p.MANIFEST):
                await client.collections.delete(p.collection(prefix, index))

        await self._connection.call(work)

    async def ping(self) -> None:
        async def work(client: Any) -> None:
            if not await client.is_ready():
                raise DependencyError(NAME, "is not ready")

        await self._connection.call(work)

    async def aclose(self) -> None:
        await self._connection.aclose()

    # ── rows ──

    async def put_rows(self, index: str, rows: Sequence[Mapping[str, Any]], write_id: str) -> None:
        from weaviate.classes.data import DataObject

        objects = [
            DataObject(p.of_row(row, write_id), p.object_id(row["chunk_id"], write_id), vector=list(row["vector"]))
            for row in rows
        ]
        await self._insert(index, p.ROWS, objects)
        await self._persist(index, [str(o.uuid) for o in objects])

    async def _persist(self, index: str, object_ids: Sequence[str]) -> None:
        """Have the server write out what it holds of these rows: they survive a kill -9 afterwards.

        It answers an import once the workers have put the vectors into memory, but writes its logs before they are
        done (``objectsBatcher`` in its shard_write_batch_objects.go), so the last vectors wait there for the next
        write of the shard. A deletion that is only tried writes the logs of every shard that holds one of the rows.
        """
        from weaviate.classes.query import Filter as F

        chosen = F.by_id().contains_any(object_ids)
        found = await self._rows(index, lambda c: c.data.delete_many(where=chosen, dry_run=True))
        if found.failed or found.matches != len(object_ids):
            raise DependencyError(NAME, f"holds {found.matches} of {len(object_ids)} objects after their import")

    async def count_rows(
        self, index: str, document_ids: Sequence[str] | None = None, write_ids: Sequence[str] | None = None
    ) -> int:
        chosen = _chosen(document_ids, write_ids)
        found = await self._rows(index, lambda c: c.aggregate.over_all(filters=chosen, total_count=True))
        return int(found.total_count or 0)

    async def delete_rows(
        self,
        index: str,
        document_ids: Sequence[str] | None,
        *,
        write_id: str | None = None,
        except_write_id: str | None = None,
    ) -> None:
        from weaviate.classes.query import Filter as F

        parts = [] if document_ids is None else [_documents(document_ids)]
        if write_id is not None:
            parts.append(F.by_property("write_id").equal(write_id))
        if except_write_id is not None:
            parts.append(F.by_property("write_id").not_equal(except_write_id))
        await self._delete(index, p.ROWS, F.all_of(parts) if len(parts) > 1 else parts[0])

    async def read_rows(
        self, index: str, document_ids: Sequence[str], write_ids: Sequence[str], columns: Sequence[str]
    ) -> list[dict[str, Any]]:
        total = await self.count_rows(index, document_ids, write_ids)
        if total <= PAGE:
            return await self._read(index, _chosen(document_ids, write_ids), columns)
        if len(document_ids) > 1:  # pages of a filtered result cannot go deep: ask for less instead
            middle = len(document_ids) // 2
            halves = document_ids[:middle], document_ids[middle:]
            return [row for half in halves for row in await self.read_rows(index, half, write_ids, columns)]
        from weaviate.classes.query import Filter as F

        rows: list[dict[str, Any]] = []
        ordinal = F.by_property("ordinal")
        for start in range(0, MOST * PAGE, PAGE):
            part = [ordinal.greater_or_equal(start), ordinal.less_than(start + PAGE)]
            chosen = F.all_of([_chosen(document_ids, write_ids), *part])
            page = await self._read(index, chosen, columns)
            rows += page
            if len(rows) >= total or not page:
                break
        return rows

    async def _read(self, index: str, chosen: Any, columns: Sequence[str]) -> list[dict[str, Any]]:
        vector = "vector" in columns
        found = await self._rows(
            index,
            lambda c: c.query.fetch_objects(
                filters=chosen, limit=MOST, include_vector=vector, return_properties=[*HIT_COLUMNS, "write_id"]
            ),
        )
        rows = []
        for item in found.objects:
            row = p.row_of(item.properties)
            if vector:
                row["vector"] = item.vector["default"]
            rows.append(row)
        return rows

    async def writes(self, index: str) -> set[str]:
        from weaviate.classes.aggregate import GroupByAggregate

        by_write = GroupByAggregate(prop="write_id", limit=MOST)
        found = await self._rows(index, lambda c: c.aggregate.over_all(group_by=by_write, total_count=True))
        return {str(group.grouped_by.value) for group in found.groups}

    # ── searching ──

    async def find(self, index: str, leg: Leg, request: SearchRequest, k: int) -> list[Found]:
        from weaviate.classes.query import MetadataQuery

        chosen = visible(request.principal, request.where)
        returned = [*HIT_COLUMNS, "write_id"]
        limit = min(k, MOST)
        if leg == "vector":
            assert request.vector is not None
            near = [float(x) for x in request.vector]
            found = await self._rows(
                index,
                lambda c: c.query.near_vector(
                    near,
                    limit=limit,
                    filters=chosen,
                    return_metadata=MetadataQuery(distance=True),
                    return_properties=returned,
                ),
            )
            return [_found(o, 1.0 - o.metadata.distance) for o in found.objects]
        words = stems.of_question(request.text or "")[:MAX_QUESTION_WORDS]
        if not words:
            await self.dimensions(index)  # an index that is not there is to be said all the same
            return []
        found = await self._rows(
            index,
            lambda c: c.query.bm25(
                query=" ".join(words),
                query_properties=[p.WORDS],
                limit=limit,
                filters=chosen,
                return_metadata=MetadataQuery(score=True),
                return_properties=returned,
            ),
        )
        return [_found(o, o.metadata.score) for o in found.objects]

    async def fetch(self, index: str, chunk_ids: Sequence[str], principal: Principal) -> list[Found]:
        from weaviate.classes.query import Filter as F

        chosen = plain("chunk_id", list(chunk_ids))
        who = visible(principal, None)
        if who is not None:
            chosen = F.all_of([chosen, who])
        found = await self._rows(
            index,
            lambda c: c.query.fetch_objects(filters=chosen, limit=MOST, return_properties=[*HIT_COLUMNS, "write_id"]),
        )
        return [_found(o, 0.0) for o in found.objects]

    # ── the manifest ──

    async def publish(self, index: str, entries: Mapping[str, Published]) -> None:
        from weaviate.classes.data import DataObject

        objects: list[Any] = [
            DataObject({"document_id": d, "write_id": e.write_id, "chunks": e.chunks}, p.object_id(d))
            for d, e in entries.items()
        ]
        await self._insert(index, p.MANIFEST, objects)

    async def withdraw(self, index: str, document_ids: Sequence[str]) -> None:
        await self._delete(index, p.MANIFEST, plain("document_id", list(document_ids)))

    async def published(self, index: str, document_ids: Sequence[str]) -> dict[str, Published]:
        chosen = plain("document_id", list(document_ids))
        found = await self._manifest(index, lambda c: c.query.fetch_objects(filters=chosen, limit=MOST))
        return dict(_entry(o) for o in found.objects)

    async def manifest(self, index: str) -> AsyncIterator[dict[str, Published]]:
        after: Any = None
        while True:
            found = await self._manifest(
                index,
                lambda c, after=after: c.query.fetch_objects(limit=PAGE, after=after),  # type: ignore[misc]
            )
            if found.objects:
                yield dict(_entry(o) for o in found.objects)
            if len(found.objects) < PAGE:
                return
            after = found.objects[-1].uuid

    # ── the library ──

    async def _rows(self, index: str, work: Callable[[Any], Awaitable[T]]) -> T:
        return await self._with(index, p.ROWS, work)

    async def _manifest(self, index: str, work: Callable[[Any], Awaitable[T]]) -> T:
        return await self._with(index, p.MANIFEST, work)

    async def _with(self, index: str, prefix: str, work: Callable[[Any], Awaitable[T]]) -> T:
        from weaviate.classes.config import ConsistencyLevel

        level = None if self._consistency == "" else ConsistencyLevel(self._consistency)

        async def on_collection(client: Any) -> T:
            collection = client.collections.use(p.collection(prefix, index))
            return await work(collection if level is None else collection.with_consistency_level(level))

        return await self._connection.call(on_collection, index)

    async def _insert(self, index: str, prefix: str, objects: Sequence[Any]) -> None:
        result = await self._with(index, prefix, lambda c: c.data.insert_many(objects))
        if result.has_errors or result.errors:  # collected, not raised; their texts quote the objects
            raise DependencyError(NAME, f"refused {len(result.errors)} of {len(objects)} objects")

    async def _delete(self, index: str, prefix: str, chosen: Any) -> None:
        while True:
            result = await self._with(index, prefix, lambda c: c.data.delete_many(where=chosen))
            if result.failed:
                raise DependencyError(NAME, f"could not delete {result.failed} objects")
            if result.successful < MOST:
                return


def _documents(document_ids: Sequence[str]) -> Any:
    return plain(p.filtered("document_id"), [p.coded(d) for d in document_ids])


def _chosen(document_ids: Sequence[str] | None, write_ids: Sequence[str] | None) -> Any:
    from weaviate.classes.query import Filter as F

    parts = [] if document_ids is None else [_documents(document_ids)]
    if write_ids is not None:
        parts.append(plain("write_id", list(write_ids)))
    if not parts:
        return None
    return F.all_of(parts) if len(parts) > 1 else parts[0]


def _found(item: Any, score: float) -> Found:
    return Found(p.hit_of(item.properties, float(score)), item.properties["write_id"])


def _entry(item: Any) -> tuple[str, Published]:
    values = item.properties
    return values["document_id"], Published(values["write_id"], int(values["chunks"]))
