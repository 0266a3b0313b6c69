"""The default strategy: along the document's own structure, and stable under edits.

Sections first: a section with all its subsections is one chunk when it fits; otherwise its own text and
each subsection are taken by themselves. What still does not fit is cut at the best boundary near its
end, in the order paragraph, list item, line, sentence, word, as LangChain's
``RecursiveCharacterTextSplitter`` does, but on spans of the text and by counting tokens that were
located once for the whole document (its ``length_function`` tokenises every piece anew).

Greedy filling would move every later cut when a paragraph is inserted. Here an edit stays local: no
chunk reaches across a section that stands for itself, and inside a long section each cut is, among the
equally good boundaries of the second half of the chunk, the one whose following text has the smallest
hash. That choice depends on the text around it and not on where the previous chunk ended, so the cuts
fall into step again soon after an edit (content-defined chunking).
"""

from __future__ import annotations

import bisect
import zlib
from collections.abc import Sequence

from rag_platform import identity
from rag_platform.backends.embedders.base import Tokenizer
from rag_platform.ingestion.chunkers.base import ChunkerOptions
from rag_platform.ingestion.chunkers.sections import HeadingPaths, Section, sections_of
from rag_platform.ingestion.chunkers.spans import Span, TokenIndex, finish
from rag_platform.ingestion.chunkers.structure import Cut, Structure
from rag_platform.records import ChunkSpan, ParsedDocument

VERSION = 1

_HASHED_CHARS = 48


class RecursiveChunker:
    """Cuts along sections, paragraphs, lines, sentences and words.

    Args:
        options: sizes and tokenizer.
    """

    strategy = "recursive"
    version = VERSION

    def __init__(self, options: ChunkerOptions) -> None:
        self._limit = options.chunk_tokens
        self._overlap = options.overlap_tokens
        self._target = options.chunk_tokens - options.overlap_tokens
        self._small = self._target // 4
        self.fingerprint = identity.fingerprint(
            f"chunker:{self.strategy}",
            {
                "version": (VERSION, self.version),
                "tokens": options.chunk_tokens,
                "overlap": options.overlap_tokens,
                "tokenizer": options.tokenizer,
            },
        )

    def chunk(self, document: ParsedDocument, tokenizer: Tokenizer) -> list[ChunkSpan]:
        """Return the chunks of a document."""
        index = TokenIndex(document.text, tokenizer)
        sections = sections_of(document)
        structure = Structure(document)
        spans: list[Span] = []
        for start, end in self._units(sections, index):
            if index.size(start, end) <= self._target:
                spans.append((start, end))
            else:
                spans.extend(self._split(structure, index, start, end))
        return finish(document, index, tokenizer, spans, self._limit, HeadingPaths(sections))

    # ── sections ──
    def _units(self, sections: Sequence[Section], index: TokenIndex) -> list[Span]:
        """Return spans that are chunked by themselves: whole subtrees that fit, else single sections."""
        sizes = index.sizes_at([s.start for s in sections] + [sections[-1].end])
        units: list[Span] = []
        pending = [(0, len(sections))]
        while pending:
            low, high = pending.pop()
            if high - low == 1 or sizes[high] - sizes[low] <= self._target:
                units.append((low, high))
                continue
            groups = [(low, low + 1)]
            first = low + 1
            for i in range(low + 2, high + 1):
                if i == high or sections[i].level <= sections[first].level:
                    groups.append((first, i))
                    first = i
            pending.extend(reversed(groups))
        return [
            (sections[low].start, sections[high - 1].end) for low, high in self._join(sections, units, sizes, index)
        ]

    def _join(
        self, sections: Sequence[Section], units: Sequence[Span], sizes: Sequence[int], index: TokenIndex
    ) -> list[Span]:
        """Join a small unit with its neighbour where both fit into one chunk, and a heading that has
        no text of its own with what follows it in any case."""
        merged: list[Span] = []
        group = units[0]
        for unit in units[1:]:
            size, grown = sizes[unit[1]] - sizes[unit[0]], sizes[unit[1]] - sizes[group[0]]
            small = sizes[group[1]] - sizes[group[0]] < self._small or size < self._small
            last = sections[group[1] - 1]
            bare = not index.text[last.body : last.end].strip()
            if (small and grown <= self._target) or bare:
                group = (group[0], unit[1])
            else:
                merged.append(group)
                group = unit
        merged.append(group)
        return merged

    # ── inside a section ──
    def _split(self, structure: Structure, index: TokenIndex, start: int, end: int) -> list[Span]:
        positions, cuts = structure.boundaries(index, start, end, self._target)
        sizes = index.sizes_at(positions)
        spans: list[Span] = []
        i, last = 0, len(positions) - 1
        while i < last:
            k = self._next_cut(index.text, positions, cuts, sizes, i)
            begin = max(index.overlap_start(positions[i], self._overlap), start)
            spans.append((begin, positions[k]))
            i = k
        return spans

    def _next_cut(self, text: str, positions: Sequence[int], cuts: Sequence[Cut], sizes: Sequence[int], i: int) -> int:
        """Return the boundary at which the chunk that starts at boundary ``i`` ends."""
        last = len(positions) - 1
        rest = sizes[last] - sizes[i]
        if rest <= self._target:
            return last
        # Leave enough for the chunk after this one when it is the last one.
        most = min(self._target, rest - self._small)
        high = bisect.bisect_right(sizes, sizes[i] + most, i + 1) - 1
        low = bisect.bisect_left(sizes, sizes[i] + self._target // 2, i + 1, high + 1)
        if high <= i:
            return i + 1
        return min(range(min(low, high), high + 1), key=lambda k: (cuts[k], _mark(text, positions[k])))


def _mark(text: str, position: int) -> int:
    """Hash the text that follows a boundary."""
    return zlib.crc32(text[position : position + _HASHED_CHARS].lstrip().encode("utf-8", "surrogatepass"))


def build(options: ChunkerOptions) -> RecursiveChunker:
    """Return the chunker."""
    return RecursiveChunker(options)
