"""JSON and JSON Lines as named values: a block a record, a line ``name: value`` a value."""

from __future__ import annotations

import json
from typing import Any, Final

from rag_platform.errors import LimitExceeded
from rag_platform.ingestion.parsers.base import Block, Limits, RawDocument
from rag_platform.ingestion.parsers.encoding import decode
from rag_platform.ingestion.parsers.plain_text import paragraphs

SUFFIXES: Final = (".json", ".jsonl", ".ndjson", ".geojson", ".ipynb")
VERSION: Final = 1

_MAX_DEPTH: Final = 200
_NAMES_KEPT: Final = 3


def parse(data: bytes, suffix: str, limits: Limits) -> RawDocument:
    """Read JSON; what is not quite JSON is read as text.

    Raises:
        LimitExceeded: nested too deeply.
        UnsupportedFormat: the bytes are not text.
    """
    text = decode(data)[0]
    raw = RawDocument(mime_type="application/json", parser="structured")
    if suffix in (".jsonl", ".ndjson"):
        records = _lines(text, raw)
    else:
        try:
            value = json.loads(text)
        except ValueError:
            records = _lines(text, raw)
        else:
            records = value if isinstance(value, list) else [value]
    if suffix == ".ipynb" and len(records) == 1 and isinstance(records[0], dict):
        raw.blocks = _notebook(records[0])
    for record in () if raw.blocks else records:
        if body := "\n".join(_values(record)):
            raw.blocks.append(Block("text", body))
    if not records:
        raw.blocks = [Block("text", p) for p in paragraphs(text)]
        raw.warnings.append("not valid JSON; read as text")
    return raw


def _lines(text: str, raw: RawDocument) -> list[Any]:
    records, bad = [], 0
    for line in text.splitlines():
        if line.strip():
            try:
                records.append(json.loads(line))
            except ValueError:
                bad += 1
    if bad and bad >= len(records):
        return []
    if bad:
        raw.warnings.append(f"{bad} lines are not valid JSON and were left out")
    return records


def _values(record: Any) -> list[str]:
    """The leaves of a record in order, each with the last names of its path."""
    lines: list[str] = []
    stack: list[tuple[tuple[str, ...], Any, int]] = [((), record, 0)]
    while stack:
        names, value, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise LimitExceeded(f"is nested more than {_MAX_DEPTH} levels deep")
        if isinstance(value, dict):
            stack += [((*names, str(k))[-_NAMES_KEPT:], v, depth + 1) for k, v in reversed(value.items())]
        elif isinstance(value, list):
            stack += [(names, v, depth + 1) for v in reversed(value)]
        elif value is not None and value != "":
            shown = json.dumps(value) if isinstance(value, bool) else str(value)
            lines.append(f"{'.'.join(names)}: {shown}" if names else shown)
    return lines


def _notebook(notebook: dict[str, Any]) -> list[Block]:
    """The cells of a Jupyter notebook, without outputs."""
    from rag_platform.ingestion.parsers.markdown_text import scan

    blocks: list[Block] = []
    cells = notebook.get("cells")
    for cell in cells if isinstance(cells, list) else []:
        source = cell.get("source", "") if isinstance(cell, dict) else ""
        source = "".join(map(str, source)) if isinstance(source, list) else str(source)
        if source.strip():
            blocks += scan(source) if cell.get("cell_type") == "markdown" else [Block("code", source)]
    return blocks
