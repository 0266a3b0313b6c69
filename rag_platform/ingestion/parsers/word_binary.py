"""Text of a binary Word document (.doc), without any program: Word 97 and later by its piece table,
Word 6 and 95 also without one. Layout per [MS-DOC]; Word 6 offsets from the older specification.
"""

from __future__ import annotations

import re
import struct
from typing import Final

import olefile

from rag_platform.errors import CorruptDocument, EncryptedDocument, UnsupportedFormat
from rag_platform.ingestion.parsers.base import Block

VERSION: Final = 1

_WORD_97: Final = 0xA5EC
_WORD_6: Final = 0xA5DC
_COMPLEX, _ENCRYPTED, _TABLE_1 = 0x0004, 0x0100, 0x0200
_CLX_INDEX: Final = 33
_WORD_6_CCP: Final = 0x34
_WORD_6_CLX: Final = 0x160
_MAX_PIECES: Final = 500_000
_COMPRESSED: Final = 0x40000000

# Code pages of Word 6 documents by language; Word 97's 8-bit pieces are always cp1252.
_CODE_PAGES: Final = {
    0x05: "cp1250", 0x0E: "cp1250", 0x15: "cp1250", 0x18: "cp1250", 0x1A: "cp1250", 0x1B: "cp1250", 0x24: "cp1250",
    0x02: "cp1251", 0x19: "cp1251", 0x22: "cp1251", 0x23: "cp1251", 0x08: "cp1253", 0x1F: "cp1254", 0x0D: "cp1255",
    0x01: "cp1256", 0x25: "cp1257", 0x26: "cp1257", 0x27: "cp1257", 0x11: "cp932", 0x04: "gbk", 0x12: "cp949",
}  # fmt: skip

_FIELD: Final = re.compile("\x13[^\x13\x14\x15]*(?:\x14([^\x13\x14\x15]*))?\x15")
_MAX_FIELD_DEPTH: Final = 30
_REPLACED: Final = str.maketrans({"\x0b": "\n", "\x1e": "-", "\x1f": "", "\xa0": " ", "\x0c": "\r", "\x0e": "\r"})
_OBJECTS: Final = re.compile("[\x00-\x06\x08\x0f-\x1d]")


def read(container: olefile.OleFileIO) -> list[Block]:
    """Return the paragraphs of the main text, then text boxes, footnotes, endnotes and headers.

    Raises:
        EncryptedDocument: it needs a password.
        UnsupportedFormat: not Word 6 or later.
        CorruptDocument: its structure does not hold together.
    """
    try:
        stream = container.openstream("WordDocument").read()
        ident, _, _, language, _, flags = struct.unpack_from("<6H", stream, 0)
        if ident not in (_WORD_97, _WORD_6):
            raise UnsupportedFormat("a Word document older than Word 6", cure="save it as .docx")
        if flags & _ENCRYPTED:
            raise EncryptedDocument("the Word document needs a password")
        if ident == _WORD_97:
            table = container.openstream("1Table" if flags & _TABLE_1 else "0Table").read()
            counts, clx = _word_97_header(stream)
            text = _pieces(stream, table[clx[0] : clx[0] + clx[1]], "cp1252", has_compression=True)
        else:
            page = _CODE_PAGES.get(language & 0x3FF, "cp1252")
            counts, text = _word_6(stream, page if language != 0x0404 else "big5", bool(flags & _COMPLEX))
    except (struct.error, OSError, ValueError, IndexError) as e:
        raise CorruptDocument("the Word document's structure is damaged") from e
    return _blocks(text, counts)


def _word_97_header(stream: bytes) -> tuple[list[int], tuple[int, int]]:
    """Return the character counts of the parts (main, footnotes, headers, macros, comments, endnotes,
    text boxes, header text boxes) and (offset, size) of the piece table."""
    (short_count,) = struct.unpack_from("<H", stream, 32)
    longs = 34 + 2 * short_count + 2
    (long_count,) = struct.unpack_from("<H", stream, longs - 2)
    counts = list(struct.unpack_from("<8i", stream, longs + 12))
    pairs = longs + 4 * long_count + 2
    offset, size = struct.unpack_from("<2I", stream, pairs + 8 * _CLX_INDEX)
    return counts, (offset, size)


