"""One chunk a section, as LangChain's ``MarkdownHeaderTextSplitter`` makes them, cut where too long.

Sections are never joined, however small, so a chunk always stands under exactly one heading; a heading
without text of its own is kept with the section after it. Works on the headings that the parser found
in any format.
"""

from __future__ import annotations

from collections.abc import Sequence

from rag_platform.ingestion.chunkers.base import ChunkerOptions
from rag_platform.ingestion.chunkers.recursive import RecursiveChunker
from rag_platform.ingestion.chunkers.sections import Section
from rag_platform.ingestion.chunkers.spans import Span, TokenIndex

VERSION = 1


class MarkdownChunker(RecursiveChunker):
    """Cuts at every heading, and inside a long section as ``recursive`` does."""

    strategy = "markdown"
    version = VERSION

    def _units(self, sections: Sequence[Section], index: TokenIndex) -> list[Span]:
        units: list[Span] = []
        start = sections[0].start
        for section in sections:
            if index.text[section.body : section.end].strip() or section is sections[-1]:
                units.append((start, section.end))
                start = section.end
        return units


def build(options: ChunkerOptions) -> MarkdownChunker:
    """Return the chunker."""
    return MarkdownChunker(options)
