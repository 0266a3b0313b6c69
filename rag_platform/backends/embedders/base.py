"""What an embedder promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from rag_platform.records import EmbeddingBatch

TextKind = Literal["passage", "query"]


class Tokenizer(Protocol):
    """Counts and locates tokens as the embedder will see them. Thread-safe."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, special tokens not counted."""
        ...

    def offsets(self, text: str) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Return int32 (tokens, 2): start and end character offset of each token of ``text``."""
        ...


@dataclass(frozen=True, slots=True)
class EmbedderSpec:
    """What an embedder is, as data.

    Attributes:
        name: vendor file name, ``onnx_minilm`` or ``openai_compatible``.
        model: model name, as in the embedding key.
        fingerprint: changes whenever the vectors would (model, build, dimensions, prefix, pooling).
        dimensions: length of a vector.
        max_tokens: longest text that is embedded whole.
        batch_size: texts in one call that suits it best.
        concurrency: calls it takes at the same time.
        usd_per_million_tokens: price, 0 for a local model, None when unknown.
    """

    name: str
    model: str
    fingerprint: str
    dimensions: int
    max_tokens: int
    batch_size: int
    concurrency: int
    usd_per_million_tokens: float | None


class Embedder(Protocol):
    """Turns texts into unit vectors. Asynchronous; construction does no I/O."""

    @property
    def spec(self) -> EmbedderSpec: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    async def embed(
        self, texts: Sequence[str], *, kind: TextKind = "passage", timeout_s: float | None = None
    ) -> EmbeddingBatch:
        """Embed a batch; one vector a text, in order, finite, unit length.

        Retries what can be retried inside ``timeout_s`` (seconds in total, waits included).

        Raises:
            DependencyError: the service is down, slow, limits us or answers nonsense.
            EmbeddingRefused: the service refuses this batch for its content; the caller bisects.
        """
        ...

    async def ping(self) -> None:
        """Embed one short text; raises what ``embed`` raises."""
        ...

    async def aclose(self) -> None: ...
