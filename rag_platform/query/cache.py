"""Answers that were given before: found by the question's words, by its meaning, or by the nearest words.

The cache decides nothing. What may enter is decided in ``admit``; what comes out belongs to the same scope
(tenant, permissions, release, models …), rests on documents that have not changed since, and for another
wording agrees in numbers, negations and named terms. A cache that fails costs one note and is a miss.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec
import numpy as np

from rag_platform import identity
from rag_platform.backends.caches.base import Cache, Neighbour, Vector
from rag_platform.errors import DependencyError
from rag_platform.query.agreement import agree
from rag_platform.query.answer import Answer, Usage
from rag_platform.query.cache_guard import CacheGuard
from rag_platform.query.degrade import Notes
from rag_platform.query.freshness import Freshness
from rag_platform.query.wording.vector import word_vector
from rag_platform.settings import Settings

__all__ = ["AnswerCache", "CacheGuard"]

T = TypeVar("T")

_FORMAT = "1"
"""Part of every key: entries of another format are never met."""
_VECTOR_TTL_S = 7 * 24 * 3600.0
"""A question's vector does not grow old; this only lets go of what nobody asks."""
_CANDIDATES = 4
"""Neighbours that are looked at: the nearest may disagree in a number where the next does not."""
_WORDS_THRESHOLD = 0.75
_MAX_ENTRY_BYTES = 512 * 1024


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    """``versions``: of every document that the answer's context held, cited or not."""

    scope: str
    question: str
    versions: dict[str, str]
    answer: Answer


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Entry)


