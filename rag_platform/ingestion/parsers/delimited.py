"""CSV and TSV: rows of cells joined by `` | ``. Cells are text; formulas stay text."""

from __future__ import annotations

import csv
import io
from typing import Final

from rag_platform.ingestion.parsers.base import Block, Limits, RawDocument
from rag_platform.ingestion.parsers.encoding import decode
from rag_platform.ingestion.parsers.tables import table_text

LIGHT: Final = True
SUFFIXES: Final = (".csv", ".tsv", ".tab", ".psv")
VERSION: Final = 1

_DELIMITERS: Final = ",;\t|"
_SAMPLE_LINES: Final = 50
_MAX_CELL_CHARS: Final = 10_000_000


def parse(data: bytes, suffix: str, limits: Limits) -> RawDocument:
    """Read a delimited table of any encoding, delimiter and raggedness.

    Raises:
        UnsupportedFormat: the bytes are not text.
    """
    text = decode(data)[0].replace("\x00", "")
    csv.field_size_limit(_MAX_CELL_CHARS)
    delimiter = _delimiter(text, suffix)
    warnings = []
    try:
        body = table_text(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error:
        body = text
        warnings.append("the table could not be split into cells")
    return RawDocument(
        blocks=[Block("table", body)],
        mime_type="text/tab-separated-values" if delimiter == "\t" else "text/csv",
        warnings=warnings,
        parser="delimited",
    )


def _delimiter(text: str, suffix: str) -> str:
    """The delimiter that cuts most of the first lines into the same number of cells."""
    lines = [line for line in text[:100_000].splitlines()[:_SAMPLE_LINES] if line.strip()]
    preferred = "\t" if suffix in (".tsv", ".tab") else ","
    best, best_score = preferred, 0.0
    for delimiter in sorted(_DELIMITERS, key=lambda d: d != preferred):
        counts = [len(row) - 1 for row in csv.reader(lines, delimiter=delimiter)]
        usual = max(set(counts), key=counts.count, default=0)
        score = usual and counts.count(usual) / len(counts) + min(usual, 20) / 1000
        if score > best_score:
            best, best_score = delimiter, score
    return best
