"""Embeds many texts so that a bad text costs itself only, and an outage costs nothing but time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rag_platform.backends.embedders.base import Embedder
from rag_platform.errors import DependencyError, DocumentError, EmbeddingRefused

Float32 = np.ndarray[Any, np.dtype[np.float32]]
Item = tuple[str, str]


@dataclass(slots=True)
class EmbedOutcome:
    """What came of it. A key that is in neither ``vectors`` nor ``refused`` is still to do.

    Attributes:
        vectors: key → float32 (dimensions,), unit length.
        tokens: tokens that the embedder counted.
        calls: calls of the embedder, probes included.
        refused: key → why the embedder will not take this one text.
        outage: what stopped the work, or None when all was tried.
    """

    vectors: dict[str, Float32] = field(default_factory=dict)
    tokens: int = 0
    calls: int = 0
    refused: dict[str, DocumentError] = field(default_factory=dict)
    outage: DependencyError | None = None


async def embed_texts(
    embedder: Embedder,
    items: Sequence[Item],
    *,
    timeout_s: float,
    on_batch: Callable[[Mapping[str, Float32]], None] | None = None,
) -> EmbedOutcome:
    """Embed (key, text) items, longest first, in batches of the embedder's size and concurrency.

    Args:
        timeout_s: deadline of one call, in seconds.
        on_batch: told the vectors of each success as it comes.

    A refused batch is bisected down to the texts that cause it. At the first ``DependencyError`` no
    new batch is begun, those in flight are finished, and the outcome says so.

    Raises:
        ConfigurationError: the embedder cannot work as configured.
    """
    work = _Work(embedder, items, timeout_s, on_batch)
    tasks = [asyncio.ensure_future(work.run()) for _ in range(max(1, embedder.spec.concurrency))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return work.outcome


class _Work:
    def __init__(
        self,
        embedder: Embedder,
        items: Sequence[Item],
        timeout_s: float,
        on_batch: Callable[[Mapping[str, Float32]], None] | None,
    ) -> None:
        self.outcome = EmbedOutcome()
        self._embedder = embedder
        # Neighbours of like length pad least; the longest first, so that the end is short calls.
        self._waiting = sorted(dict(items).items(), key=lambda item: (len(item[1]), item[0]))
        self._size = max(1, embedder.spec.batch_size)
        self._timeout_s = timeout_s
        self._on_batch = on_batch

    async def run(self) -> None:
        """Take batches until there are none, or the embedder is down."""
        try:
            while self._waiting and self.outcome.outage is None:
                batch = [self._waiting.pop() for _ in range(min(self._size, len(self._waiting)))]
                await self._batch(batch)
        except DependencyError as e:
            if self.outcome.outage is None:
                self.outcome.outage = e

    async def _batch(self, batch: list[Item]) -> None:
        refusal = await self._try(batch)
        if refusal is None:
            return
        # A service may refuse everything because it is broken or misconfigured. Nothing is a
        # text's own fault until a harmless text is accepted.
        await self._probe()
        refused: dict[str, DocumentError] = {}
        accepted = await self._bisect(batch, refusal, refused)
        if not accepted:
            await self._probe()
        if not refused:
            # All were fine in smaller batches: it was the size.
            self._size = max(1, min(self._size, len(batch) // 2))
        self.outcome.refused.update(refused)

    async def _bisect(self, batch: list[Item], refusal: EmbeddingRefused, refused: dict[str, DocumentError]) -> int:
        """Find the culprits of a refused batch; returns how many texts were accepted."""
        if len(batch) == 1:
            refused[batch[0][0]] = refusal
            return 0
        middle = len(batch) // 2
        accepted = 0
        for half in (batch[:middle], batch[middle:]):
            again = await self._try(half)
            accepted += len(half) if again is None else await self._bisect(half, again, refused)
        return accepted

    async def _try(self, batch: list[Item]) -> EmbeddingRefused | None:
        """Embed and keep a batch, or return its refusal."""
        self.outcome.calls += 1
        try:
            embedded = await self._embedder.embed([text for _, text in batch], timeout_s=self._timeout_s)
        except EmbeddingRefused as e:
            return e
        vectors = {key: embedded.vectors[i] for i, (key, _) in enumerate(batch)}
        self.outcome.vectors.update(vectors)
        self.outcome.tokens += embedded.tokens
        if self._on_batch is not None:
            self._on_batch(vectors)
        return None

    async def _probe(self) -> None:
        self.outcome.calls += 1
        try:
            await self._embedder.ping()
        except EmbeddingRefused as e:
            name = self._embedder.spec.name
            raise DependencyError(f"embedder:{name}", "refuses every text, also a harmless one") from e
