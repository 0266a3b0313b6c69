"""Pinecone's part of ``two_phase``: rows and manifest entries as records of two namespaces."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rag_platform.backends.vector_stores.base import Leg, SearchRequest
from rag_platform.backends.vector_stores.deadlines import Deadline, within
from rag_platform.backends.vector_stores.pinecone_api.filters import (
    Sent,
    all_of,
    matches,
    readable,
    value_key,
    visible,
)
from rag_platform.backends.vector_stores.pinecone_api.http import NAME, Http
from rag_platform.backends.vector_stores.pinecone_api.namespace import MAX_FETCHED, MAX_TOP_K, PAGE, Namespace
from rag_platform.backends.vector_stores.pinecone_api.places import Place, Places
from rag_platform.backends.vector_stores.pinecone_api.records import (
    encoded,
    entry_record,
    hit_of,
    record_id,
    requests,
    row_of,
    write_of,
)
from rag_platform.backends.vector_stores.two_phase import Found, Published
from rag_platform.records import Principal

if TYPE_CHECKING:
    from rag_platform.backends.vector_stores.pinecone import Settings


class PineconeRows:
    """See ``two_phase.Rows``. Calls that write, and those that only an operator's work makes, try again within
    their deadline; ``find``, ``fetch`` and ``published``, which a question waits for, do not."""

    name = NAME

    def __init__(self, own: Settings, api_key: str) -> None:
        self._own = own
        self._http = Http(api_key, own.request_timeout_s)
        deployment = {"cloud": own.cloud, "region": own.region}
        self._places = Places(self._http, own.control_url, own.index, own.host, deployment)

    # ── indexes ──

    async def create(self, index: str, dimensions: int) -> None:
        async with self._writing() as deadline:
            await deadline.insist(lambda: self._places.create(index, dimensions))

    async def dimensions(self, index: str) -> int:
        async with self._reading() as deadline:
            return (await deadline.insist(lambda: self._places.find(index))).dimensions

    async def names(self) -> list[str]:
        async with self._reading() as deadline:
            return await deadline.insist(self._places.names)

    async def drop(self, index: str) -> None:
        async with self._writing() as deadline:
            await deadline.insist(lambda: self._places.drop(index))

    async def ping(self) -> None:
        async with self._reading():
            await self._places.all()

    async def aclose(self) -> None:
        await self._http.aclose()

    # ── writing: each returns when searches and fetches both show it ──

    async def put_rows(self, index: str, rows: Sequence[Mapping[str, Any]], write_id: str) -> None:
        async with self._writing() as deadline:
            place = await deadline.insist(lambda: self._places.find(index))
            space = self._rows(place, index)
            bodies = list(requests((encoded(r, write_id) for r in rows), space.name))
            await self._upsert(deadline, space, bodies)
            where: Sent = {
                "$and": [{"write_id": {"$eq": write_id}}, {"chunk_id": {"$in": [r["chunk_id"] for r in rows]}}]
            }
            ends = {record_id(rows[0], write_id), record_id(rows[-1], write_id)}

            async def shown() -> bool:
                found = await space.query(_anywhere(place), where, MAX_TOP_K, metadata=False)
                return len(found) == len(rows) and ends == set(await space.fetch(ends))

            await deadline.until(shown)

    async def delete_rows(
        self,
        index: str,
        document_ids: Sequence[str] | None,
        *,
        write_id: str | None = None,
        except_write_id: str | None = None,
    ) -> None:
        parts: list[Sent] = [] if document_ids is None else [_one_of("document_id", document_ids)]
        if write_id is not None:
            parts.append({"write_id": {"$eq": write_id}})
        if except_write_id is not None:
            parts.append({"write_id": {"$ne": except_write_id}})
        where = all_of(parts)
        if where is None or document_ids == []:
            return
        async with self._writing() as deadline:
            place = await deadline.insist(lambda: self._places.find(index))
            space = self._rows(place, index)
            await deadline.insist(lambda: space.delete(where=where))

            async def gone() -> bool:
                if await space.query(_anywhere(place), where, 1, metadata=False):
                    return False
                return await anext(space.having(where, limit=1), None) is None

            await deadline.until(gone)

    async def publish(self, index: str, entries: Mapping[str, Published]) -> None:
        async with self._writing() as deadline:
            place = await deadline.insist(lambda: self._places.find(index))
            space = self._manifest(place, index)
            records = (entry_record(d, e.write_id, e.chunks, place.dimensions) for d, e in entries.items())
            await self._upsert(deadline, space, list(requests(records, space.name)))

            async def shown() -> bool:
                return _entries(await space.fetch(entries)) == entries

            await deadline.until(shown)

    async def withdraw(self, index: str, document_ids: Sequence[str]) -> None:
        async with self._writing() as deadline:
            space = self._manifest(await deadline.insist(lambda: self._places.find(index)), index)
            await deadline.insist(lambda: space.delete(ids=document_ids))

            async def gone() -> bool:
                return not await space.fetch(document_ids)

            await deadline.until(gone)

    async def _upsert(self, deadline: Deadline, space: Namespace, bodies: Sequence[bytes]) -> None:
        slots = asyncio.Semaphore(self._own.concurrency)

        async def one(body: bytes) -> None:
            async with slots:
                await deadline.insist(lambda: space.upsert(body))

        async with asyncio.TaskGroup() as group:
            for body in bodies:
                group.create_task(one(body))

    # ── counting and reading ──

    async def count_rows(
        self, index: str, document_ids: Sequence[str] | None = None, write_ids: Sequence[str] | None = None
    ) -> int:
        async with self._writing() as deadline:
            place = await deadline.insist(lambda: self._places.find(index))
            space = self._rows(place, index)

            async def counted(documents: Sequence[str] | None) -> int:
                if documents is None and write_ids is None:
                    described = await self._places.described(place, space.name)
                    return 0 if described is None else int(described["record_count"])
                if documents is None:
                    return sum([len(page) for w in write_ids or () async for page in space.ids(f"{w}.")])
                # A filtered query finds exactly what satisfies the filter, as far as ``topK`` goes.
                found = len(await space.query(_anywhere(place), _of(documents, write_ids), MAX_TOP_K, metadata=False))
                if found < MAX_TOP_K:
                    return found
                if len(documents) == 1:
                    return sum([len(page) async for page in space.having(_of(documents, write_ids))])
                half = len(documents) // 2
                return await counted(documents[:half]) + await counted(documents[half:])

            return await deadline.insist(lambda: counted(document_ids)) if document_ids != [] else 0

    async def read_rows(
        self, index: str, document_ids: Sequence[str], write_ids: Sequence[str], columns: Sequence[str]
    ) -> list[dict[str, Any]]:
        async with self._writing() as deadline:
            space = self._rows(await deadline.insist(lambda: self._places.find(index)), index)

            async def read() -> list[dict[str, Any]]:
                rows = [row_of(r) async for page in space.having(_of(document_ids, write_ids)) for r in page]
                return [{c: row[c] for c in (*columns, "write_id")} for row in rows]

            return await deadline.insist(read)

    async def writes(self, index: str) -> set[str]:
        async with self._writing() as deadline:
            space = self._rows(await deadline.insist(lambda: self._places.find(index)), index)

            async def read() -> set[str]:
                return {write_of(i) async for page in space.ids() for i in page}

            return await deadline.insist(read)

    async def find(self, index: str, leg: Leg, request: SearchRequest, k: int) -> list[Found]:
        if leg != "vector" or request.vector is None:
            raise ValueError("Pinecone has no keyword leg: see its capabilities")
        async with self._reading():
            space = self._rows(await self._places.find(index), index)
            where = all_of(visible(request.principal, request.where))
            vector = [float(v) for v in request.vector]
            asked = min(k, MAX_TOP_K)
            while True:
                matched = await space.query(vector, where, asked, metadata=asked <= PAGE)
                found = await self._wanted(space, matched, request, k)
                # What is sent may let more through than is wanted: then look further down.
                if found is not None and (len(found) == k or len(matched) < asked or asked == MAX_TOP_K):
                    return found
                asked = asked if found is None else min(4 * asked, MAX_TOP_K)

    @staticmethod
    async def _wanted(
        space: Namespace, matched: Sequence[Mapping[str, Any]], request: SearchRequest, k: int
    ) -> list[Found] | None:
        """The first ``k`` of these that are wanted indeed; None when one has vanished meanwhile."""
        found: list[Found] = []
        for at in range(0, len(matched), MAX_FETCHED):
            part = matched[at : at + MAX_FETCHED]
            if any("metadata" not in m for m in part):
                records = await space.fetch([m["id"] for m in part])
                if len(records) < len(part):
                    return None
                part = [{**records[m["id"]], "score": m["score"]} for m in part]
            for match in part:
                row = row_of(match)
                if readable(row, request.principal) and (request.where is None or matches(request.where, row)):
                    found.append(Found(hit_of(row, match["score"]), row["write_id"]))
            if len(found) >= k:
                break
        return found[:k]

    async def fetch(self, index: str, chunk_ids: Sequence[str], principal: Principal) -> list[Found]:
        async with self._reading():
            space = self._rows(await self._places.find(index), index)
            where = all_of([{"chunk_id": {"$in": list(chunk_ids)}}, *visible(principal, None)])
            assert where is not None
            rows = [row_of(r) async for page in space.having(where) for r in page]
        return [Found(hit_of(r, 0.0), r["write_id"]) for r in rows if readable(r, principal)]

    # ── manifest ──

    async def published(self, index: str, document_ids: Sequence[str]) -> dict[str, Published]:
        async with self._reading():
            space = self._manifest(await self._places.find(index), index)
            return _entries(await space.fetch(document_ids))

    async def manifest(self, index: str) -> AsyncIterator[dict[str, Published]]:
        async with self._reading() as deadline:
            space = self._manifest(await deadline.insist(lambda: self._places.find(index)), index)
        pages = space.ids()
        while True:
            # One deadline a page: the caller may take his time between two.
            async with self._reading():
                if (ids := await anext(pages, None)) is None:
                    return
                entries = _entries(await space.fetch(ids))
            yield entries

    def _rows(self, place: Place, index: str) -> Namespace:
        return Namespace(self._http, place.host, self._places.rows(index))

    def _manifest(self, place: Place, index: str) -> Namespace:
        return Namespace(self._http, place.host, self._places.manifest(index))

    def _reading(self) -> contextlib.AbstractAsyncContextManager[Deadline]:
        return within(self._own.timeout_s, NAME)

    def _writing(self) -> contextlib.AbstractAsyncContextManager[Deadline]:
        return within(self._own.write_timeout_s, NAME)


def _anywhere(place: Place) -> list[float]:
    """A vector for queries that count: Pinecone wants one, and which does not matter."""
    return [1.0] + [0.0] * (place.dimensions - 1)


def _one_of(name: str, values: Sequence[str]) -> Sent:
    return {name: {"$in": [value_key(v) for v in values]}}


def _of(document_ids: Sequence[str], write_ids: Sequence[str] | None) -> Sent:
    documents = _one_of("document_id", document_ids)
    return documents if write_ids is None else {"$and": [documents, {"write_id": {"$in": list(write_ids)}}]}


def _entries(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Published]:
    return {d: Published(str(r["metadata"]["write_id"]), int(r["metadata"]["chunks"])) for d, r in records.items()}
