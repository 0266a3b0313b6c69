"""EPUB: the chapters of the spine, in order."""

from __future__ import annotations

import posixpath
from typing import Any, Final
from urllib.parse import unquote

from rag_platform.errors import CorruptDocument
from rag_platform.ingestion.parsers.base import Limits, RawDocument
from rag_platform.ingestion.parsers.containers import open_zip, read_member
from rag_platform.ingestion.parsers.markup import decode_html, read_html
from rag_platform.ingestion.parsers.xml_tree import parse_xml, words

SUFFIXES: Final = (".epub",)
VERSION: Final = 1


def parse(data: bytes, suffix: str, limits: Limits) -> RawDocument:
    """Read an e-book.

    Raises:
        CorruptDocument: its table of contents cannot be read.
    """
    with open_zip(data, limits) as archive:
        container = read_member(archive, "META-INF/container.xml")
        rootfile = parse_xml(container, recover=True).find(".//{*}rootfile") if container else None
        path = rootfile.get("full-path") if rootfile is not None else None
        path = path or next((n for n in archive.namelist() if n.endswith(".opf")), None)
        package = parse_xml(read_member(archive, path), recover=True) if path and path in archive.namelist() else None
        if path is None or package is None:
            raise CorruptDocument("this e-book has no readable package file")
        raw = RawDocument(mime_type="application/epub+zip", parser="ebook")
        raw.title = _meta(package, "title")
        raw.language = (_meta(package, "language") or "").split("-")[0].lower()[:8] or None
        for member in _spine(package, posixpath.dirname(path)):
            chapter = read_member(archive, member)
            if chapter:
                raw.blocks += read_html(decode_html(chapter)[0]).blocks
            else:
                raw.warnings.append("a chapter is missing")
    return raw


def _meta(package: Any, name: str) -> str | None:
    node = package.find(f".//{{http://purl.org/dc/elements/1.1/}}{name}")
    return words(node) if node is not None else None


def _spine(package: Any, base: str) -> list[str]:
    items = {
        item.get("id"): posixpath.normpath(posixpath.join(base, unquote(item.get("href", ""))))
        for item in package.iter("{*}item")
        if "html" in (item.get("media-type") or "")
    }
    order = [items[ref.get("idref")] for ref in package.iter("{*}itemref") if ref.get("idref") in items]
    return list(dict.fromkeys(order or items.values()))
