"""The sections of a document: a heading and what it governs."""

from __future__ import annotations

import bisect
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rag_platform.records import ParsedDocument

MAX_LEVEL = 9
_ANCHOR = re.compile(r"<a\b[^<>]{0,200}>|</a>|\{#[^{}]{0,200}\}", re.IGNORECASE)
_MARKS = re.compile(r"\A\s{0,3}#{1,6}(?:\s+|\Z)|\s+#+\s*\Z")
_UNDERLINE = re.compile(r"\n\s{0,3}(?:=+|-+)\s*\Z")
_MAX_HEADING = 300


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with the text up to the next heading of any level. ``level`` is 0 for what precedes
    the first heading; ``path`` are the headings from the outermost down to its own."""

    start: int
    end: int
    body: int
    """Where the text after the heading starts."""
    level: int
    path: tuple[str, ...]


def heading_text(raw: str) -> str:
    """Return a heading as a reader sees it: without ``#`` marks, underline, anchors and outer space."""
    text = _ANCHOR.sub("", raw[: 4 * _MAX_HEADING])
    text = _MARKS.sub("", _UNDERLINE.sub("", text))
    return " ".join(html.unescape(text).split())[:_MAX_HEADING]


def sections_of(document: ParsedDocument) -> list[Section]:
    """Return the sections in order; together they cover the whole text."""
    text = document.text
    heads = [e for e in document.elements if e.kind in ("title", "heading") and e.end > e.start]
    first = heads[0].start if heads else len(text)
    found: list[Section] = []
    if text[:first].strip() or not heads:
        found.append(Section(0, first, 0, 0, ()))
    stack: list[tuple[int, str]] = []
    for i, head in enumerate(heads):
        level = min(max(head.level, 1), MAX_LEVEL)
        while stack and stack[-1][0] >= level:
            stack.pop()
        name = heading_text(text[head.start : head.end])
        if name:
            stack.append((level, name))
        end = heads[i + 1].start if i + 1 < len(heads) else len(text)
        found.append(Section(head.start, end, head.end, level, tuple(n for _, n in stack)))
    return found


class HeadingPaths:
    """Looks up the headings above a span.

    Args:
        sections: of the whole document, in order.
    """

    def __init__(self, sections: Sequence[Section]) -> None:
        self._sections = sections
        self._starts = [s.start for s in sections]

    def __call__(self, start: int, end: int) -> tuple[str, ...]:
        """Return the headings that govern all of ``[start, end)``: those that its sections share."""
        first = max(bisect.bisect_right(self._starts, start) - 1, 0)
        last = max(bisect.bisect_left(self._starts, end) - 1, first)
        path = self._sections[first].path
        for section in self._sections[first + 1 : last + 1]:
            shared = 0
            for mine, other in zip(path, section.path, strict=False):
                if mine != other:
                    break
                shared += 1
            path = path[:shared]
            if not path:
                break
        return path
