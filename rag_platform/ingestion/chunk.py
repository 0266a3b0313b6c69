"""The chunk step: which chunker, its fingerprint, and the chunks of one document."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from rag_platform.backends.embedders.base import Embedder, EmbedderSpec, Tokenizer
from rag_platform.errors import ConfigurationError
from rag_platform.ingestion import chunkers
from rag_platform.ingestion.chunkers.base import Chunker, ChunkerOptions, Embed
from rag_platform.records import ChunkSpan, ParsedDocument
from rag_platform.settings import Settings


def chunk_document(document: ParsedDocument, chunker: Chunker, tokenizer: Tokenizer) -> list[ChunkSpan]:
    """Return the chunks of a document; none when it holds only white space."""
    if not document.text or document.text.isspace():
        return []
    return chunker.chunk(document, tokenizer)


def build_chunker(settings: Settings, embedder: Embedder, embed: Embed | None = None) -> Chunker:
    """Return the configured chunker. Does no I/O.

    Args:
        embedder: whose tokens are counted.
        embed: synchronous embedding for the ``semantic`` strategy; by default ``embedder`` itself,
            driven from a thread of its own.

    Raises:
        ConfigurationError: unknown strategy, or a chunk size that the embedder would cut off.
    """
    return _build(settings, embedder.spec, embed or BlockingEmbed(embedder))


def chunker_fingerprint(settings: Settings, spec: EmbedderSpec) -> str:
    """Return what ``build_chunker`` would give as ``fingerprint``, without an embedder."""
    return _build(settings, spec, None).fingerprint


class BlockingEmbed:
    """Calls an asynchronous embedder from synchronous code, on one event loop in a thread of its own
    that starts with the first call: clients may keep connections that belong to their loop.

    Args:
        embedder: not closed by this class.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __call__(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Embed; float32, shape (texts, dimensions). Raises what ``Embedder.embed`` raises."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="chunker-embed", daemon=True).start()
            loop = self._loop
        return asyncio.run_coroutine_threadsafe(self._embedder.embed(texts), loop).result().vectors


def _build(settings: Settings, spec: EmbedderSpec, embed: Embed | None) -> Chunker:
    if settings.chunk_tokens > spec.max_tokens:
        raise ConfigurationError(
            f"RAG_CHUNK_TOKENS: {settings.chunk_tokens} tokens are more than {spec.name} reads at once "
            f"({spec.max_tokens}); the rest of each chunk would not be searchable"
        )
    options = ChunkerOptions(
        chunk_tokens=settings.chunk_tokens,
        overlap_tokens=settings.chunk_overlap_tokens,
        tokenizer=f"{spec.name}:{spec.model}",
        embed=embed,
        embedder=spec.fingerprint,
    )
    chunker: Chunker = _strategy(settings.chunker).build(options)
    return chunker


def _strategy(name: str) -> ModuleType:
    known = sorted(m.name for m in pkgutil.iter_modules(chunkers.__path__) if m.name not in chunkers.SHARED)
    if name not in known:
        raise ConfigurationError(f"RAG_CHUNKER: unknown strategy {name!r}; known: {', '.join(known)}")
    return importlib.import_module(f"{chunkers.__name__}.{name}")