class AnswerCache:
    """Never raises for a failing cache: notes it as ``cache`` and goes on as if nothing had been found.

    Args:
        cache, guard: None caches nothing.
    """

    def __init__(self, cache: Cache | None, guard: CacheGuard | None, freshness: Freshness, settings: Settings) -> None:
        self._cache, self._guard, self._freshness = cache, guard, freshness
        self._ttl_s, self._threshold = settings.cache_ttl_s, settings.semantic_threshold

    async def exact(self, scope: str, question: str, history_digest: str, notes: Notes) -> Answer | None:
        """Return the answer to the same words after the same conversation."""
        entry = await self._entry(scope, _answer_key(scope, question, history_digest), notes)
        # The key is a hash of both; compared all the same, because nothing may cross scopes.
        return entry.answer if entry is not None and entry.question == question else None

    async def semantic(self, scope: str, question: str, vector: Vector, notes: Notes) -> Answer | None:
        """Return the answer to another wording of the question, asked without a conversation before it."""
        return await self._similar(_meaning_space(scope), self._threshold, scope, question, vector, notes)

    async def nearest_by_words(self, scope: str, question: str, notes: Notes) -> Answer | None:
        """Return the answer to the question that shares most words: for when no vector is to be had."""
        vector = word_vector(question)
        if vector is None:
            return None
        return await self._similar(_words_space(scope), _WORDS_THRESHOLD, scope, question, vector, notes)

    async def question_vector(self, embedder_fingerprint: str, question: str, notes: Notes) -> Vector | None:
        """Return the question's vector if this embedder has made it before: float32 (dimensions,), read-only."""
        key = _vector_key(embedder_fingerprint, question)
        raw = await self._ask(lambda cache: cache.get(key), notes)
        if not raw or len(raw) % 4:
            return None
        vector: Vector = np.frombuffer(raw, dtype="<f4")
        return vector if math.isclose(float(vector @ vector), 1.0, abs_tol=1e-2) else None

    async def keep_vector(self, embedder_fingerprint: str, question: str, vector: Vector, notes: Notes) -> None:
        """Remember a question's unit vector."""
        key, raw = _vector_key(embedder_fingerprint, question), np.asarray(vector, dtype="<f4").tobytes()
        await self._ask(lambda cache: cache.set(key, raw, ttl_s=_VECTOR_TTL_S), notes)

    async def admit(
        self,
        scope: str,
        question: str,
        history_digest: str,
        vector: Vector | None,
        answer: Answer,
        versions: Mapping[str, str],
        notes: Notes,
    ) -> None:
        """Keep an answer, if it may be given again.

        Not kept: degraded, refused, not in full, itself from the cache, without citations, or citing a
        version that ``versions`` (document_id to version_id of the whole context) does not hold.
        """
        if notes or not _admissible(answer, versions):
            return
        key = _answer_key(scope, question, history_digest)
        stored = msgspec.structs.replace(answer, cache="exact", usage=Usage(), cost_usd=0.0)
        raw = _encoder.encode(_Entry(scope, question, dict(versions), stored))
        if len(raw) > _MAX_ENTRY_BYTES:
            return
        await self._ask(lambda cache: cache.set(key, raw, ttl_s=self._ttl_s), notes)
        if history_digest:
            return  # its words mean something only in their conversation
        for space, place in ((_meaning_space(scope), vector), (_words_space(scope), word_vector(question))):
            if place is not None and not notes:
                await self._ask(_remembering(space, key, place, self._ttl_s), notes)

    async def _similar(
        self, space: str, threshold: float, scope: str, question: str, vector: Vector, notes: Notes
    ) -> Answer | None:
        if threshold > 1:
            return None
        found: list[Neighbour] | None = await self._ask(
            lambda cache: cache.nearest(space, vector, k=_CANDIDATES), notes
        )
        for neighbour in found or ():
            if neighbour.similarity < threshold:
                break
            entry = await self._entry(scope, neighbour.member, notes, space)
            if entry is not None and agree(question, entry.question):
                return msgspec.structs.replace(entry.answer, cache="semantic")
        return None

    async def _entry(self, scope: str, key: str, notes: Notes, space: str | None = None) -> _Entry | None:
        """Return a usable entry; one that is outdated, or that ``space`` still names in vain, is removed."""
        raw = await self._ask(lambda cache: cache.get(key), notes)
        if raw is None:
            if space is not None and not notes:
                await self._ask(lambda cache: cache.forget(space, key), notes)
            return None
        try:
            entry = _decoder.decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError):  # not ours, or of another version
            await self._drop(scope, key, notes)
            return None
        if entry.scope != scope:
            return None
        standing = await self._freshness.standing(entry.answer.release_id, entry.versions)
        if standing == "outdated":
            await self._drop(scope, key, notes)
        return entry if standing == "current" else None

    async def _drop(self, scope: str, key: str, notes: Notes) -> None:
        await self._ask(lambda cache: cache.delete(key), notes)
        for space in (_meaning_space(scope), _words_space(scope)):
            await self._ask(_forgetting(space, key), notes)

    async def _ask(self, work: Callable[[Cache], Awaitable[T]], notes: Notes) -> T | None:
        cache, guard = self._cache, self._guard
        if cache is None or guard is None:
            return None
        try:
            return await guard.call(lambda: work(cache))
        except DependencyError as e:
            notes.add("cache", e)
            return None


def _admissible(answer: Answer, versions: Mapping[str, str]) -> bool:
    whole = answer.mode == "full" and answer.cache == "miss" and not answer.degraded and not answer.refused
    grounded = bool(answer.citations) and all(versions.get(c.document_id) == c.version_id for c in answer.citations)
    return whole and grounded and bool(answer.answer.strip())


def _remembering(space: str, member: str, vector: Vector, ttl_s: float) -> Callable[[Cache], Awaitable[None]]:
    return lambda cache: cache.remember(space, member, vector, ttl_s=ttl_s)


def _forgetting(space: str, member: str) -> Callable[[Cache], Awaitable[None]]:
    return lambda cache: cache.forget(space, member)


def _answer_key(scope: str, question: str, history_digest: str) -> str:
    return f"a{_FORMAT}:{identity.digest(scope, question, history_digest)[:40]}"


def _vector_key(embedder_fingerprint: str, question: str) -> str:
    return f"e{_FORMAT}:{identity.digest(embedder_fingerprint, question)[:40]}"


def _meaning_space(scope: str) -> str:
    return f"q{_FORMAT}:{scope}"


def _words_space(scope: str) -> str:
    return f"w{_FORMAT}:{scope}"
