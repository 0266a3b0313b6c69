"""all-MiniLM-L6-v2 on this machine, through onnxruntime: no server, no key, no download."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_platform.backends.embedders import minilm_build
from rag_platform.backends.embedders.base import EmbedderSpec, TextKind
from rag_platform.backends.embedders.tokenizers import HuggingFaceTokenizer
from rag_platform.backends.onnx_sessions import OnnxSessions, worker_count
from rag_platform.errors import ConfigurationError, DependencyError, DependencyTimeout
from rag_platform.identity import fingerprint
from rag_platform.records import EmbeddingBatch
from rag_platform.settings import Settings as PlatformSettings
from rag_platform.settings import setting

if TYPE_CHECKING:
    import onnxruntime

Float32 = np.ndarray[Any, np.dtype[np.float32]]

NAME = "onnx_minilm"
PREFIX = "RAG_ONNX_"
_DEPENDENCY = f"embedder:{NAME}"


@dataclass(frozen=True)
class Settings:
    """``RAG_ONNX_…``"""

    model_dir: Path | None = setting(
        None,
        "Folder with model.onnx, tokenizer.json and config.json of another mean-pooled sentence encoder.",
    )
    max_tokens: int = setting(256, "Longest text that the model of RAG_ONNX_MODEL_DIR embeds whole.")


SPECIAL_TOKENS = 2
"""[CLS] and [SEP] around each text: not counted, as in ``Tokenizer.count``."""


class OnnxMiniLMEmbedder:
    """Sentence vectors of a small BERT: mean of the token vectors, unit length.

    Each text is run by itself (no padding, so a vector depends on its text alone) in a session that is
    shared by the process (``OnnxSessions``). Safe to share between threads and event loops.
    """

    def __init__(self, settings: PlatformSettings) -> None:
        self._own = settings.vendor(Settings, PREFIX)
        folder = self._own.model_dir
        if folder is None:
            self._sessions = packaged_sessions(settings)
        else:
            self._sessions = OnnxSessions(lambda: folder / "model.onnx", worker_count(settings))

    @cached_property
    def spec(self) -> EmbedderSpec:
        folder = self._own.model_dir
        if folder is None:
            model, dimensions, max_tokens = minilm_build.MODEL, minilm_build.DIMENSIONS, minilm_build.MAX_TOKENS
            build = {"recipe": minilm_build.RECIPE, "source": minilm_build.SOURCE_SHA256}
        else:
            model, max_tokens = folder.name, self._own.max_tokens
            dimensions = _hidden_size(folder)
            build = {"size": str(_stat_size(folder / "model.onnx"))}
        return EmbedderSpec(
            name=NAME,
            model=model,
            fingerprint=fingerprint(
                NAME, {"model": model, "dimensions": dimensions, "max_tokens": max_tokens, "pooling": "mean", **build}
            ),
            dimensions=dimensions,
            max_tokens=max_tokens,
            batch_size=64,
            concurrency=2,
            usd_per_million_tokens=0.0,
        )

    @cached_property
    def tokenizer(self) -> HuggingFaceTokenizer:
        folder = self._own.model_dir
        return HuggingFaceTokenizer(minilm_build.TOKENIZER if folder is None else folder / "tokenizer.json")

    async def embed(
        self, texts: Sequence[str], *, kind: TextKind = "passage", timeout_s: float | None = None
    ) -> EmbeddingBatch:
        """Embed any number of texts; those longer than ``spec.max_tokens`` are cut.

        Raises:
            DependencyTimeout: not done within ``timeout_s`` seconds.
            DependencyError: onnxruntime failed.
            ConfigurationError: the model cannot be built or read.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._embed(list(texts))
        except TimeoutError as e:
            raise DependencyTimeout(_DEPENDENCY, f"{len(texts)} texts took longer than {timeout_s:g} s") from e

    async def ping(self) -> None:
        await self.embed(["ping"])

    async def aclose(self) -> None:
        """Free the sessions and threads, unless others use them. A later call opens them anew."""
        await self._sessions.aclose()

    async def _embed(self, texts: list[str]) -> EmbeddingBatch:
        def run(session: onnxruntime.InferenceSession, text: str) -> tuple[Float32, int]:
            (row,) = self.tokenizer.ids([text], self.spec.max_tokens)
            return pooled(token_states(session, row, _DEPENDENCY), _DEPENDENCY), len(row) - SPECIAL_TOKENS

        found = await self._sessions.map(run, texts)
        vectors = np.empty((len(texts), self.spec.dimensions), dtype=np.float32)
        for i, (vector, _) in enumerate(found):
            vectors[i] = vector
        return EmbeddingBatch(vectors=vectors, tokens=sum(tokens for _, tokens in found))


def packaged_sessions(settings: PlatformSettings) -> OnnxSessions:
    """Return a share in the sessions of the packaged MiniLM; does no I/O."""
    folders = [settings.resolved_cache_dir, settings.root / "cache"]
    # The graph is fused by hand: more fusing makes its layer norms slower.
    return OnnxSessions(lambda: minilm_build.cached_model(folders), worker_count(settings), fuse=False)


def token_states(session: onnxruntime.InferenceSession, ids: Sequence[int], dependency: str) -> Float32:
    """Run one text; returns the last hidden state of each of its tokens, float32 (tokens, dimensions).

    Raises:
        DependencyError: onnxruntime failed; names ``dependency``.
    """
    row = np.array([ids], dtype=np.int64)
    feeds = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
    try:
        (hidden, *_) = session.run(None, {i.name: feeds[i.name] for i in session.get_inputs()})
    except Exception as e:  # onnxruntime's errors share no base class
        raise DependencyError(dependency, f"onnxruntime failed: {type(e).__name__}") from e
    states: Float32 = hidden[0]
    return states


def pooled(states: Float32, dependency: str) -> Float32:
    """Return the unit vector of the mean of ``states``, float32 (dimensions,).

    Raises:
        DependencyError: the mean has no direction; names ``dependency``.
    """
    mean: Float32 = states.mean(axis=0, dtype=np.float32)
    norm = float(np.linalg.norm(mean))
    if not np.isfinite(norm) or norm == 0:
        raise DependencyError(dependency, "the model returned a vector without direction", retryable=False)
    return mean / np.float32(norm)


def _hidden_size(folder: Path) -> int:
    try:
        return int(json.loads((folder / "config.json").read_text())["hidden_size"])
    except (OSError, ValueError, KeyError) as e:
        raise ConfigurationError(
            f"RAG_ONNX_MODEL_DIR: {folder} needs model.onnx, tokenizer.json and a config.json with hidden_size"
        ) from e


def _stat_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as e:
        raise ConfigurationError(f"RAG_ONNX_MODEL_DIR: {path} does not exist") from e


def build(settings: PlatformSettings) -> OnnxMiniLMEmbedder:
    """Build the embedder; does no I/O."""
    return OnnxMiniLMEmbedder(settings)
