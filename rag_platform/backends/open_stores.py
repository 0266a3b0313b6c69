"""The vector stores of one process by name, and the keyword replica that stands in for one that is a server.

A release says which store holds its index, so a process may need several: two while one takes over from
another. Each is built when it is first asked for, which does no I/O.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from rag_platform import backends, identity
from rag_platform.backends.vector_stores.base import Capabilities, VectorStore
from rag_platform.settings import Settings


def needs_replica(capabilities: Capabilities) -> bool:
    """Whether words must also be found somewhere else: when the store is away, or does not rank by them."""
    return not (capabilities.keyword and capabilities.survives_server_outage)


class OpenStores:
    """Opens stores by their names and closes them all.

    Args:
        given: stores that are used under their names instead of built ones; their owner closes them.
    """

    def __init__(self, settings: Settings, given: Mapping[str, VectorStore] | None = None) -> None:
        self._settings = settings
        self._given = dict(given or {})
        self._opened: dict[str, VectorStore] = {}
        self._replica: VectorStore | None = None

    def get(self, name: str) -> VectorStore:
        """Return the store of this name, built at first.

        Raises:
            ConfigurationError: no such store, its SDK is not installed, or its settings make no sense.
        """
        if name in self._given:
            return self._given[name]
        if name not in self._opened:
            self._opened[name] = backends.load("vector_stores", name).build(self._settings)
        return self._opened[name]

    def replica_of(self, name: str) -> VectorStore | None:
        """Return the place of the keyword indexes that stand in for this store; None where it needs none, or
        RAG_KEYWORD_REPLICA_URL says that none is kept. Raises as ``get``."""
        return self.replica if needs_replica(self.get(name).capabilities) else None

    @property
    def replica(self) -> VectorStore | None:
        """The place of all keyword replicas: LanceDB tables without vectors. None when none are kept."""
        url = self._settings.resolved_keyword_replica_url
        if url is None:
            return None
        if self._replica is None:
            place = dataclasses.replace(self._settings, index_url=url)
            self._replica = backends.load("vector_stores", "lancedb").build(place)
        return self._replica

    @property
    def replica_place(self) -> str:
        """A short name of where the replicas are, the same for the same RAG_KEYWORD_REPLICA_URL; empty for the
        default, which moves with RAG_HOME."""
        url = self._settings.keyword_replica_url
        return identity.digest(url)[:8] if url else ""

    def take(self, name: str) -> VectorStore | None:
        """Hand a store over to be closed; it is built anew when it is asked for again. None: not opened here."""
        return self._opened.pop(name, None)

    async def aclose(self) -> None:
        """Close every store that was built here."""
        opened = [*self._opened.values(), *([self._replica] if self._replica else [])]
        self._opened.clear()
        self._replica = None
        for store in opened:
            await store.aclose()


def replica_index(release_id: str) -> str:
    """Return the name of a release's keyword index in the replica."""
    return f"keyword_{release_id}"
