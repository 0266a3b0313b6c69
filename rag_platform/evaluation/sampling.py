"""Which logged questions are scored, and each of them as a sample: question, answer and passages as they were."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rag_platform import identity
from rag_platform.backends.embedders.base import Embedder
from rag_platform.backends.open_stores import OpenStores
from rag_platform.backends.vector_stores.base import VectorStore
from rag_platform.errors import DependencyTimeout
from rag_platform.evaluation.evaluators.base import Sample
from rag_platform.ledger import Ledger
from rag_platform.ledger.query_log import QueryLogRow
from rag_platform.ledger.releases import Release
from rag_platform.query.compress import compress
from rag_platform.query.embedders import embedder_of
from rag_platform.query.profiles import PROFILES
from rag_platform.records import Hit
from rag_platform.settings import Settings

MAX_ROWS = 20_000
"""Newest rows of the log, and newest thumbs, that are looked at."""
MAX_SAMPLES = 200
STORE_TIMEOUT_S = 15.0

NO_TEXT, NO_RELEASE, CHANGED = "no text in the log", "release is gone", "passages changed since"


@dataclass(frozen=True, slots=True)
class TrafficSample:
    """One logged question. ``sample.case_id`` is its request id."""

    sample: Sample
    release_id: str
    at: float
    thumbs_down: bool


@dataclass(frozen=True, slots=True)
class Traffic:
    """
    Attributes:
        samples: in the order of their request ids.
        chosen: questions that the sampling chose.
        left_out: why chosen questions are not among the samples, and how many each.
    """

    samples: tuple[TrafficSample, ...]
    chosen: int
    left_out: Mapping[str, int]


def is_sampled(row: QueryLogRow, rate: float) -> bool:
    """Return whether a question is in the sample of ``rate`` (0 to 1), by the hash of its trace or else its request:
    the same on every machine and at every time, and a smaller sample is part of every larger one."""
    return _hash(row) < rate


def choose(
    rows: Sequence[QueryLogRow], disliked: Collection[str], rate: float, limit: int = MAX_SAMPLES
) -> list[QueryLogRow]:
    """Return the questions to score: those with a thumb down, then those of the sample, at most ``limit``.

    Only questions that got an answer or a refusal count. An answer that came from the exact cache again was counted
    when it was made.

    Args:
        disliked: request ids with a thumb down.
    """
    answered = [r for r in rows if r.status == "ok" and r.release_id is not None]
    down = [r for r in answered if r.request_id in disliked]
    others = (r for r in answered if r.request_id not in disliked and r.cache != "exact" and is_sampled(r, rate))
    by_hash = sorted(others, key=lambda r: (_hash(r), r.request_id))
    return sorted(down, key=lambda r: (-r.at, r.request_id))[:limit] + by_hash[: max(0, limit - len(down))]


async def traffic(
    settings: Settings,
    ledger: Ledger,
    since: float,
    until: float,
    *,
    stores: Mapping[str, VectorStore] | None = None,
    limit: int = MAX_SAMPLES,
) -> Traffic:
    """Return the questions of ``[since, until)`` (seconds since the epoch) that are scored.

    Needs RAG_QUERY_LOG=full: without texts nothing can be scored, and ``left_out`` says so. The passages are read
    from the index of the release that answered, with the permissions that it answered with; a question whose
    passages are no longer all there is left out.

    Raises:
        DependencyError: a vector store does not answer.
        ConfigurationError: the store or embedder of a release cannot be opened here.
    """
    rows, disliked = await asyncio.to_thread(_logged, ledger, since, until)
    chosen = choose(rows, disliked, settings.eval_sample_rate, limit)
    left_out: Counter[str] = Counter()
    samples = []
    async with _Passages(settings, ledger, stores) as passages:
        for row in chosen:
            if row.question is None or row.answer is None or row.release_id is None:
                left_out[NO_TEXT] += 1
                continue
            release = await passages.release(row.release_id)
            contexts = None if release is None else await passages.of(row, release)
            if contexts is None:
                left_out[NO_RELEASE if release is None else CHANGED] += 1
                continue
            sample = Sample(row.request_id, row.question, row.answer, contexts, None, (), row.refused)
            samples.append(TrafficSample(sample, row.release_id, row.at, row.request_id in disliked))
    samples.sort(key=lambda s: s.sample.case_id)
    return Traffic(tuple(samples), len(chosen), dict(left_out))


def _logged(ledger: Ledger, since: float, until: float) -> tuple[list[QueryLogRow], set[str]]:
    rows = {r.request_id: r for r in ledger.query_log.since(since, limit=MAX_ROWS) if r.at < until}
    thumbs = ledger.feedback.since(since, limit=MAX_ROWS)
    disliked = {f.request_id for f in thumbs if f.rating < 0}
    for request_id in disliked - rows.keys():  # older than the newest rows of a busy week
        row = ledger.query_log.get(request_id)
        if row is not None and since <= row.at < until:
            rows[request_id] = row
    return list(rows.values()), disliked


def _hash(row: QueryLogRow) -> float:
    """Return a number of [0, 1)."""
    return int(identity.digest("sample", row.trace_id or row.request_id)[:13], 16) / 16**13


class _Passages:
    """Reads the passages of logged answers again."""

    def __init__(self, settings: Settings, ledger: Ledger, stores: Mapping[str, VectorStore] | None) -> None:
        self._settings, self._ledger = settings, ledger
        self._stores = OpenStores(settings, stores)
        self._releases: dict[str, Release | None] = {}
        self._embedders: dict[str, Embedder] = {}

    async def __aenter__(self) -> _Passages:
        return self

    async def __aexit__(self, *_: object) -> None:
        for embedder in self._embedders.values():
            await embedder.aclose()
        await self._stores.aclose()

    async def release(self, release_id: str) -> Release | None:
        """Return a release whose index is still there."""
        if release_id not in self._releases:
            self._releases[release_id] = await asyncio.to_thread(self._ledger.releases.get, release_id)
        return self._releases[release_id]

    async def of(self, row: QueryLogRow, release: Release) -> tuple[str, ...] | None:
        """Return what the generator was given; None when it is no longer all there."""
        wanted = [d.chunk_id for d in sorted(row.documents, key=lambda d: d.rank)]
        if not wanted:
            return ()
        store = self._stores.get(release.store)
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                hits = {h.chunk_id: h for h in await store.get(release.index_name, wanted, row.principal)}
        except TimeoutError as e:
            raise DependencyTimeout(f"vector_store:{release.store}", f"no answer within {STORE_TIMEOUT_S:g} s") from e
        if any(chunk_id not in hits for chunk_id in wanted):
            return None
        return await asyncio.to_thread(self._compressed, [hits[c] for c in wanted], row, release)

    def _compressed(self, hits: list[Hit], row: QueryLogRow, release: Release) -> tuple[str, ...]:
        profile = PROFILES.get(row.profile, PROFILES[self._settings.profile])
        if release.release_id not in self._embedders:
            self._embedders[release.release_id] = embedder_of(release, self._settings)
        tokenizer = self._embedders[release.release_id].tokenizer
        return tuple(p.text for p in compress(hits, tokenizer, k=profile.k, token_budget=profile.context_tokens))
