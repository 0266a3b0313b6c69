"""Text of a binary PowerPoint document (.ppt), without any program. Layout per [MS-PPT].

The newest version of each slide is found by the chain of edits; slides come in presentation order, each
with its speaker's notes. Where the chain is broken, every text record of the stream is read in file order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import olefile

from rag_platform.errors import CorruptDocument, EncryptedDocument
from rag_platform.ingestion.parsers.base import Block

_DOCUMENT, _SLIDE, _NOTES, _NOTES_ATOM = 0x03E8, 0x03EE, 0x03F0, 0x03F1
_SLIDE_PERSIST, _SLIDE_LIST, _EDIT, _DIRECTORY = 0x03F3, 0x0FF0, 0x0FF5, 0x1772
_TEXT_HEADER, _TEXT_CHARS, _TEXT_BYTES, _OUTLINE_REF = 0x0F9F, 0x0FA0, 0x0FA8, 0x0F9E
_SLIDES, _NOTES_LIST = 0, 2  # instances of _SLIDE_LIST
VERSION: Final = 1

_TITLES: Final = (0, 6)
_NOTES_TEXT: Final = 2
_NO_TYPE: Final = 4
_ENCRYPTED_TOKEN: Final = 0xF3D1C4DF
_MAX_DEPTH: Final = 40
_MAX_EDITS: Final = 10_000
_MAX_RECORDS: Final = 2_000_000


@dataclass(frozen=True, slots=True)
class _Record:
    kind: int
    instance: int
    start: int
    end: int
    is_container: bool


@dataclass(slots=True)
class _Slide:
    """A slide of the presentation order: where its drawing is, and its outline texts (type, text)."""

    persist_id: int
    slide_id: int
    outline: list[tuple[int, str]] = field(default_factory=list)


def read(container: olefile.OleFileIO) -> tuple[list[Block], int | None]:
    """Return the blocks and the number of slides (None when unknown).

    Raises:
        EncryptedDocument: it needs a password.
        CorruptDocument: its structure does not hold together.
    """
    try:
        stream = container.openstream("PowerPoint Document").read()
        user = container.openstream("Current User").read() if container.exists("Current User") else b""
    except OSError as e:
        raise CorruptDocument("the presentation's structure is damaged") from e
    if len(user) >= 20:
        token, edit = struct.unpack_from("<2I", user, 12)
        if token == _ENCRYPTED_TOKEN or container.exists("EncryptedSummary"):
            raise EncryptedDocument("the presentation needs a password")
        try:
            blocks, count = _by_slides(stream, edit)
            if blocks:
                return blocks, count
        except (struct.error, ValueError, KeyError, IndexError, RecursionError):
            pass  # a broken chain of edits: read the records as they lie
    return _in_file_order(stream), None


def _records(stream: bytes, start: int, end: int) -> Iterator[_Record]:
    """Yield the records side by side in ``stream[start:end]``; stops where they stop making sense."""
    end = min(end, len(stream))
    while start + 8 <= end:
        head, kind, size = struct.unpack_from("<2HI", stream, start)
        if start + 8 + size > end:
            return
        yield _Record(kind, head >> 4, start + 8, start + 8 + size, head & 0xF == 0xF)
        start += 8 + size


def _record_at(stream: bytes, offset: int) -> _Record:
    for record in _records(stream, offset, len(stream)):
        return record
    raise ValueError("no record")


def _texts(stream: bytes, start: int, end: int, outline: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield (text type, text) of all text records below, in file order; references into ``outline`` are
    followed."""
    stack: list[Iterator[_Record]] = [_records(stream, start, end)]
    kind, seen = _NO_TYPE, 0
    while stack:
        record = next(stack[-1], None)
        if record is None:
            stack.pop()
            continue
        seen += 1
        if seen > _MAX_RECORDS:
            return
        body = stream[record.start : record.end] if not record.is_container else b""
        if record.is_container:
            if len(stack) < _MAX_DEPTH:
                stack.append(_records(stream, record.start, record.end))
        elif record.kind == _TEXT_HEADER and len(body) >= 4:
            (kind,) = struct.unpack_from("<I", body, 0)
        elif record.kind == _TEXT_CHARS:
            yield kind, body.decode("utf-16-le", "replace")
        elif record.kind == _TEXT_BYTES:
            yield kind, body.decode("latin-1")
        elif record.kind == _OUTLINE_REF and len(body) >= 4:
            (index,) = struct.unpack_from("<I", body, 0)
            if index < len(outline):
                yield outline[index]


