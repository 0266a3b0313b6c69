"""Where an index of ours lives: two namespaces, rows and manifest, of the Pinecone index for its dimensions.

A Pinecone index has one number of dimensions, so there is one for each: ``rag-384``, ``rag-1536``. It is created
when it is first needed. With ``RAG_PINECONE_HOST`` there is exactly the one at that address.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from rag_platform.backends.vector_stores.pinecone_api.http import NAME, AlreadyExists, Http, NotFound
from rag_platform.backends.vector_stores.pinecone_api.records import FILTERABLE
from rag_platform.errors import ConfigurationError, DependencyError

_ROWS, _MANIFEST = ".rows", ".manifest"
_INDEX_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")
_BELIEVED_S = 60.0
"""How long an index is taken to be where it was."""


@dataclass(frozen=True, slots=True)
class Place:
    """A Pinecone index.

    Attributes:
        host: address of its data plane, with scheme.
    """

    host: str
    dimensions: int


class Places:
    """Finds, creates and drops. Remembers what it found.

    Args:
        url: of the control plane.
        prefix: of the names of Pinecone indexes.
        host: of the only one; None: ask the control plane.
        deployment: ``cloud`` and ``region`` of indexes that are created.
    """

    def __init__(self, http: Http, url: str, prefix: str, host: str | None, deployment: Mapping[str, str]) -> None:
        self._http, self._url, self._prefix, self._host = http, url.rstrip("/"), prefix, host
        self._deployment = deployment
        self._found: dict[str, tuple[float, Place]] = {}

    @staticmethod
    def rows(index: str) -> str:
        """Namespace of the rows."""
        return index + _ROWS

    @staticmethod
    def manifest(index: str) -> str:
        """Namespace of the manifest."""
        return index + _MANIFEST

    async def find(self, index: str) -> Place:
        """
        Raises:
            KeyError: no such index.
        """
        at, place = self._found.get(index, (-_BELIEVED_S, None))
        if place is not None and time.monotonic() - at < _BELIEVED_S:
            return place
        for place in await self.all():
            if await self.described(place, self.rows(index)) is not None:
                self._found[index] = time.monotonic(), place
                return place
        self.forget(index)
        raise KeyError(index)

    def forget(self, index: str) -> None:
        self._found.pop(index, None)

    async def all(self) -> list[Place]:
        """Every Pinecone index of ours that is ready."""
        if self._host is not None:
            host = _address(self._host)
            stats = await self._http.send("POST", f"{host}/describe_index_stats", body={})
            return [Place(host, int(stats["dimension"]))]
        listed = (await self._http.send("GET", f"{self._url}/indexes")).get("indexes", [])
        name = re.compile(re.escape(self._prefix) + r"-(\d+)\Z")
        return [
            Place(_address(one["host"]), int(found[1]))
            for one in listed
            if (found := name.match(one["name"])) and one["status"]["ready"]
        ]

    async def described(self, place: Place, namespace: str) -> Mapping[str, Any] | None:
        """What Pinecone says of a namespace; None when it does not exist."""
        try:
            return await self._http.send("GET", f"{place.host}/namespaces/{quote(namespace, safe='')}")
        except NotFound:
            return None

    async def names(self) -> list[str]:
        """The indexes of ours."""
        return [
            name.removesuffix(_ROWS)
            for place in await self.all()
            async for name in self._namespaces(place)
            if name.endswith(_ROWS)
        ]

    async def _namespaces(self, place: Place) -> AsyncIterator[str]:
        query: dict[str, Any] = {"limit": 100}
        while True:
            page = await self._http.send("GET", f"{place.host}/namespaces", query=query)
            for one in page.get("namespaces", []):
                yield one["name"]
            token = (page.get("pagination") or {}).get("next")
            if not token:
                return
            query["paginationToken"] = token

    async def create(self, index: str, dimensions: int) -> None:
        """Create what is missing; a no-op when the index exists, in whatever dimensions."""
        if not _INDEX_NAME.match(index):
            raise ValueError(f"an index name is letters, digits, '_', '.' and '-', not {index!r}")
        try:
            await self.find(index)
            return
        except KeyError:
            place = await self._ready(dimensions)
        fields = {name: {"filterable": True} for name in FILTERABLE}
        # The rows come last: they are what says that the index exists.
        for namespace, schema in (
            (self.manifest(index), {"fields": {"write_id": {"filterable": True}}}),
            (self.rows(index), {"fields": fields}),
        ):
            try:
                await self._http.send("POST", f"{place.host}/namespaces", body={"name": namespace, "schema": schema})
            except AlreadyExists:
                continue

    async def drop(self, index: str) -> None:
        """Delete the namespaces; absent ones are a no-op. The Pinecone index stays for others."""
        self.forget(index)
        for place in await self.all():
            for namespace in (self.rows(index), self.manifest(index)):
                if await self.described(place, namespace) is not None:
                    await self._http.send("DELETE", f"{place.host}/namespaces/{quote(namespace, safe='')}")

    async def _ready(self, dimensions: int) -> Place:
        """The Pinecone index for these dimensions, created if need be."""
        places = await self.all()
        for place in places:
            if place.dimensions == dimensions:
                return place
        if self._host is not None:
            raise ConfigurationError(
                f"the Pinecone index at RAG_PINECONE_HOST holds vectors of {places[0].dimensions} dimensions, not"
                f" {dimensions}: unset RAG_PINECONE_HOST to have one created, or give the address of another"
            )
        name = f"{self._prefix}-{dimensions}"
        field = {"type": "dense_vector", "dimension": dimensions, "metric": "cosine"}
        body = {
            "name": name,
            "schema": {"fields": {"_values": field}},
            "deployment": {"deployment_type": "managed", **self._deployment},
        }
        with contextlib.suppress(AlreadyExists):  # another process was faster, or it is not ready yet
            await self._http.send("POST", f"{self._url}/indexes", body=body)
        pause = 0.05
        while True:
            described = await self._http.send("GET", f"{self._url}/indexes/{name}")
            if described["status"]["ready"]:
                return Place(_address(described["host"]), dimensions)
            if "fail" in str(described["status"]["state"]).lower():
                raise DependencyError(NAME, f"could not create the Pinecone index {name}", retryable=False)
            await asyncio.sleep(pause)
            pause = min(2 * pause, 5.0)


def _address(host: str) -> str:
    return host.rstrip("/") if host.startswith(("http://", "https://")) else f"https://{host.rstrip('/')}"
