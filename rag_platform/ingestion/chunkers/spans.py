"""Token arithmetic on character spans, and the last step that all strategies share.

A document is tokenised once; the tokens of a span are then counted by bisecting the token starts.
That is exact where a span begins and ends at white space or punctuation, which is where a word-piece
tokenizer always ends a token. ``finish`` counts anew the spans for which it might not be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from rag_platform.backends.embedders.base import Tokenizer
from rag_platform.records import ChunkSpan, ParsedDocument

Span = tuple[int, int]
Ints = np.ndarray[Any, np.dtype[np.int64]]

MAX_CHARS_PER_TOKEN = 10
"""A stretch without tokens (blank lines, one endless word that the tokenizer gives up on) counts one
token for so many characters, so that every chunk is bounded in characters too."""

_WINDOW = 65_536
"""Characters tokenised at a time: memory stays flat, whatever the document."""
# Not \s: the control characters in it are dropped by word-piece tokenizers, so words join across them.
_EDGE = re.compile(r"[ \t\n\r\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000。！？；，、…]")
_WORD_START = re.compile(r"(?<=\s)(?=\S)")
_NEAR_LIMIT = 2
_COUNT_BATCH = 256


class TokenIndex:
    """The tokens of one text.

    Args:
        text: the whole document.
        tokenizer: asked once for the offsets of each window of the text.
    """

    def __init__(self, text: str, tokenizer: Tokenizer) -> None:
        self.text = text
        starts, ends = _tokenise(text, tokenizer)
        self._starts = starts
        self._weights = _weights(starts, ends, len(text))

    def count(self, start: int, end: int) -> int:
        """Return how many tokens start in ``[start, end)``."""
        first, last = np.searchsorted(self._starts, (start, end))
        return int(last - first)

    def sizes_at(self, positions: Sequence[int]) -> list[int]:
        """Return for each position how much text precedes it: tokens, plus what long stretches
        without tokens count. The size of a span is the difference of its two ends."""
        result: list[int] = np.searchsorted(self._weights, np.asarray(positions, dtype=np.int64)).tolist()
        return result

    def size(self, start: int, end: int) -> int:
        """Return the size of one span, at least its token count."""
        first, last = np.searchsorted(self._weights, (start, end))
        return int(last - first)

    def position(self, size: int) -> int:
        """Return the character position that ``size`` tokens precede; the text's length past the end."""
        return int(self._weights[size]) if size < len(self._weights) else len(self.text)

    def overlap_start(self, position: int, overlap: int) -> int:
        """Return the first start of a word such that at most ``overlap`` tokens lie between it and
        ``position``; ``position`` when there is none."""
        if not overlap:
            return position
        earliest = self.position(max(self.size(0, position) - overlap, 0))
        match = _WORD_START.search(self.text, earliest, position)
        return match.start() if match else position


def _tokenise(text: str, tokenizer: Tokenizer) -> tuple[Ints, Ints]:
    parts: list[np.ndarray[Any, np.dtype[np.int32]]] = []
    start = 0
    while start < len(text):
        end = min(len(text), start + _WINDOW)
        if end < len(text):  # end the window at white space where there is some
            cut = max(text.rfind("\n", start, end), text.rfind(" ", start, end))
            end = cut + 1 if cut > start else end
        offsets = tokenizer.offsets(text[start:end] if (start, end) != (0, len(text)) else text)
        parts.append(offsets + np.int32(start))
        start = end
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    both = np.concatenate(parts).astype(np.int64)
    both = both[both[:, 1] > both[:, 0]]
    return both[:, 0].copy(), both[:, 1].copy()


def _weights(starts: Ints, ends: Ints, length: int) -> Ints:
    """Return the token starts with marks added every ``MAX_CHARS_PER_TOKEN`` characters of a stretch
    (token or gap) that is longer than that by far."""
    edges = np.concatenate(([0], starts, [length]))
    long = np.flatnonzero(np.diff(edges) > 3 * MAX_CHARS_PER_TOKEN)
    if not len(long):
        return starts
    marks = [np.arange(edges[i] + MAX_CHARS_PER_TOKEN, edges[i + 1], MAX_CHARS_PER_TOKEN) for i in long]
    return np.sort(np.concatenate([starts, *marks]))


def trim(text: str, start: int, end: int) -> Span:
    """Return the span without outer white space; empty (start == end) when it holds nothing else."""
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    right = len(piece.rstrip())
    return (start + left, start + right) if right > left else (start, start)


def finish(
    document: ParsedDocument,
    index: TokenIndex,
    tokenizer: Tokenizer,
    spans: Iterable[Span],
    limit: int,
    heading_path: Callable[[int, int], tuple[str, ...]],
) -> list[ChunkSpan]:
    """Trim and number the spans, record page and headings, and hold every one to the limit.

    Args:
        spans: sorted, covering all text that is not white space.
        limit: most tokens of a chunk; a longer span is halved until it fits.
        heading_path: names the headings above a span.
    """
    trimmed = [span for span in (trim(document.text, *span) for span in spans) if span[1] > span[0]]
    counted = _hold_to_limit(document.text, index, tokenizer, trimmed, limit)
    page_starts = [e.start for e in document.elements if e.page is not None]
    pages = [e.page for e in document.elements if e.page is not None]
    chunks = []
    for ordinal, (start, end, tokens) in enumerate(counted):
        page = None
        if pages:
            # The page of the element that holds the start, else of the first one after it.
            before = int(np.searchsorted(page_starts, start, side="right")) - 1
            page = pages[max(before, 0)]
        chunks.append(ChunkSpan(ordinal, start, end, tokens, page, heading_path(start, end)))
    return chunks


def _hold_to_limit(
    text: str, index: TokenIndex, tokenizer: Tokenizer, spans: Sequence[Span], limit: int
) -> list[tuple[int, int, int]]:
    done: list[tuple[int, int, int]] = []
    doubtful: list[Span] = []
    for start, end in spans:
        tokens = index.count(start, end)
        if tokens > limit - _NEAR_LIMIT or not (_is_edge(text, start) and _is_edge(text, end)):
            doubtful.append((start, end))
        else:
            done.append((start, end, tokens))
    while doubtful:
        counts: list[int] = []
        for i in range(0, len(doubtful), _COUNT_BATCH):
            counts += tokenizer.count([text[start:end] for start, end in doubtful[i : i + _COUNT_BATCH]])
        halves: list[Span] = []
        for (start, end), tokens in zip(doubtful, counts, strict=True):
            if tokens <= limit or end - start == 1:
                done.append((start, end, tokens))
            else:
                halves.extend(span for span in _halve(text, start, end) if span[1] > span[0])
        doubtful = halves
    kept: list[tuple[int, int, int]] = []
    for span in sorted(done):
        # Where chunks overlap, halving one of them can leave a piece that lies within its neighbour.
        if not kept or span[1] > kept[-1][1]:
            kept.append(span)
    return kept


def _is_edge(text: str, position: int) -> bool:
    """Tell whether every tokenizer of words ends a token here."""
    return position in (0, len(text)) or bool(_EDGE.match(text, position) or _EDGE.match(text, position - 1))


def _halve(text: str, start: int, end: int) -> tuple[Span, Span]:
    middle = (start + end) // 2
    space = max(text.rfind(mark, start + 1, middle) for mark in (" ", "\n"))
    cut = space if space > start + (end - start) // 4 else middle
    return trim(text, start, cut), trim(text, cut, end)
