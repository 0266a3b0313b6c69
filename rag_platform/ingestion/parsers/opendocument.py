"""OpenDocument text, spreadsheets, presentations and drawings: ``content.xml`` in reading order."""

from __future__ import annotations

from typing import Any, Final

from rag_platform.errors import CorruptDocument
from rag_platform.ingestion.parsers.base import Block, Limits, RawDocument
from rag_platform.ingestion.parsers.containers import open_zip, read_member
from rag_platform.ingestion.parsers.tables import Rows, table_text
from rag_platform.ingestion.parsers.xml_tree import local, parse_xml, words

SUFFIXES: Final = (".odt", ".ott", ".ods", ".ots", ".odp", ".otp", ".odg", ".fodt", ".fods", ".fodp")
VERSION: Final = 1

_MIME: Final = {"s": "spreadsheet", "p": "presentation", "g": "graphics"}
_SPACES: Final = frozenset(("s", "tab", "line-break"))
_SKIPPED: Final = frozenset(("tracked-changes", "forms", "sequence-decls", "annotation", "automatic-styles", "styles"))


def parse(data: bytes, suffix: str, limits: Limits) -> RawDocument:
    """Read an OpenDocument file, zipped or flat.

    Raises:
        CorruptDocument: no readable content.
    """
    title = None
    if data[:2] == b"PK":
        with open_zip(data, limits) as archive:
            content, meta = read_member(archive, "content.xml"), read_member(archive, "meta.xml")
        if not content:
            raise CorruptDocument("this OpenDocument file has no content")
        if meta:
            found = parse_xml(meta, recover=True).find(".//{http://purl.org/dc/elements/1.1/}title")
            title = words(found) if found is not None else None
    else:
        content = data
    reader = _Reader()
    reader.read(parse_xml(content))
    first = next((b.text for b in reader.blocks if b.kind in ("title", "heading") and b.level == 1), None)
    return RawDocument(
        blocks=reader.blocks,
        mime_type=f"application/vnd.oasis.opendocument.{_MIME.get(suffix[3:4] if suffix[1] == 'o' else '', 'text')}",
        title=title or first,
        page_count=reader.slides or None,
        parser="opendocument",
    )


class _Reader:
    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.slides = 0

    def read(self, root: Any) -> None:
        stack: list[tuple[Any, bool]] = [(root, False)]
        while stack:
            node, in_list = stack.pop()
            name = local(node)
            if not name or name in _SKIPPED:
                continue
            if name == "h":
                self._add("heading", node, min(9, _number(node, "outline-level", 1)))
            elif name == "p":
                self._add("list_item" if in_list else "text", node)
                stack += [(box, False) for box in reversed(list(node.iter("{*}text-box")))]
            elif name == "table":
                self._table(node)
            else:
                if name == "page":
                    self.slides += 1
                stack += [(child, in_list or name == "list-item") for child in reversed(node)]

    def _add(self, kind: Any, node: Any, level: int = 0) -> None:
        if text := _text(node):
            shown = f"- {text}" if kind == "list_item" else text
            tight = kind == "list_item" and bool(self.blocks) and self.blocks[-1].kind == kind
            self.blocks.append(Block(kind, shown, page=self.slides or None, level=level, tight=tight))

    def _table(self, table: Any) -> None:
        name = next((v for k, v in table.attrib.items() if k.endswith("}name")), "")
        rows: Rows = []
        for row in table.iter("{*}table-row"):
            cells: list[str] = []
            for cell in row:
                if local(cell) in ("table-cell", "covered-table-cell"):
                    text = " ".join(_text(p) for p in cell.iter("{*}p", "{*}h"))
                    # A repeated cell is written once and repeated only as far as a person would.
                    cells += [text] * (min(_number(cell, "number-columns-repeated", 1), 64) if text else 1)
            rows.append(cells)
        text = table_text(rows)
        if text and table.getparent() is not None and local(table.getparent()) == "spreadsheet" and name:
            self.blocks.append(Block("heading", name, level=1))
        if text:
            self.blocks.append(Block("table", text, page=self.slides or None))


def _text(node: Any) -> str:
    pieces: list[str] = [node.text or ""]
    stack = list(reversed(node))
    while stack:
        child = stack.pop()
        if isinstance(child, str):
            pieces.append(child)
            continue
        name = local(child)
        stack.append(child.tail or "")
        if name in _SPACES:
            pieces.append("\n" if name == "line-break" else " ")
        elif name and name not in ("annotation", "text-box"):
            stack += list(reversed(child))
            pieces.append(child.text or "")
    return "\n".join(" ".join(line.split()) for line in "".join(pieces).split("\n")).strip()


def _number(node: Any, name: str, default: int) -> int:
    value = next((v for k, v in node.attrib.items() if k.endswith("}" + name)), "")
    return max(1, int(value)) if value.isascii() and value.isdigit() else default
