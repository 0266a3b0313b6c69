"""The keyword index of a release that does not live in its vector store.

The replica follows the store, so it may be behind. Nothing of it is shown that the ledger does not know to be in
the release's index: a deleted document, or permissions that were taken back, are not found again because the store
is down (P11). Where the ledger does not answer either, nothing is shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

from rag_platform.backends.open_stores import replica_index
from rag_platform.backends.vector_stores.base import SearchRequest, VectorStore
from rag_platform.backends.vector_stores.filters import Filter
from rag_platform.errors import DependencyError
from rag_platform.query.freshness import Versions
from rag_platform.records import Hit, Principal

NAME = "keyword_replica"

VersionsOf = Callable[[str, Collection[str]], Awaitable[Versions]]
"""Looks up the versions that a release's index holds of documents (release_id, document_ids)."""


class KeywordReplica:
    """The replicas of all releases in one place, ``store``."""

    def __init__(self, store: VectorStore, versions: VersionsOf) -> None:
        self._store, self._versions = store, versions

    async def search(
        self, release_id: str, texts: Sequence[str], principal: Principal, where: Filter | None, depth: int
    ) -> list[Hit]:
        """Return the ``depth`` best chunks by words, by the best score that any of ``texts`` gave them.

        Raises:
            DependencyError: the replica or the ledger failed, or there is no replica of this release.
        """
        index = replica_index(release_id)
        requests = [SearchRequest(principal, depth, ("keyword",), text=text, where=where) for text in texts]
        try:
            found = await asyncio.gather(*(self._store.search(index, r) for r in requests))
        except KeyError as e:
            raise DependencyError(NAME, "there is none of the serving release: run `rag ingest`") from e
        best: dict[str, Hit] = {}
        for hit in (h for result in found for h in result.legs["keyword"]):
            if hit.chunk_id not in best or hit.score > best[hit.chunk_id].score:
                best[hit.chunk_id] = hit
        hits = await self._held(release_id, list(best.values()))
        return sorted(hits, key=lambda h: (-h.score, h.chunk_id))[:depth]

    async def get(self, release_id: str, chunk_ids: Sequence[str], principal: Principal) -> list[Hit]:
        """Return the chunks that exist and that the principal may read; raises as ``search``."""
        try:
            hits = await self._store.get(replica_index(release_id), chunk_ids, principal)
        except KeyError as e:
            raise DependencyError(NAME, "there is none of the serving release: run `rag ingest`") from e
        return await self._held(release_id, hits)

    async def ping(self) -> None:
        await self._store.ping()

    async def _held(self, release_id: str, hits: Sequence[Hit]) -> list[Hit]:
        """Return the hits whose version the index holds, or may hold: of a document that is just being replaced."""
        if not hits:
            return []
        versions = await self._versions(release_id, {h.document_id for h in hits})
        return [h for h in hits if versions.get(h.document_id, "") in (None, h.version_id)]


def agreeing(words: Sequence[Hit], meaning: Sequence[Hit]) -> list[Hit]:
    """Return the hits of the replica that do not contradict the store's: of one document, no two versions (P2)."""
    seen = {h.document_id: h.version_id for h in meaning}
    return [h for h in words if seen.get(h.document_id, h.version_id) == h.version_id]
