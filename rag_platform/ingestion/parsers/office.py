"""Word and PowerPoint files (Office Open XML), by ``unstructured``, and what it passes over: text boxes,
content controls and the text inside charts."""

from __future__ import annotations

import io
import zipfile
from typing import Any, Final

from unstructured.partition.docx import partition_docx
from unstructured.partition.pptx import partition_pptx

from rag_platform.errors import CorruptDocument
from rag_platform.ingestion.parsers.base import Block, Limits, RawDocument
from rag_platform.ingestion.parsers.containers import open_zip, read_member
from rag_platform.ingestion.parsers.ooxml import chart_text, transitional
from rag_platform.ingestion.parsers.unstructured_elements import prepare, to_blocks
from rag_platform.ingestion.parsers.xml_tree import local, parse_xml, words

SUFFIXES: Final = (".docx", ".docm", ".dotx", ".dotm", ".pptx", ".pptm", ".ppsx", ".ppsm", ".potx", ".potm")
VERSION: Final = 1

_MIME: Final = "application/vnd.openxmlformats-officedocument."
_MAX_SEARCHES: Final = 2000


def parse(data: bytes, suffix: str, limits: Limits) -> RawDocument:
    """Read a Word or PowerPoint file; macros are not run and nothing that it refers to is fetched.

    Raises:
        CorruptDocument: it is damaged.
        LimitExceeded, EncryptedDocument: its container says so.
    """
    prepare()
    data = transitional(data, limits)
    with open_zip(data, limits) as archive:
        data = _as_plain_document(archive, data)
    with open_zip(data, limits) as archive:
        if any(name.startswith("ppt/") for name in archive.namelist()):
            raw = _slides(data, archive)
        else:
            raw = _word(data, archive)
        raw.title = _title(archive) or next((b.text for b in raw.blocks if b.kind == "heading" and b.level == 1), None)
    return raw


def _word(data: bytes, archive: zipfile.ZipFile) -> RawDocument:
    try:
        elements = partition_docx(file=io.BytesIO(data), languages=[""])
    except (KeyError, ValueError, AttributeError, TypeError, IndexError, SyntaxError) as e:
        raise CorruptDocument(f"its Word document is damaged ({type(e).__name__})") from e
    raw = RawDocument(mime_type=f"{_MIME}wordprocessingml.document", parser="office")
    raw.blocks = to_blocks(elements)
    raw.blocks += _passed_over(archive, raw.blocks)
    raw.blocks += [Block("other", text) for text in chart_text(archive, "word/")]
    return raw


def _slides(data: bytes, archive: zipfile.ZipFile) -> RawDocument:
    try:
        elements = partition_pptx(file=io.BytesIO(data), include_slide_notes=True, languages=[""])
    except (KeyError, ValueError, AttributeError, TypeError, IndexError, SyntaxError) as e:
        raise CorruptDocument(f"its presentation is damaged ({type(e).__name__})") from e
    raw = RawDocument(mime_type=f"{_MIME}presentationml.presentation", parser="office")
    raw.blocks = to_blocks(elements, max_heading_depth=1)
    raw.blocks += [Block("other", text) for text in chart_text(archive, "ppt/")]
    raw.page_count = sum(n.startswith("ppt/slides/slide") and n.endswith(".xml") for n in archive.namelist())
    return raw


def _as_plain_document(archive: zipfile.ZipFile, data: bytes) -> bytes:
    """Give templates and macro-enabled documents the content type that python-docx and python-pptx accept."""
    types = read_member(archive, "[Content_Types].xml")
    plain = types
    for odd in (
        b"document.macroEnabled",
        b"template.macroEnabledTemplate",
        b"slideshow.macroEnabled",
        b"presentation.macroEnabled",
    ):
        plain = plain.replace(b"application/vnd.ms-word." + odd, _DOCUMENT).replace(
            b"application/vnd.ms-powerpoint." + odd, _DECK
        )
    plain = plain.replace(b"wordprocessingml.template.main", b"wordprocessingml.document.main")
    plain = plain.replace(b"presentationml.slideshow.main", b"presentationml.presentation.main")
    plain = plain.replace(b"presentationml.template.main", b"presentationml.presentation.main")
    if plain == types:
        return data
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as rewritten:
        for name in dict.fromkeys(archive.namelist()):
            rewritten.writestr(name, plain if name == "[Content_Types].xml" else read_member(archive, name))
    return out.getvalue()


_DOCUMENT: Final = b"application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_DECK: Final = b"application/vnd.openxmlformats-officedocument.presentationml.presentation"


def _passed_over(archive: zipfile.ZipFile, blocks: list[Block]) -> list[Block]:
    """Return the paragraphs of the document that are in none of ``blocks``: those of text boxes (once, not
    again from their fallback) and content controls."""
    root = parse_xml(read_member(archive, "word/document.xml"), recover=True)
    known = {_folded(line) for block in blocks for line in block.text.split("\n")}
    everything: str | None = None
    missing: list[Block] = []
    searches = 0
    for paragraph in _paragraphs(root):
        text = _paragraph_text(paragraph)
        folded = _folded(text)
        if not folded or folded in known:
            continue
        known.add(folded)
        if everything is None:
            everything = _folded(" ".join(block.text for block in blocks))
        searches += 1
        if searches <= _MAX_SEARCHES and folded not in everything:
            missing.append(Block("text", text))
    return missing


def _paragraphs(root: Any) -> list[Any]:
    found = []
    stack = [root]
    while stack:
        node = stack.pop()
        name = local(node)
        if name == "p":
            found.append(node)
        if name and name != "Fallback":
            stack += reversed(node)
    return found


def _paragraph_text(paragraph: Any) -> str:
    """The text of a paragraph without that of the text boxes anchored in it."""
    pieces: list[str] = []
    stack = list(reversed(paragraph))
    while stack:
        node = stack.pop()
        name = local(node)
        if name == "t":
            pieces.append(node.text or "")
        elif name in ("tab", "br", "cr"):
            pieces.append(" ")
        elif name and name not in ("Fallback", "txbxContent", "pPr", "rPr", "oMath", "oMathPara"):
            stack += reversed(node)
    return " ".join("".join(pieces).split())


def _folded(text: str) -> str:
    return "".join(text.removeprefix("- ").split()).casefold()


def _title(archive: zipfile.ZipFile) -> str | None:
    core = read_member(archive, "docProps/core.xml")
    if not core:
        return None
    try:
        node = parse_xml(core, recover=True).find("{http://purl.org/dc/elements/1.1/}title")
    except CorruptDocument:
        return None
    return (words(node) or None) if node is not None else None
