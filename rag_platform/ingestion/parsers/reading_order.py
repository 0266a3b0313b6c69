"""Reading order of boxes on a page: rows from top to bottom, columns of prose one after the other.

A vertical gutter divides columns only when both sides hold several lines that fill their side (prose);
otherwise boxes side by side are cells of one row (a table), and are read across.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

VERSION: Final = 1

_MIN_COLUMN_LINES: Final = 4
_MIN_FILL: Final = 0.6
_MAX_BANDS: Final = 150
_MAX_DEPTH: Final = 3


@dataclass(frozen=True, slots=True)
class Box:
    """An upright box, y growing downwards."""

    left: float
    top: float
    right: float
    bottom: float


def rows(boxes: Sequence[Box]) -> list[list[int]]:
    """Return indices into ``boxes``: one list a row, rows in reading order, cells from left to right."""
    return _order(boxes, list(range(len(boxes))), 0)


def _order(boxes: Sequence[Box], members: list[int], depth: int) -> list[list[int]]:
    bands = _bands(boxes, members)
    if depth >= _MAX_DEPTH or len(bands) > _MAX_BANDS:
        return _rows(boxes, members)
    found: list[list[int]] = []
    start = 0
    while start < len(bands):
        for stop in range(len(bands), start, -1):
            columns = _columns(boxes, [i for band in bands[start:stop] for i in band])
            if columns is not None:
                for column in columns:
                    found += _order(boxes, column, depth + 1)
                start = stop
                break
        else:
            found += _rows(boxes, bands[start])
            start += 1
    return found


def _bands(boxes: Sequence[Box], members: list[int]) -> list[list[int]]:
    """Group boxes whose vertical extents (without a fifth at each edge) overlap."""
    bands: list[list[int]] = []
    reach = float("-inf")
    for i in sorted(members, key=lambda i: boxes[i].top):
        margin = 0.2 * (boxes[i].bottom - boxes[i].top)
        if not bands or boxes[i].top + margin > reach:
            bands.append([])
        bands[-1].append(i)
        reach = max(reach, boxes[i].bottom - margin)
    return bands


def _columns(boxes: Sequence[Box], members: list[int]) -> tuple[list[int], list[int]] | None:
    if len(members) < 2 * _MIN_COLUMN_LINES:
        return None
    gutter = statistics.median(boxes[i].bottom - boxes[i].top for i in members) * 0.6
    best: tuple[float, float] | None = None
    reach = float("-inf")
    for i in sorted(members, key=lambda i: boxes[i].left):
        gap = boxes[i].left - reach
        if reach != float("-inf") and gap > gutter and (best is None or gap > best[0]):
            best = (gap, boxes[i].left)
        reach = max(reach, boxes[i].right)
    if best is None:
        return None
    left = [i for i in members if boxes[i].left < best[1]]
    right = [i for i in members if boxes[i].left >= best[1]]
    return (left, right) if _is_prose(boxes, left) and _is_prose(boxes, right) else None


def _is_prose(boxes: Sequence[Box], members: list[int]) -> bool:
    if len(members) < _MIN_COLUMN_LINES:
        return False
    width = max(boxes[i].right for i in members) - min(boxes[i].left for i in members)
    height = statistics.median(boxes[i].bottom - boxes[i].top for i in members)
    fill = statistics.median(boxes[i].right - boxes[i].left for i in members)
    return fill >= _MIN_FILL * width and fill >= 5 * height


def _rows(boxes: Sequence[Box], members: list[int]) -> list[list[int]]:
    found: list[list[int]] = []
    for i in sorted(members, key=lambda i: (boxes[i].top + boxes[i].bottom, boxes[i].left)):
        middle = (boxes[i].top + boxes[i].bottom) / 2
        last = boxes[found[-1][0]] if found else None
        if last is not None and abs(middle - (last.top + last.bottom) / 2) < 0.5 * min(
            boxes[i].bottom - boxes[i].top, last.bottom - last.top
        ):
            found[-1].append(i)
        else:
            found.append([i])
    return [sorted(row, key=lambda i: boxes[i].left) for row in found]
