"""Windows of a fixed number of tokens, cut between words, structure ignored."""

from __future__ import annotations

from rag_platform import identity
from rag_platform.backends.embedders.base import Tokenizer
from rag_platform.ingestion.chunkers.base import ChunkerOptions
from rag_platform.ingestion.chunkers.sections import HeadingPaths, sections_of
from rag_platform.ingestion.chunkers.sentences import last_word_start
from rag_platform.ingestion.chunkers.spans import Span, TokenIndex, finish
from rag_platform.records import ChunkSpan, ParsedDocument

VERSION = 1


class FixedChunker:
    """Cuts every ``chunk_tokens`` tokens; neighbours share ``overlap_tokens``.

    Args:
        options: sizes and tokenizer.
    """

    def __init__(self, options: ChunkerOptions) -> None:
        self._limit = options.chunk_tokens
        self._overlap = options.overlap_tokens
        self.fingerprint = identity.fingerprint(
            "chunker:fixed",
            {
                "version": VERSION,
                "tokens": options.chunk_tokens,
                "overlap": options.overlap_tokens,
                "tokenizer": options.tokenizer,
            },
        )

    def chunk(self, document: ParsedDocument, tokenizer: Tokenizer) -> list[ChunkSpan]:
        """Return the chunks of a document."""
        index = TokenIndex(document.text, tokenizer)
        spans: list[Span] = []
        start, length = 0, len(document.text)
        while start < length:
            end = self._end(index, start, spans[-1][1] if spans else 0)
            spans.append((start, end))
            if end >= length:
                break
            start = max(index.overlap_start(end, self._overlap), start + 1)
        return finish(document, index, tokenizer, spans, self._limit, HeadingPaths(sections_of(document)))

    def _end(self, index: TokenIndex, start: int, previous_end: int) -> int:
        """Return where the chunk that starts at ``start`` ends: where a word starts, if one does
        after the end of the previous chunk."""
        position = index.position(index.size(0, start) + self._limit)
        if position >= len(index.text):
            return len(index.text)
        return last_word_start(index.text, max(start, previous_end), position) or max(position, start + 1)


def build(options: ChunkerOptions) -> FixedChunker:
    """Return the chunker."""
    return FixedChunker(options)
