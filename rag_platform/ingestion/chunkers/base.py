"""What a chunking strategy promises.

A strategy is a module of this folder with ``VERSION`` (raise it when its output would change), the
class, and ``build(options) -> Chunker``. For every document and every strategy:

- a chunk's text is ``document.text[start:end]``, without outer white space and never empty;
- no character of the document that is not white space is missing from the chunks;
- chunks are numbered 0, 1, 2 …, sorted by start and by end; they share text only where an overlap was asked for;
- no chunk has more tokens than the limit, except a single character that alone has more;
- the same document gives the same chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rag_platform.backends.embedders.base import Tokenizer
from rag_platform.records import ChunkSpan, ParsedDocument

Embed = Callable[[Sequence[str]], np.ndarray[Any, np.dtype[np.float32]]]
"""Synchronous embedding of texts: float32, shape (texts, dimensions), L2-normalised."""


@dataclass(frozen=True, slots=True)
class ChunkerOptions:
    """What every strategy may be told.

    Attributes:
        chunk_tokens: largest chunk, in tokens.
        overlap_tokens: most tokens that neighbouring chunks share.
        tokenizer: name of the tokenizer whose tokens are meant, as in the fingerprint.
        embed: embeds sentences, for strategies that look at meaning.
        embedder: fingerprint of ``embed``.
    """

    chunk_tokens: int
    overlap_tokens: int
    tokenizer: str
    embed: Embed | None = None
    embedder: str | None = None


class Chunker(Protocol):
    """Cuts parsed documents. Synchronous; safe to call from threads."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the chunks of some document would."""
        ...

    def chunk(self, document: ParsedDocument, tokenizer: Tokenizer) -> list[ChunkSpan]:
        """Return the chunks of a document; none for a document of white space."""
        ...