def _word_6(stream: bytes, code_page: str, is_complex: bool) -> tuple[list[int], str]:
    counts = list(struct.unpack_from("<8i", stream, _WORD_6_CCP))
    if is_complex:
        offset, size = struct.unpack_from("<2I", stream, _WORD_6_CLX)
        return counts, _pieces(stream, stream[offset : offset + size], code_page, has_compression=False)
    start, end = struct.unpack_from("<2I", stream, 0x18)
    return counts, stream[start:end].decode(code_page, "replace")


def _pieces(stream: bytes, clx: bytes, code_page: str, *, has_compression: bool) -> str:
    """Return the text that the piece table ``clx`` puts together."""
    position = 0
    while clx[position] == 1:  # property modifiers come before the pieces
        (size,) = struct.unpack_from("<H", clx, position + 1)
        position += 3 + size
    if clx[position] != 2:
        raise ValueError("no piece table")
    (size,) = struct.unpack_from("<I", clx, position + 1)
    count = (size - 4) // 12
    if not 0 < count <= _MAX_PIECES:
        raise ValueError("piece count")
    ends = struct.unpack_from(f"<{count + 1}I", clx, position + 5)
    parts: list[str] = []
    for i in range(count):
        length = ends[i + 1] - ends[i]
        if length < 0:
            raise ValueError("piece order")
        (place,) = struct.unpack_from("<I", clx, position + 5 + 4 * (count + 1) + 8 * i + 2)
        if has_compression and not place & _COMPRESSED:
            raw = stream[place : place + 2 * length].decode("utf-16-le", "surrogatepass")
        else:
            start = (place & ~_COMPRESSED) // 2 if has_compression else place
            raw = stream[start : start + length].decode(code_page, "replace")
        # keep the count of characters, on which the parts' boundaries depend
        parts.append(raw.ljust(length, "\x00") if code_page == "cp1252" else raw)
    return "".join(parts)


def _blocks(text: str, counts: list[int]) -> list[Block]:
    main, footnotes, headers, macros, comments, endnotes, boxes, header_boxes = (max(0, n) for n in counts)
    sizes = (main, footnotes, headers, macros, comments, endnotes, boxes, header_boxes)
    if main == 0 or main > len(text):
        return _part(text)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    found = _part(text[:main])
    for index in (6, 1, 5):
        found += _part(text[starts[index] : starts[index] + sizes[index]])
    seen = {b.text for b in found}
    for index in (2, 7):  # each section repeats its headers
        for block in _part(text[starts[index] : starts[index] + sizes[index]]):
            if block.text not in seen and any(c.isalpha() for c in block.text):
                seen.add(block.text)
                found.append(block)
    return found


def _part(text: str) -> list[Block]:
    """Split one part of the text at its paragraph marks; cells of a table become one block."""
    for _ in range(_MAX_FIELD_DEPTH):  # innermost fields first: what they show stays, what they are goes
        text, changed = _FIELD.subn(lambda m: m[1] or "", text)
        if not changed:
            break
    text = _OBJECTS.sub("", text.translate(_REPLACED))
    blocks: list[Block] = []
    table: list[list[str]] = []
    row: list[str] = []
    for piece in re.findall("[^\r\x07]*[\r\x07]?", text):
        content = piece.rstrip("\r\x07").strip()
        if piece.endswith("\x07"):
            if content or not row:
                row.append(content.replace("\n", " "))
            else:  # an empty cell and the end of a row look the same
                table.append(row)
                row = []
            continue
        if content and row:
            row.append(content.replace("\n", " "))  # a further paragraph of the next cell
        elif content:
            _flush(blocks, table)
            blocks.append(Block("text", content))
    if row:
        table.append(row)
    _flush(blocks, table)
    return blocks


def _flush(blocks: list[Block], table: list[list[str]]) -> None:
    rows = ["\t".join(row) for row in table if any(row)]
    if rows:
        blocks.append(Block("table", "\n".join(rows)))
    table.clear()
