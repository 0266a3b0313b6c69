"""Cuts where the meaning changes: neighbouring sentences are embedded and compared.

Each sentence is embedded together with its neighbours (a window of three); where the cosine distance
between one window and the next is in the top tenth of the document, a new chunk starts. A stretch
without such a place is cut at its largest distance. Embedding costs about three times the text, so the
number of windows is bounded: in a long document, neighbouring sentences are taken together.
"""

from __future__ import annotations

import bisect
from typing import Any

import numpy as np

from rag_platform import identity
from rag_platform.backends.embedders.base import Tokenizer
from rag_platform.errors import ConfigurationError
from rag_platform.ingestion.chunkers.base import ChunkerOptions, Embed
from rag_platform.ingestion.chunkers.sections import HeadingPaths, sections_of
from rag_platform.ingestion.chunkers.spans import Span, TokenIndex, finish
from rag_platform.ingestion.chunkers.structure import Structure
from rag_platform.records import ChunkSpan, ParsedDocument

VERSION = 1

PERCENTILE = 90.0
"""A distance above this percentile of the document's distances starts a new chunk."""
MAX_WINDOWS = 4000
_BATCH = 64
_PIECES_PER_CHUNK = 8


class SemanticChunker:
    """Cuts at the largest changes of meaning.

    Args:
        options: sizes, tokenizer and the embedding function.
    """

    def __init__(self, options: ChunkerOptions) -> None:
        self._limit = options.chunk_tokens
        self._embed = options.embed
        self.fingerprint = identity.fingerprint(
            "chunker:semantic",
            {
                "version": VERSION,
                "tokens": options.chunk_tokens,
                "tokenizer": options.tokenizer,
                "embedder": options.embedder,
                "percentile": PERCENTILE,
            },
        )

    def chunk(self, document: ParsedDocument, tokenizer: Tokenizer) -> list[ChunkSpan]:
        """Return the chunks of a document. Raises what the embedder raises."""
        if self._embed is None:
            raise ConfigurationError("RAG_CHUNKER=semantic needs an embedder to compare sentences")
        index = TokenIndex(document.text, tokenizer)
        positions = self._pieces(document, index)
        sizes = index.sizes_at(positions)
        distances = self._distances(document.text, positions, self._embed)
        threshold = float(np.percentile(distances, PERCENTILE)) if len(distances) else 0.0
        spans: list[Span] = []
        i, last = 0, len(positions) - 1
        while i < last:
            k = self._next_cut(sizes, distances, threshold, i)
            spans.append((positions[i], positions[k]))
            i = k
        return finish(document, index, tokenizer, spans, self._limit, HeadingPaths(sections_of(document)))

    def _pieces(self, document: ParsedDocument, index: TokenIndex) -> list[int]:
        """Return the boundaries of the sentences that are compared, at most ``MAX_WINDOWS`` of them
        where chunks of the allowed size can still be made of fewer."""
        structure = Structure(document)
        end = len(document.text)
        finest = max(self._limit // _PIECES_PER_CHUNK, 1)
        positions, _ = structure.boundaries(index, 0, end, finest)
        sizes = index.sizes_at(positions)
        grain = min(max(finest, sizes[-1] // MAX_WINDOWS), self._limit)
        kept = [0]
        for i in range(1, len(positions) - 1):
            if sizes[i + 1] - sizes[bisect.bisect_left(positions, kept[-1])] > grain:
                kept.append(positions[i])
        return [*kept, end]

    @staticmethod
    def _distances(text: str, positions: list[int], embed: Embed) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the cosine distance at each inner boundary; shape (pieces - 1,)."""
        pieces = len(positions) - 1
        if pieces < 2:
            return np.zeros(0, np.float32)
        windows = [text[positions[max(i - 1, 0)] : positions[min(i + 2, pieces)]].strip() for i in range(pieces)]
        full = [i for i, window in enumerate(windows) if window]
        vectors: np.ndarray[Any, np.dtype[np.float32]] | None = None
        for start in range(0, len(full), _BATCH):
            batch = full[start : start + _BATCH]
            found = embed([windows[i] for i in batch])
            if vectors is None:
                vectors = np.zeros((pieces, found.shape[1]), np.float32)
            vectors[batch] = found
        if vectors is None:
            return np.zeros(pieces - 1, np.float32)
        distances: np.ndarray[Any, np.dtype[np.float32]] = 1.0 - np.einsum("ij,ij->i", vectors[:-1], vectors[1:])
        return distances

    def _next_cut(
        self, sizes: list[int], distances: np.ndarray[Any, np.dtype[np.float32]], threshold: float, i: int
    ) -> int:
        """Return the boundary at which the chunk that starts at boundary ``i`` ends. ``distances[k - 1]``
        belongs to boundary ``k``."""
        last = len(sizes) - 1
        high = max(bisect.bisect_right(sizes, sizes[i] + self._limit, i + 1) - 1, i + 1)
        low = min(bisect.bisect_left(sizes, sizes[i] + self._limit // 4, i + 1, high + 1), high)
        inner = min(high, last - 1)
        for k in range(low, inner + 1):
            if distances[k - 1] > threshold:
                return k
        if high == last:
            return last
        return low + int(np.argmax(distances[low - 1 : high]))


def build(options: ChunkerOptions) -> SemanticChunker:
    """Return the chunker.

    Raises:
        ConfigurationError: an overlap was asked for, which would blur the cuts.
    """
    if options.overlap_tokens:
        raise ConfigurationError("RAG_CHUNKER=semantic cuts between meanings: set RAG_CHUNK_OVERLAP_TOKENS=0")
    return SemanticChunker(options)
