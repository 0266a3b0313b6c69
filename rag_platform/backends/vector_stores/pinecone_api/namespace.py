"""The data plane of Pinecone: what can be asked of one namespace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag_platform.backends.vector_stores.pinecone_api.http import Http

MAX_TOP_K = 10_000
MAX_FETCHED = 50
"""Ids in one fetch: they stand in the URL, and proxies refuse URLs of more than some 8 KB."""
PAGE = 90
"""Records with metadata of up to 40 KB each in one answer, which holds 4 MB."""
_LISTED = 100
_DELETED = 1000

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Namespace:
    """``name`` at ``host`` (with scheme). Reading one that does not exist finds nothing."""

    http: Http
    host: str
    name: str

    async def upsert(self, body: bytes) -> None:
        """Send a body of ``records.requests``."""
        await self.http.send("POST", f"{self.host}/vectors/upsert", body=body)

    async def delete(self, *, ids: Sequence[str] = (), where: Mapping[str, Any] | None = None) -> None:
        """
        Raises:
            NotFound: no such namespace.
        """
        if where is not None:
            await self._post("/vectors/delete", {"filter": where})
        for at in range(0, len(ids), _DELETED):
            await self._post("/vectors/delete", {"ids": list(ids[at : at + _DELETED])})

    async def query(
        self, vector: Sequence[float], where: Mapping[str, Any] | None, k: int, *, metadata: bool
    ) -> list[Record]:
        """The ``k`` nearest records: ``id``, ``score`` and, when asked for, ``metadata``."""
        body: dict[str, Any] = {"vector": vector, "topK": k, "includeMetadata": metadata, "includeValues": False}
        answer = await self._post("/query", body if where is None else body | {"filter": where})
        return list(answer.get("matches", []))

    async def fetch(self, ids: Collection[str]) -> dict[str, Record]:
        """The records that exist, by id."""
        listed, found = list(ids), {}
        for at in range(0, len(listed), MAX_FETCHED):
            query = {"ids": listed[at : at + MAX_FETCHED], "namespace": self.name}
            answer = await self.http.send("GET", f"{self.host}/vectors/fetch", query=query)
            found.update(answer.get("vectors", {}))
        return found

    async def having(self, where: Mapping[str, Any], *, limit: int = PAGE) -> AsyncIterator[list[Record]]:
        """Every record that satisfies the filter, page by page."""
        body: dict[str, Any] = {"filter": where, "limit": limit}
        while True:
            answer = await self._post("/vectors/fetch_by_metadata", body)
            if records := list(answer.get("vectors", {}).values()):
                yield records
            if not (token := _following(answer)):
                return
            body["paginationToken"] = token

    async def ids(self, prefix: str = "") -> AsyncIterator[list[str]]:
        """The ids that begin with ``prefix``, page by page."""
        query: dict[str, Any] = {"namespace": self.name, "limit": _LISTED}
        if prefix:
            query["prefix"] = prefix
        while True:
            answer = await self.http.send("GET", f"{self.host}/vectors/list", query=query)
            if ids := [v["id"] for v in answer.get("vectors", [])]:
                yield ids
            if not (token := _following(answer)):
                return
            query["paginationToken"] = token

    async def _post(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self.http.send("POST", self.host + path, body={"namespace": self.name, **body})


def _following(answer: Mapping[str, Any]) -> str | None:
    return (answer.get("pagination") or {}).get("next")
