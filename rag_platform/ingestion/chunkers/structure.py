"""Where a document may be cut, and how good each cut is.

The separators are those of LangChain's ``RecursiveCharacterTextSplitter`` (paragraph, line, word,
character) with the parser's elements above them and sentences between, as positions in the text.
"""

from __future__ import annotations

import bisect
import re
from enum import IntEnum

from rag_platform.ingestion.chunkers.sentences import last_word_start, sentence_ends
from rag_platform.ingestion.chunkers.spans import TokenIndex
from rag_platform.records import Element, ParsedDocument

_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
_LINE = re.compile(r"\n\s*")
_SPACE = re.compile(r"\s")


class Cut(IntEnum):
    """How good a boundary is; the lower the better."""

    SECTION = 0
    PARAGRAPH = 1
    ITEM = 2
    LINE = 3
    SENTENCE = 4
    WORD = 5
    INSIDE_WORD = 6
    AFTER_HEADING = 7


class Structure:
    """Where a document's blocks begin and how good a cut there is."""

    def __init__(self, document: ParsedDocument) -> None:
        self._text = document.text
        self._elements = document.elements
        self._starts = [e.start for e in document.elements]

    def boundaries(self, index: TokenIndex, start: int, end: int, limit: int) -> tuple[list[int], list[Cut]]:
        """Return ascending positions from ``start`` to ``end`` and the quality of each, such that no
        two neighbours are more than ``limit`` apart."""
        positions, cuts = [start], [Cut.SECTION]
        blocks = self._blocks(start, end)
        for block, following in zip(blocks, [*blocks[1:], (end, Cut.SECTION)], strict=True):
            self._refine(index, block[0], following[0], limit, Cut.LINE, positions, cuts)
            positions.append(following[0])
            cuts.append(following[1])
        return positions, cuts

    def _blocks(self, start: int, end: int) -> list[tuple[int, Cut]]:
        """Return where blocks start, by the parser's elements and by blank lines between and inside
        elements of running text."""
        blocks = {start: Cut.SECTION}
        low = bisect.bisect_right(self._starts, start) - 1
        high = bisect.bisect_left(self._starts, end)
        previous: Element | None = None
        for element in self._elements[max(low, 0) : high]:
            if start < element.start < end:
                blocks[element.start] = self._quality(previous, element)
            previous = element
        for match in _PARAGRAPH.finditer(self._text, start, end):
            if start < match.end() < end and match.end() not in blocks:
                blocks[match.end()] = Cut.ITEM if self._inside_block(match.end()) else Cut.PARAGRAPH
        return sorted(blocks.items())

    def _inside_block(self, position: int) -> bool:
        i = bisect.bisect_right(self._starts, position) - 1
        return i >= 0 and self._elements[i].kind in ("code", "table") and position < self._elements[i].end

    def _quality(self, previous: Element | None, element: Element) -> Cut:
        if element.kind in ("title", "heading"):
            return Cut.SECTION
        if previous is None:
            return Cut.PARAGRAPH
        if previous.kind in ("title", "heading"):
            return Cut.AFTER_HEADING
        introduced = self._text[max(previous.end - 3, previous.start) : previous.end].rstrip().endswith((":", "："))
        if introduced or element.kind == "list_item":
            return Cut.ITEM
        return Cut.PARAGRAPH

    def _refine(
        self,
        index: TokenIndex,
        start: int,
        end: int,
        limit: int,
        finest: Cut,
        positions: list[int],
        cuts: list[Cut],
    ) -> None:
        """Add boundaries inside ``(start, end)``, ever finer ones, until no piece exceeds ``limit``."""
        if index.size(start, end) <= limit:
            return
        inner = self._inner(index, start, end, limit, finest)
        edges = [start, *inner, end]
        sizes = index.sizes_at(edges)
        for i in range(len(edges) - 1):
            if i:
                positions.append(edges[i])
                cuts.append(finest)
            if sizes[i + 1] - sizes[i] > limit and finest < Cut.INSIDE_WORD:
                self._refine(index, edges[i], edges[i + 1], limit, Cut(finest + 1), positions, cuts)

    def _inner(self, index: TokenIndex, start: int, end: int, limit: int, cut: Cut) -> list[int]:
        text = self._text
        if cut is Cut.LINE:
            return [m.end() for m in _LINE.finditer(text, start, end) if start < m.end() < end]
        if cut is Cut.SENTENCE:
            return sentence_ends(text, start, end)
        step = max(limit // 4, 1)
        found: list[int] = []
        at = start
        while (target := index.position(index.sizes_at([at])[0] + step)) < end:
            position: int | None = max(target, at + 1)
            if cut is Cut.WORD:
                position = last_word_start(text, at, target)
                if position is None:  # one word longer than a step: jump behind it
                    space = _SPACE.search(text, target, end)
                    position = space.start() if space else None
            if position is None or position >= end:
                break
            found.append(position)
            at = position
        return found
