"""HTML to blocks: one walk over the tree, without recursion, for web pages, mails and e-books alike.

Scripts, styles, navigation, hidden elements and inline-XBRL headers are left out. Tables of data become
rows of cells joined by `` | ``; tables that only lay a page out are read as the text they hold.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html import unescape
from typing import Any, Final

from lxml import etree

from rag_platform.errors import CorruptDocument
from rag_platform.ingestion.parsers.base import Block
from rag_platform.ingestion.parsers.encoding import decode
from rag_platform.ingestion.parsers.tables import Rows, table_text
from rag_platform.records import ElementKind

VERSION: Final = 1

_SKIPPED: Final = frozenset(
    [
        "script",
        "style",
        "noscript",
        "template",
        "head",
        "nav",
        "iframe",
        "object",
        "embed",
        "canvas",
        "svg",
        "audio",
        "video",
        "select",
        "datalist",
        "dialog",
        "map",
        "ix:header",
        "ix:hidden",
        "annotation",
        "frameset",
        "applet",
        "progress",
        "meter",
        "textarea",
    ]
)
_BLOCKS: Final = frozenset(
    [
        "p",
        "div",
        "section",
        "article",
        "main",
        "aside",
        "header",
        "footer",
        "body",
        "html",
        "ul",
        "ol",
        "dl",
        "dt",
        "dd",
        "table",
        "thead",
        "tbody",
        "tfoot",
        "tr",
        "td",
        "th",
        "caption",
        "blockquote",
        "figure",
        "figcaption",
        "address",
        "form",
        "fieldset",
        "legend",
        "details",
        "summary",
        "hr",
        "center",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "li",
        "pre",
        "title",
        "button",
        "hgroup",
        "search",
        "menu",
    ]
)
_HEADINGS: Final = {f"h{n}": n for n in range(1, 7)}
_CHARSET: Final = re.compile(
    rb"(?:charset|encoding)\s{0,8}=\s{0,8}[\"']?\s{0,8}([A-Za-z0-9_.:\-]{2,40})", re.IGNORECASE
)
_INVISIBLE_STYLE: Final = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_DECLARATION: Final = re.compile(r"\s*<\?xml[^>]{0,200}\?>")
_UNREAD: Final = re.compile(r"<(script|style)\b.{0,200000}?</\1", re.IGNORECASE | re.DOTALL)
_TAGS: Final = re.compile(r"<[!/a-zA-Z][^<>]{0,4000}>")
_LONG_CELL_CHARS: Final = 1500


@dataclass(slots=True)
class Markup:
    """What an HTML document holds."""

    blocks: list[Block] = field(default_factory=list)
    title: str | None = None
    language: str | None = None
    encoding: str = "utf-8"


def decode_html(data: bytes, declared: str | None = None) -> tuple[str, str]:
    """Decode a web page: byte-order mark, valid UTF-8, what it declares, then a guess."""
    match = _CHARSET.search(data[:4096])
    return decode(data, declared=declared or (match[1].decode("ascii") if match else None))


def read_html(text: str) -> Markup:
    """Read one HTML or XHTML document.

    Raises:
        CorruptDocument: no tree can be built from it.
    """
    parser = etree.HTMLParser(
        encoding="utf-8", recover=True, no_network=True, huge_tree=True, remove_comments=True, remove_pis=True
    )
    text = _DECLARATION.sub("", text, count=1).replace("\x00", "")
    if not text.strip():
        return Markup()
    try:
        root = etree.fromstring(text.encode("utf-8", "replace"), parser)
    except (etree.XMLSyntaxError, ValueError) as e:
        raise CorruptDocument("no HTML can be read from it") from e
    if root is None:
        return Markup()
    if any("depth" in entry.message for entry in parser.error_log):
        return Markup(blocks=_without_tree(text))
    markup = Markup(language=_language(root))
    title = root.find(".//title")
    markup.title = "".join(title.itertext()) if title is not None else None
    walker = _Walker()
    walker.walk(root)
    markup.blocks = walker.blocks
    if not (markup.title or "").strip():
        first = next((b for b in markup.blocks if b.kind == "heading" and b.level == 1), None)
        markup.title = first.text if first else None
    return markup


def _without_tree(text: str) -> list[Block]:
    """What can be read from a page nested so deeply that libxml2 stops: its text without tags."""
    bare = _TAGS.sub("\n", _UNREAD.sub("\n", text))
    return [Block("text", line) for line in (" ".join(row.split()) for row in unescape(bare).split("\n")) if line]


def _language(root: Any) -> str | None:
    value = root.get("lang") or root.get("xml:lang") or ""
    return value.split("-")[0].strip().lower()[:8] or None


class _Walker:
    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._pieces: list[str] = []
        self._kind: ElementKind = "text"
        self._level = 0
        self._pre = 0
        self._items: list[Any] = []

    def walk(self, root: Any) -> None:
        events = etree.iterwalk(root, events=("start", "end"))
        for event, node in events:
            tag = node.tag
            if not isinstance(tag, str):
                if event == "end":
                    self._add(node.tail)
                continue
            tag = tag.rsplit("}", 1)[-1].lower()
            if event == "start":
                if tag in _SKIPPED or _hidden(node):
                    events.skip_subtree()
                elif tag == "table" and (rows := _data_rows(node)) is not None:
                    self._flush()
                    if text := table_text(rows):
                        self.blocks.append(Block("table", text))
                    events.skip_subtree()
                else:
                    self._open(tag, node)
                    self._add(node.text)
            else:
                if not (tag in _SKIPPED or _hidden(node)):
                    self._close(tag)
                self._add(node.tail)
        self._flush()

    def _open(self, tag: str, node: Any) -> None:
        if tag == "br":
            self._pieces.append("\n")
        elif tag in _BLOCKS:
            self._flush()
            if tag in _HEADINGS:
                self._kind, self._level = "heading", _HEADINGS[tag]
            elif tag == "li":
                self._items.append(node)
                self._kind = "list_item"
            elif tag == "pre":
                self._pre += 1
                self._kind = "code"

    def _close(self, tag: str) -> None:
        if tag not in _BLOCKS:
            return
        if self._items and tag == "p":  # paragraphs of a list item belong to it
            kind: ElementKind = "list_item"
        else:
            kind = "text"
        self._flush()
        if tag == "li" and self._items:
            self._items.pop()
        elif tag == "pre" and self._pre:
            self._pre -= 1
        self._kind = kind if self._items else "text"

    def _add(self, text: str | None) -> None:
        if text:
            self._pieces.append(text if self._pre else " ".join(_words(text)))

    def _flush(self) -> None:
        if self._pieces:
            text = "".join(self._pieces)
            self._pieces = []
            if self._pre:
                text = text.strip("\n").expandtabs(4)
            else:
                text = "\n".join(" ".join(line.split()) for line in text.split("\n")).strip()
            if text.strip():
                tight = self._kind == "list_item" and bool(self.blocks) and self.blocks[-1].kind == "list_item"
                shown = f"- {text}" if self._kind == "list_item" else text
                self.blocks.append(Block(self._kind, shown, level=self._level, tight=tight))
        self._kind = "list_item" if self._items else ("code" if self._pre else "text")
        self._level = 0


def _words(text: str) -> list[str]:
    """Fold white space, but keep one space where the text begins or ends with some."""
    words = text.split()
    if not words:
        return ["", ""]  # joins to one space
    if text[0].isspace():
        words.insert(0, "")
    if text[-1].isspace():
        words.append("")
    return words


def _hidden(node: Any) -> bool:
    if node.get("hidden") is not None:
        return True
    style = node.get("style")
    return style is not None and _INVISIBLE_STYLE.search(style) is not None


def _data_rows(table: Any) -> Rows | None:
    """Return the cells of a table of data; None for a table that only lays out the page."""
    nested = table.iter("table")
    next(nested, None)
    if next(nested, None) is not None:
        return None
    rows: Rows = []
    for row in table.iter("tr", "caption"):
        if row.tag == "caption":
            rows.append([_cell_text(row)])
            continue
        cells = [_cell_text(cell) for cell in row if cell.tag in ("td", "th") and not _hidden(cell)]
        if any(len(cell) > _LONG_CELL_CHARS for cell in cells):
            return None
        rows.append(cells)
    filled = [row for row in rows if any(row)]
    if filled and max(sum(1 for cell in row if cell) for row in filled) < 2 and table.find(".//p") is not None:
        return None
    return rows


def _cell_text(cell: Any) -> str:
    pieces: list[str] = []
    events = etree.iterwalk(cell, events=("start", "end"))
    for event, node in events:
        tag = node.tag if isinstance(node.tag, str) else ""
        if event == "start":
            if node is not cell and (tag in _SKIPPED or _hidden(node)):
                events.skip_subtree()
                continue
            if tag in _BLOCKS or tag == "br":
                pieces.append(" ")
            if tag:
                pieces.append(node.text or "")
        else:
            if tag in _BLOCKS:
                pieces.append(" ")
            if node is not cell:
                pieces.append(node.tail or "")
    return " ".join("".join(pieces).split())
