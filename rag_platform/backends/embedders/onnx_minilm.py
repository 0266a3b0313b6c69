"""all-MiniLM-L6-v2 on this machine, through onnxruntime: no server, no key, no download."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_platform.backends.embedders import minilm_build
from rag_platform.backends.embedders.base import EmbedderSpec, TextKind
from rag_platform.backends.embedders.tokenizers import HuggingFaceTokenizer
from rag_platform.errors import ConfigurationError, DependencyError, DependencyTimeout
from rag_platform.identity import fingerprint
from rag_platform.records import EmbeddingBatch
from rag_platform.settings import Settings as PlatformSettings
from rag_platform.settings import setting

if TYPE_CHECKING:
    import onnxruntime

Float32 = np.ndarray[Any, np.dtype[np.float32]]

NAME = "onnx_minilm"
_DEPENDENCY = f"embedder:{NAME}"
_TOKENIZER = Path(__file__).parent / "data" / "minilm_tokenizer.json"
_TEXTS_A_TASK = 8
"""Texts between two looks at the deadline, and between which another caller's turn may come."""


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

    Each text is run by itself (no padding, so a vector depends on its text alone), each worker thread
    has a session of its own with one thread: onnxruntime leaves Python's lock while it computes, so
    workers scale with the cores. Safe to share between threads and event loops.
    """

    def __init__(self, settings: PlatformSettings) -> None:
        self._settings = settings
        self._own = settings.vendor(Settings, "RAG_ONNX_")
        self._workers = settings.embed_workers or min(settings.cores, 4)
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._idle: queue.SimpleQueue[onnxruntime.InferenceSession] = queue.SimpleQueue()
        self._model_path: Path | None = None

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
        return HuggingFaceTokenizer(_TOKENIZER if folder is None else folder / "tokenizer.json")

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
        """Free the sessions and threads. A later call opens them anew."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown)
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait()

    async def _embed(self, texts: list[str]) -> EmbeddingBatch:
        vectors = np.empty((len(texts), self.spec.dimensions), dtype=np.float32)
        tokens = [0] * len(texts)
        starts: Iterator[int] = iter(range(0, len(texts), _TEXTS_A_TASK))
        loop = asyncio.get_running_loop()

        def run(start: int) -> None:
            part = slice(start, start + _TEXTS_A_TASK)
            rows = self.tokenizer.ids(texts[part], self.spec.max_tokens)
            with self._session() as session:
                for i, row in enumerate(rows, start):
                    vectors[i] = _vector(session, row)
                    tokens[i] = len(row) - SPECIAL_TOKENS

        async def worker() -> None:
            for start in starts:
                await loop.run_in_executor(self._executor(), run, start)

        workers = [asyncio.ensure_future(worker()) for _ in range(min(self._workers, -(-len(texts) // _TEXTS_A_TASK)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for task in workers:
                task.cancel()
        return EmbeddingBatch(vectors=vectors, tokens=sum(tokens))

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix=NAME)
            return self._pool

    @contextlib.contextmanager
    def _session(self) -> Iterator[onnxruntime.InferenceSession]:
        """Lend a session that nobody else is using; at most one a worker thread ever exists."""
        try:
            session = self._idle.get_nowait()
        except queue.Empty:
            session = self._open()
        try:
            yield session
        finally:
            self._idle.put(session)

    def _open(self) -> onnxruntime.InferenceSession:
        with self._lock:
            if self._model_path is None:
                self._model_path = self._locate()
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if self._own.model_dir is None:
            # The graph is fused by hand: more fusing makes its layer norms slower.
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        try:
            return ort.InferenceSession(str(self._model_path), options, providers=["CPUExecutionProvider"])
        except Exception as e:  # onnxruntime's errors share no base class
            raise ConfigurationError(f"cannot open the embedding model {self._model_path}: {type(e).__name__}") from e

    def _locate(self) -> Path:
        if self._own.model_dir is not None:
            return self._own.model_dir / "model.onnx"
        return minilm_build.cached_model([self._settings.resolved_cache_dir, self._settings.root / "cache"])


def _vector(session: onnxruntime.InferenceSession, ids: list[int]) -> Float32:
    """Run one text; returns its unit vector, float32 (dimensions,)."""
    row = np.array([ids], dtype=np.int64)
    feeds = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
    try:
        (hidden, *_) = session.run(None, {i.name: feeds[i.name] for i in session.get_inputs()})
    except Exception as e:  # onnxruntime's errors share no base class
        raise DependencyError(_DEPENDENCY, f"onnxruntime failed: {type(e).__name__}") from e
    mean: Float32 = hidden[0].mean(axis=0, dtype=np.float32)
    norm = float(np.linalg.norm(mean))
    if not np.isfinite(norm) or norm == 0:
        raise DependencyError(_DEPENDENCY, "the model returned a vector without direction", retryable=False)
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
