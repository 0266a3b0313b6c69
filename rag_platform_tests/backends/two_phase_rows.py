"""The primitives of ``two_phase`` in dicts: what a vendor has to write to add a store, at its smallest. ``step`` is
called before each of them, for tests that crash or look there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from rag_platform.backends.vector_stores.base import Leg, SearchRequest
from rag_platform.backends.vector_stores.two_phase import Found, Published
from rag_platform.records import Principal
from rag_platform_tests.backends.memory_store import hit, matches, readable, score

Step = Callable[[str], Awaitable[None]]


async def _go_on(_: str) -> None:
    pass


class DictRows:
    """See ``two_phase.Rows``."""

    name = "vector_store:dict"

    def __init__(self, step: Step = _go_on) -> None:
        self.step = step
        self.rows: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
        self.entries: dict[str, dict[str, Published]] = {}
        self.sizes: dict[str, int] = {}

    async def create(self, index: str, dimensions: int) -> None:
        await self.step("create")
        for part in (self.rows, self.entries):
            part.setdefault(index, {})
        self.sizes.setdefault(index, dimensions)

    async def dimensions(self, index: str) -> int:
        return self.sizes[index]

    async def names(self) -> list[str]:
        return list(self.sizes)

    async def drop(self, index: str) -> None:
        for part in (self.rows, self.entries, self.sizes):
            part.pop(index, None)  # type: ignore[attr-defined]

    async def ping(self) -> None: ...

    async def aclose(self) -> None: ...

    def _chosen(
        self, index: str, documents: Sequence[str] | None, writes: Sequence[str] | None
    ) -> list[tuple[tuple[str, str], dict[str, Any]]]:
        return [
            (key, r)
            for key, r in self.rows[index].items()
            if (documents is None or r["document_id"] in documents) and (writes is None or r["write_id"] in writes)
        ]

    async def put_rows(self, index: str, rows: Sequence[Mapping[str, Any]], write_id: str) -> None:
        for row in rows:  # a crash may leave some of them
            await self.step("row")
            self.rows[index][row["chunk_id"], write_id] = {**row, "write_id": write_id}

    async def count_rows(
        self, index: str, document_ids: Sequence[str] | None = None, write_ids: Sequence[str] | None = None
    ) -> int:
        await self.step("count")
        return len(self._chosen(index, document_ids, write_ids))

    async def delete_rows(
        self,
        index: str,
        document_ids: Sequence[str] | None,
        *,
        write_id: str | None = None,
        except_write_id: str | None = None,
    ) -> None:
        for key, row in self._chosen(index, document_ids, None if write_id is None else [write_id]):
            if row["write_id"] != except_write_id:
                await self.step("delete")
                del self.rows[index][key]

    async def read_rows(
        self, index: str, document_ids: Sequence[str], write_ids: Sequence[str], columns: Sequence[str]
    ) -> list[dict[str, Any]]:
        await self.step("read")
        found = self._chosen(index, document_ids, write_ids)
        return [{c: r[c] for c in (*columns, "write_id")} for _, r in found]

    async def writes(self, index: str) -> set[str]:
        return {r["write_id"] for r in self.rows[index].values()}

    async def find(self, index: str, leg: Leg, request: SearchRequest, k: int) -> list[Found]:
        await self.step("find")
        rows = [
            r
            for r in self.rows[index].values()
            if readable(r, request.principal) and (request.where is None or matches(request.where, r))
        ]
        scored = [(score(r, request, leg), r) for r in rows]
        found = [Found(hit(r, s), r["write_id"]) for s, r in scored if leg == "vector" or s > 0]
        return sorted(found, key=lambda f: (-f.hit.score, f.hit.chunk_id))[:k]

    async def fetch(self, index: str, chunk_ids: Sequence[str], principal: Principal) -> list[Found]:
        await self.step("fetch")
        rows = self.rows[index].values()
        return [
            Found(hit(r, 0.0), r["write_id"]) for r in rows if r["chunk_id"] in chunk_ids and readable(r, principal)
        ]

    async def publish(self, index: str, entries: Mapping[str, Published]) -> None:
        for document_id, entry in entries.items():
            await self.step("publish")
            self.entries[index][document_id] = entry

    async def withdraw(self, index: str, document_ids: Sequence[str]) -> None:
        for document_id in document_ids:
            await self.step("withdraw")
            self.entries[index].pop(document_id, None)

    async def published(self, index: str, document_ids: Sequence[str]) -> dict[str, Published]:
        await self.step("published")
        held = self.entries[index]
        return {d: held[d] for d in document_ids if d in held}

    async def manifest(self, index: str) -> AsyncIterator[dict[str, Published]]:
        yield dict(self.entries[index])