def _directory(stream: bytes, edit: int) -> tuple[dict[int, int], int]:
    """Return the offset of every persistent object, newest edit first, and the document's id."""
    offsets: dict[int, int] = {}
    document = 0
    for _ in range(_MAX_EDITS):
        record = _record_at(stream, edit)
        if record.kind != _EDIT:
            raise ValueError("no edit")
        previous, directory, root = struct.unpack_from("<3I", stream, record.start + 8)
        document = document or root
        table = _record_at(stream, directory)
        if table.kind != _DIRECTORY:
            raise ValueError("no directory")
        position = table.start
        while position + 4 <= table.end:
            (entry,) = struct.unpack_from("<I", stream, position)
            first, count = entry & 0xFFFFF, entry >> 20
            for i, offset in enumerate(struct.unpack_from(f"<{count}I", stream, position + 4)):
                offsets.setdefault(first + i, offset)
            position += 4 + 4 * count
        if previous == 0 or previous >= edit:
            return offsets, document
        edit = previous
    raise ValueError("too many edits")


def _slides(stream: bytes, document: _Record, instance: int) -> list[_Slide]:
    slides: list[_Slide] = []
    for listing in _records(stream, document.start, document.end):
        if listing.kind != _SLIDE_LIST or listing.instance != instance:
            continue
        kind = _NO_TYPE
        for record in _records(stream, listing.start, listing.end):
            if record.kind == _SLIDE_PERSIST:
                persist_id, _, _, slide_id = struct.unpack_from("<4I", stream, record.start)
                slides.append(_Slide(persist_id, slide_id))
            elif record.kind == _TEXT_HEADER:
                (kind,) = struct.unpack_from("<I", stream, record.start)
            elif record.kind in (_TEXT_CHARS, _TEXT_BYTES) and slides:
                body = stream[record.start : record.end]
                encoding = "utf-16-le" if record.kind == _TEXT_CHARS else "latin-1"
                slides[-1].outline.append((kind, body.decode(encoding, "replace")))
    return slides


def _by_slides(stream: bytes, edit: int) -> tuple[list[Block], int]:
    offsets, root = _directory(stream, edit)
    document = _record_at(stream, offsets[root])
    if document.kind != _DOCUMENT:
        raise ValueError("no document")
    notes = _notes(stream, offsets, _slides(stream, document, _NOTES_LIST))
    blocks: list[Block] = []
    slides = _slides(stream, document, _SLIDES)
    for number, slide in enumerate(slides, start=1):
        texts: list[tuple[int, str]] = []
        if slide.persist_id in offsets:
            drawing = _record_at(stream, offsets[slide.persist_id])
            if drawing.kind == _SLIDE:
                texts = list(_texts(stream, drawing.start, drawing.end, slide.outline))
        shown = set(texts)
        texts = [t for t in slide.outline if t not in shown] + texts
        texts.sort(key=lambda t: t[0] not in _TITLES)
        for kind, text in texts:
            blocks += _blocks(kind, text, number)
        for text in notes.get(slide.slide_id, ()):
            blocks += _blocks(_NOTES_TEXT, text, number)
    return blocks, len(slides)


def _notes(stream: bytes, offsets: dict[int, int], pages: list[_Slide]) -> dict[int, list[str]]:
    """Return the speaker's notes by slide id."""
    found: dict[int, list[str]] = {}
    for page in pages:
        if page.persist_id not in offsets:
            continue
        record = _record_at(stream, offsets[page.persist_id])
        if record.kind != _NOTES:
            continue
        slide_id = 0
        for child in _records(stream, record.start, record.end):
            if child.kind == _NOTES_ATOM:
                (slide_id,) = struct.unpack_from("<I", stream, child.start)
        texts = [t for kind, t in _texts(stream, record.start, record.end, page.outline) if kind == _NOTES_TEXT]
        texts += [t for kind, t in page.outline if kind == _NOTES_TEXT and t not in texts]
        found.setdefault(slide_id, []).extend(texts)
    return found


def _in_file_order(stream: bytes) -> list[Block]:
    seen: set[str] = set()
    blocks: list[Block] = []
    for kind, text in _texts(stream, 0, len(stream), []):
        if text not in seen:  # each save appends the slide anew
            seen.add(text)
            blocks += _blocks(kind, text, None)
    return blocks


def _blocks(kind: int, text: str, slide: int | None) -> list[Block]:
    paragraphs = [p.strip() for p in text.replace("\x0b", "\n").split("\r")]
    paragraphs = [p for p in paragraphs if p and p != "*"]  # "*" stands for a slide number or date
    if kind in _TITLES and paragraphs:
        return [Block("heading", " ".join(" ".join(paragraphs).split()), slide, 1)]
    return [Block("text", p, slide) for p in paragraphs]
