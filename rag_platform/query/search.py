"""Searching a release: in its store, by the replica's words where the store has none, and in the replica alone
where the store does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rag_platform.backends.guard import Guard
from rag_platform.errors import DependencyError
from rag_platform.query.deadline import Clock
from rag_platform.query.degrade import Notes
from rag_platform.query.question import Question
from rag_platform.query.release_stores import ReleaseIndex
from rag_platform.query.replica import agreeing
from rag_platform.query.retrieve import LEGS, Legs, Vector, search_legs
from rag_platform.records import Hit, SearchMode

Wordings = Sequence[tuple[str, Vector | None]]
"""Ways to put a question: text, and its vector where the mode needs one."""


class Search:
    """One question's search. What had to be left out is added to ``notes``."""

    def __init__(self, index: ReleaseIndex, question: Question, clock: Clock, notes: Notes, replica_guard: Guard):
        self._index, self._q, self._clock, self._notes = index, question, clock, notes
        self._replica_guard = replica_guard

    async def legs(self, mode: SearchMode, wordings: Wordings) -> tuple[SearchMode, Legs]:
        """Return the mode in which something was found, and what.

        Raises:
            DependencyError: the store failed, and nothing could answer in its place.
        """
        if "keyword" in LEGS[mode] and not self._index.store.capabilities.keyword:
            return await self._split(mode, wordings)
        try:
            return mode, await self._in_store(mode, wordings)
        except DependencyError as e:
            self._notes.add("vector_store", e)
            if self._index.replica is None:
                raise
            return "keyword", {"keyword": await self._by_words(wordings)}

    async def _split(self, mode: SearchMode, wordings: Wordings) -> tuple[SearchMode, Legs]:
        """Search a store without a keyword leg, and the replica beside it."""
        if mode == "keyword":
            return mode, {"keyword": await self._by_words(wordings)}
        words = asyncio.create_task(self._by_words(wordings))
        try:
            try:
                legs = await self._in_store("vector", wordings)
            except DependencyError as e:
                self._notes.add("vector_store", e)
                return "keyword", {"keyword": await words}
            try:
                return mode, legs | {"keyword": agreeing(await words, legs["vector"])}
            except DependencyError as e:
                self._notes.add("keyword_replica", e)
                return "vector", legs
        finally:
            words.cancel()
            await asyncio.wait([words])
            if not words.cancelled():
                words.exception()  # raised above, or no longer asked for

    async def _in_store(self, mode: SearchMode, wordings: Wordings) -> Legs:
        q, index = self._q, self._index
        name = index.release.index_name

        async def search(_: float) -> Legs:
            try:
                return await search_legs(index.store, name, wordings, q.principal, mode, q.where, q.profile.candidates)
            except KeyError as e:  # the release names an index that is not there
                raise DependencyError("vector_store", "the index of the serving release does not exist") from e

        return await index.guard.call(search, self._clock.budget(q.profile.search_s))

    async def _by_words(self, wordings: Wordings) -> list[Hit]:
        q, index = self._q, self._index
        replica = index.replica
        if replica is None:
            raise DependencyError("keyword_replica", "none is kept: RAG_KEYWORD_REPLICA_URL", retryable=False)
        texts = [text for text, _ in wordings]
        return await self._replica_guard.call(
            lambda _: replica.search(index.release.release_id, texts, q.principal, q.where, q.profile.candidates),
            self._clock.budget(q.profile.search_s),
        )
