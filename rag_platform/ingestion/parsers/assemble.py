"""Blocks of a parser in, one clean text with exact element spans out.

The text is NFC, has ``\\n`` newlines and no control character but newline and tab, no lone surrogate
and no byte-order mark. Blocks are joined by a blank line, ``tight`` blocks by a newline.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from rag_platform.errors import EmptyDocument, LimitExceeded
from rag_platform.ingestion.parsers.base import Block, Limits, RawDocument
from rag_platform.records import Element, ParsedDocument

VERSION: Final = 1

_SUSPICIOUS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
"""Any character of the three patterns below; most blocks hold none, and one search is cheaper than three."""
_LINE_ENDS: Final = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_UNWANTED: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_ESCAPE_SEQUENCES: Final = re.compile(
    "\x1b(?:\\[[0-9;:?]{0,32}[ -/]{0,4}[@-~]|\\][^\x07\x1b\n]{0,256}(?:\x07|\x1b\\\\))"
)
_INVISIBLE: Final = re.compile(
    "[\\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\u3164\ufeff\ufffd]+"
)
_MAX_WARNINGS: Final = 50
_MAX_TITLE_CHARS: Final = 500


def clean(text: str) -> str:
    """Return ``text`` normalised as the module says. Pairs of surrogates become their character,
    lone ones U+FFFD; terminal escape sequences are dropped whole."""
    if _SUSPICIOUS.search(text):
        if _SURROGATES.search(text):
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        text = _LINE_ENDS.sub("\n", text)
        if _UNWANTED.search(text):
            text = _UNWANTED.sub("", _ESCAPE_SEQUENCES.sub("", text))
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    return text


def clean_title(title: str | None) -> str | None:
    """Return a one-line title of at most 500 characters, or None."""
    folded = " ".join(clean(title).split()) if title else ""
    return folded[:_MAX_TITLE_CHARS].rstrip() or None


def assemble(raw: RawDocument, limits: Limits) -> ParsedDocument:
    """Join and clean the blocks of ``raw``.

    Raises:
        LimitExceeded: more text than ``limits.max_text_chars`` or more pages than ``limits.max_pages``.
        EmptyDocument: no visible character.
    """
    if raw.page_count is not None and raw.page_count > limits.max_pages:
        raise LimitExceeded(f"has {raw.page_count} pages; the limit is {limits.max_pages}")
    parts: list[str] = []
    elements: list[Element] = []
    position = 0
    visible = False
    for block in raw.blocks:
        text = _trim(block)
        if not text:
            continue
        glue = ("\n" if block.tight else "\n\n") if parts else ""
        start = position + len(glue)
        position = start + len(text)
        if position > limits.max_text_chars:
            raise LimitExceeded(f"holds more than {limits.max_text_chars} characters of text")
        parts += (glue, text)
        elements.append(Element(block.kind, start, position, block.page, max(0, min(block.level, 9))))
        visible = visible or _INVISIBLE.fullmatch(text) is None
    if not visible:
        raise EmptyDocument("was read and holds no text")
    return ParsedDocument(
        text="".join(parts),
        elements=tuple(elements),
        mime_type=raw.mime_type,
        title=clean_title(raw.title),
        language=raw.language,
        page_count=raw.page_count,
        ocr_pages=tuple(raw.ocr_pages),
        parser=raw.parser,
        warnings=tuple(clean(w)[:300] for w in raw.warnings[:_MAX_WARNINGS]),
    )


def _trim(block: Block) -> str:
    """Clean a block; drop blank lines around it but keep the indentation of its first line, which
    means something in code and nested lists."""
    text = clean(block.text).rstrip()
    if block.kind in ("code", "list_item"):
        first = len(text) - len(text.lstrip())
        return text[text.rfind("\n", 0, first) + 1 :]
    return text.lstrip()
