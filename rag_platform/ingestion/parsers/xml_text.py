"""XML: journal articles (JATS, .nxml), FictionBook (.fb2), and any other XML as named values."""

from __future__ import annotations

from typing import Any, Final

from rag_platform.errors import CorruptDocument
from rag_platform.ingestion.parsers.base import Block, Limits, RawDocument
from rag_platform.ingestion.parsers.tables import table_text
from rag_platform.ingestion.parsers.xml_tree import local, parse_xml, words
from rag_platform.records import ElementKind

SUFFIXES: Final = (".xml", ".nxml", ".fb2", ".svg", ".rss", ".atom", ".xsd", ".xsl", ".rdf", ".dita", ".docbook")
VERSION: Final = 1

_PARAGRAPHS: Final = frozenset(("p", "v", "subtitle", "text-author", "label", "para", "simpara", "shortdesc"))
_SECTIONS: Final = frozenset(("sec", "section", "abstract", "body", "chapter", "topic", "ack", "app"))
_SKIPPED: Final = frozenset(("script", "style", "binary", "tex-math", "math", "journal-meta", "permissions"))
_HEADINGS: Final = frozenset(("title", "article-title"))


def parse(data: bytes, suffix: str, limits: Limits) -> RawDocument:
    """Read XML without expanding entities or fetching anything.

    Raises:
        CorruptDocument: it is not XML, not even in parts.
    """
    warnings: list[str] = []
    try:
        root = parse_xml(data)
    except CorruptDocument:
        root = parse_xml(data, recover=True)
        warnings.append("the XML is damaged; read as far as possible")
    kind = local(root)
    if kind in ("article", "book", "FictionBook", "topic", "chapter"):
        reader = _Prose()
        reader.read(root)
        blocks, title = reader.blocks, reader.title
    elif kind == "html":
        from rag_platform.ingestion.parsers import web

        return web.parse(data, ".xhtml", limits)
    else:
        blocks, title = _values(root), None
    return RawDocument(blocks=blocks, mime_type="application/xml", title=title, warnings=warnings, parser="xml_text")


class _Prose:
    """Sections, titles, paragraphs and tables in reading order; an explicit stack instead of recursion."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.title: str | None = None

    def read(self, root: Any) -> None:
        stack: list[tuple[Any, int]] = [(root, 0)]
        while stack:
            node, level = stack.pop()
            name = local(node)
            if not name or name in _SKIPPED:
                continue
            if name in ("article-title", "book-title") and self.title is None:
                self.title = words(node)
                self._add("title", self.title, level=1)
            elif name in _HEADINGS:
                self._add("heading", words(node), level=max(1, min(level, 6)))
            elif name in _PARAGRAPHS:
                self._add("text", words(node))
            elif name == "table":
                self._add("table", table_text([[words(c) for c in row] for row in node.iter("{*}tr", "{*}row")]))
            elif name in ("list-item", "listitem", "li"):
                self._add("list_item", f"- {words(node)}")
            elif name == "ref" or len(node) == 0:
                self._add("text", words(node))
            else:
                deeper = level + (name in _SECTIONS)
                if (node.text or "").strip():
                    self._add("text", words(node))
                else:
                    stack += [(child, deeper) for child in reversed(node)]

    def _add(self, kind: ElementKind, text: str, level: int = 0) -> None:
        if text.strip():
            self.blocks.append(Block(kind, text, level=level))


def _values(root: Any) -> list[Block]:
    """One block for each element that holds values, a line ``name: value`` for each of them."""
    blocks: list[Block] = []
    stack = [root]
    while stack:
        node = stack.pop()
        if not local(node) or local(node) in _SKIPPED:
            continue
        if (node.text or "").strip() or (len(node) == 0):
            if text := words(node):
                blocks.append(Block("text", text))
            continue
        leaves = [c for c in node if len(c) == 0 or (c.text or "").strip()]
        lines = []
        for leaf in leaves:
            if local(leaf) and local(leaf) not in _SKIPPED:
                values = [f"{local(leaf)}: {words(leaf)}"] if words(leaf) else []
                lines += values
        if lines:
            blocks.append(Block("text", "\n".join(lines)))
        taken = {id(leaf) for leaf in leaves}
        stack += [c for c in reversed(node) if id(c) not in taken]
    return blocks
