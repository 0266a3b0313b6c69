"""Vectors of single tokens, from the packaged MiniLM: what late interaction compares.

Always that model, whatever RAG_EMBEDDER is: a service that embeds gives no token vectors. Khattab and
Zaharia, "ColBERT: Efficient and Effective Passage Search via Contextualized Late Interaction over BERT",
SIGIR 2020, showed what token vectors are good for; MiniLM was not trained for it and is still good at it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_platform.backends.embedders import minilm_build
from rag_platform.backends.embedders.onnx_minilm import SPECIAL_TOKENS, packaged_sessions, pooled, token_states
from rag_platform.backends.embedders.tokenizers import HuggingFaceTokenizer
from rag_platform.errors import DependencyError, DependencyTimeout
from rag_platform.identity import fingerprint
from rag_platform.settings import Settings as PlatformSettings

if TYPE_CHECKING:
    import onnxruntime

Float32 = np.ndarray[Any, np.dtype[np.float32]]
Int32 = np.ndarray[Any, np.dtype[np.int32]]

_DEPENDENCY = "token_encoder:onnx_minilm"


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """One text as the model sees it; [CLS] and [SEP] left out of all but ``pooled``.

    Attributes:
        ids: int32 (tokens,), vocabulary ids.
        offsets: int32 (tokens, 2), start and end character of each token in the text.
        vectors: float32 (tokens, dimensions), contextual, unit length.
        pooled: float32 (dimensions,), unit length: the text's vector as the embedder makes it.
    """

    ids: Int32
    offsets: Int32
    vectors: Float32
    pooled: Float32


class TokenEncoder:
    """Encodes texts in the sessions that it shares with the local embedder. Construction does no I/O.
    Safe to share between threads and event loops."""

    dimensions = minilm_build.DIMENSIONS
    fingerprint = fingerprint(
        "token_encoder", {"recipe": minilm_build.RECIPE, "source": minilm_build.SOURCE_SHA256, "normalised": True}
    )

    def __init__(self, settings: PlatformSettings) -> None:
        self._sessions = packaged_sessions(settings)
        self._tokenizer = HuggingFaceTokenizer(minilm_build.TOKENIZER)

    async def encode(
        self, texts: Sequence[str], *, max_tokens: int = minilm_build.MAX_TOKENS, timeout_s: float | None = None
    ) -> list[TokenVectors]:
        """Encode each text, cut after ``max_tokens`` tokens ([CLS] and [SEP] counted, at most 512).

        Raises:
            DependencyTimeout: not done within ``timeout_s`` seconds.
            DependencyError: onnxruntime failed.
            ConfigurationError: the model cannot be built or read.
        """

        def run(session: onnxruntime.InferenceSession, text: str) -> TokenVectors:
            ids, offsets = self._tokenizer.ids_and_offsets(text, max_tokens)
            states = token_states(session, ids, _DEPENDENCY)
            inner = slice(1, len(ids) - SPECIAL_TOKENS + 1)
            return TokenVectors(
                ids=np.array(ids[inner], dtype=np.int32),
                offsets=np.ascontiguousarray(offsets[inner]),
                vectors=_unit(states[inner]),
                pooled=pooled(states, _DEPENDENCY),
            )

        try:
            async with asyncio.timeout(timeout_s):
                return await self._sessions.map(run, texts)
        except TimeoutError as e:
            raise DependencyTimeout(_DEPENDENCY, f"{len(texts)} texts took longer than {timeout_s:g} s") from e

    async def aclose(self) -> None:
        """Give up the sessions. A later call opens them anew."""
        await self._sessions.aclose()


def _unit(states: Float32) -> Float32:
    norms = np.linalg.norm(states, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or (norms == 0).any():
        raise DependencyError(_DEPENDENCY, "the model returned a vector without direction", retryable=False)
    unit: Float32 = states / norms
    return unit
