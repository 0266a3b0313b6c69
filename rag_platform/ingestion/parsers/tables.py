"""Tables as text: one row a line, cells joined by `` | ``, empty rows and columns left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

VERSION: Final = 1

Rows: TypeAlias = list[list[str]]


def table_text(rows: Iterable[Sequence[str]]) -> str:
    """Return the rows as text; columns that are empty in every row disappear."""
    kept = [[" ".join(cell.split()) for cell in row] for row in rows]
    kept = [row for row in kept if any(row)]
    width = max((len(row) for row in kept), default=0)
    used = [i for i in range(width) if any(i < len(row) and row[i] for row in kept)]
    return "\n".join(_line([row[i] if i < len(row) else "" for i in used]) for row in kept)


def _line(cells: list[str]) -> str:
    while cells and not cells[-1]:
        cells.pop()
    return " | ".join(cells)
