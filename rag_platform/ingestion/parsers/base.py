"""What a parser module promises.

A parser is a module of this folder with ``SUFFIXES`` (lower-case, with the dot), ``VERSION`` (raise it
when its output would change) and ``parse(data, suffix, limits) -> RawDocument``. It may import what it
needs at the top: it is loaded inside a worker process, once, when the first document of its kind comes.
It raises ``DocumentError`` subclasses; any other exception counts as a corrupt document. It never opens
a path or a socket: bytes in, blocks out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rag_platform.records import ElementKind


@dataclass(frozen=True, slots=True)
class Limits:
    """What one document may cost. Picklable plain data."""

    cpu_s: int = 120
    wall_s: int = 180
    memory_mb: int = 2048
    max_text_chars: int = 20_000_000
    max_pages: int = 5000
    ocr: str = "auto"
    ocr_max_pages: int = 200
    ocr_page_s: int = 60
    """CPU and wall seconds that each page read by OCR adds to ``cpu_s`` and ``wall_s``: how much of a scan
    is read must not depend on how fast the machine is."""
    languages: str = "eng"
    max_expanded_bytes: int = 1_000_000_000
    """Uncompressed bytes that one archive-like document (docx, xlsx, epub …) may hold."""
    max_attachment_depth: int = 3


@dataclass(frozen=True, slots=True)
class Block:
    """One piece of text as the parser met it, in reading order. ``level`` is the heading level, from
    1; ``page`` counts from 1; a ``tight`` block follows the one before it on the next line, without a
    blank line between."""

    kind: ElementKind
    text: str
    page: int | None = None
    level: int = 0
    tight: bool = False


@dataclass(slots=True)
class RawDocument:
    """A parser's result before normalisation."""

    blocks: list[Block] = field(default_factory=list)
    mime_type: str = "application/octet-stream"
    title: str | None = None
    language: str | None = None
    page_count: int | None = None
    ocr_pages: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    parser: str = ""
