"""Lines of a page in, paragraphs and headings out.

The order of the lines is the caller's (pdfium's content order, or the OCR reading order); this module
only decides where a paragraph ends, which wrapped lines belong to one sentence flow, and which short,
large lines are headings. Words cut at a line end stay cut ("volup-"): an exact quotation of the page
must stay findable.
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rag_platform.ingestion.parsers.base import Block

VERSION: Final = 1

_LIST_ITEM: Final = re.compile(r"(?:[•●○▪■◦‣∙·➢➤*–—-]|\(?(?:\d{1,3}|[a-z]|[ivx]{1,4})[.)])\s+\S")
_ENDS_SENTENCE: Final = re.compile(r"[.!?:;。！？：][\"'”’»)\]]*$")
_CJK_END: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u3000-\u303f\uff00-\uffef]$")
_LEADERS: Final = re.compile(r"\.{4}|(?:\. ){4}|…{2}|\t")
_FRACTION: Final = re.compile(r"(?<=\d)[ \n]?\u2044[ \n]?(?=\d)")  # 1⁄4 is set as three pieces
_HEADING_RATIO: Final = 1.15
_MAX_HEADING_CHARS: Final = 150
_MAX_HEADING_LINES: Final = 3
_MAX_LEVELS: Final = 4


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a page. ``base`` is the y of its lower edge, growing downwards, in the unit of
    ``left``, ``right`` and ``size`` (height of the line). ``row`` says that it is a table's row, which
    never runs on into the next line."""

    text: str
    left: float
    right: float
    base: float
    size: float
    bold: bool = False
    row: bool = False


def blocks(pages: Sequence[tuple[int, Sequence[Line]]]) -> list[Block]:
    """Return the blocks of a document.

    Args:
        pages: (page number from 1, its lines in reading order).
    """
    paragraphs = [(page, p) for page, lines in pages for p in _paragraphs(lines)]
    body, bold_body = _body_style(pages)
    ranks = [_heading_rank(p, body, bold_body) for _, p in paragraphs]
    levels = {rank: min(i, _MAX_LEVELS) for i, rank in enumerate(sorted({r for r in ranks if r is not None}), start=1)}
    out: list[Block] = []
    for (page, paragraph), rank in zip(paragraphs, ranks, strict=True):
        text = _join(paragraph)
        if rank is not None:
            out.append(Block("heading", text.replace("\n", " "), page, levels[rank]))
        else:
            out.append(Block("list_item" if _LIST_ITEM.match(text) else "text", text, page))
    return out


def _round(size: float) -> float:
    return round(size * 2) / 2


def _body_style(pages: Sequence[tuple[int, Sequence[Line]]]) -> tuple[float, bool]:
    """Return the line height that most characters have (0 when there are none), and whether most of
    them are bold."""
    sizes: Counter[float] = Counter()
    bold = 0
    for _, lines in pages:
        for line in lines:
            sizes[_round(line.size)] += len(line.text)
            bold += len(line.text) if line.bold else 0
    return (sizes.most_common(1)[0][0] if sizes else 0.0), 2 * bold > sizes.total()


def _heading_rank(paragraph: Sequence[Line], body: float, bold_body: bool) -> tuple[float, bool] | None:
    """Return what orders headings (the larger first, then the bold ones of body size), or None."""
    size = min(x.size for x in paragraph)
    large = size >= _HEADING_RATIO * body
    bold = not bold_body and all(x.bold for x in paragraph) and size >= 0.95 * body
    text = " ".join(x.text for x in paragraph)
    if (
        body <= 0
        or not (large or bold)
        or len(paragraph) > _MAX_HEADING_LINES
        or not 2 < len(text) <= _MAX_HEADING_CHARS
        or sum(c.isalpha() for c in text) < len(text) // 2
        or text[-1] in ".,;"
        or paragraph[0].row
    ):
        return None
    return (-_round(size), False) if large else (0.0, True)


def _paragraphs(lines: Sequence[Line]) -> list[list[Line]]:
    steps = [b.base - a.base for a, b in itertools.pairwise(lines) if 0.3 * a.size < b.base - a.base < 3 * a.size]
    leading = statistics.median(steps) if steps else 0.0
    found: list[list[Line]] = []
    for line in lines:
        if found and not _starts_paragraph(found[-1], line, leading):
            found[-1].append(line)
        else:
            found.append([line])
    return found


def _starts_paragraph(paragraph: Sequence[Line], line: Line, leading: float) -> bool:
    previous = paragraph[-1]
    size = max(previous.size, line.size, 0.1)
    step = line.base - previous.base
    if abs(step) < 0.3 * size:
        return False  # the next cell of the same row
    if _LIST_ITEM.match(line.text):
        return True
    ended = _ENDS_SENTENCE.search(previous.text) is not None
    continues = not ended and line.text[:1].islower()
    if step < 0 or step > 4 * size:  # the next column, or past a figure
        return not continues
    if step > max(1.4 * leading, 0.9 * size):
        return not (continues and step < 2 * leading)
    if abs(previous.size - line.size) > 0.15 * size and min(len(previous.text), len(line.text)) > 2:
        return True
    if previous.bold != line.bold:
        return not continues
    return ended and not _is_full(previous, line, max(x.right for x in paragraph), slack=2.0)


def _is_full(line: Line, following: Line, right: float, slack: float) -> bool:
    """Return whether the first word of ``following`` (less ``slack`` characters) did not fit on ``line``,
    whose column ends at ``right``."""
    character = max(0.0, line.right - line.left) / max(1, len(line.text))
    word = following.text.split(None, 1)[0]
    return line.right + (len(word) + 1 + slack) * character >= right


def _is_row(line: Line) -> bool:
    """Return whether the line looks like a table's row or an entry of a table of contents."""
    words = line.text.split()
    numbers = sum(1 for w in words if any(c.isdigit() for c in w))
    return line.row or (len(words) >= 3 and numbers >= 0.5 * len(words)) or _LEADERS.search(line.text) is not None


def _join(paragraph: Sequence[Line]) -> str:
    """Join lines: a wrapped line runs on with a space, one that ended early keeps its line end."""
    right = max(x.right for x in paragraph)
    parts = [paragraph[0].text]
    for previous, line in itertools.pairwise(paragraph):
        same_row = abs(line.base - previous.base) < 0.3 * max(previous.size, line.size)
        cut = previous.text.endswith("-") or _CJK_END.search(previous.text) is not None
        runs_on = not cut and not _is_row(previous) and _is_full(previous, line, right, slack=1.0)
        parts.append(" " if same_row or runs_on else "\n")
        parts.append(line.text)
    return _FRACTION.sub("\u2044", "".join(parts))
