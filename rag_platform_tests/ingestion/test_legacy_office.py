"""Binary Word and PowerPoint: real files, and structures put together here."""

from __future__ import annotations

import csv
import io
import stat
import struct
import unicodedata
from pathlib import Path

import docx
import pytest

from rag_platform.errors import CorruptDocument, EncryptedDocument, UnsupportedFormat
from rag_platform.ingestion.parsers import legacy_office, libreoffice, powerpoint_binary, word_binary
from rag_platform.ingestion.parsers.assemble import assemble
from rag_platform.ingestion.parsers.base import Limits

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def rows() -> list[dict[str, str]]:
    path = DATA / "docs_good" / "manifest.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as f:
        return [r for r in csv.DictReader(f) if r["path"].endswith((".doc", ".ppt"))]


def fold(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@pytest.fixture(autouse=True)
def without_libreoffice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The readers of our own are what is tested, wherever the tests run."""
    monkeypatch.setattr(libreoffice, "find", lambda: None)


class Streams:
    """The part of an OLE2 container that the readers use."""

    def __init__(self, **streams: bytes) -> None:
        self._streams = {name.replace("_", " "): data for name, data in streams.items()}

    def exists(self, name: str) -> bool:
        return name in self._streams

    def openstream(self, name: str) -> io.BytesIO:
        if name not in self._streams:
            raise OSError("no such stream")
        return io.BytesIO(self._streams[name])


# ── Word ───────────────────────────────────────────────────────────────────────────────────────


def word_97(pieces: list[tuple[str, bool]], counts: list[int] | None = None, flags: int = 0) -> Streams:
    """A Word 97 document of (text, stored as cp1252) pieces."""
    text_start = 2048
    body = b""
    ends, places = [0], []
    for text, compressed in pieces:
        offset = text_start + len(body)
        places.append(offset * 2 | 0x40000000 if compressed else offset)
        body += text.encode("cp1252") if compressed else text.encode("utf-16-le")
        ends.append(ends[-1] + len(text))
    table = struct.pack(f"<{len(ends)}I", *ends) + b"".join(struct.pack("<HIH", 0, p, 0) for p in places)
    clx = b"\x01" + struct.pack("<H", 3) + b"abc" + b"\x02" + struct.pack("<I", len(table)) + table
    header = struct.pack("<6H", 0xA5EC, 193, 0, 0x409, 0, flags) + bytes(20)
    header += struct.pack("<H", 14) + bytes(28) + struct.pack("<H", 22)
    longs = bytes(12) + struct.pack("<8i", *(counts or [ends[-1], 0, 0, 0, 0, 0, 0, 0]))
    header += longs.ljust(88, b"\x00") + struct.pack("<H", 93)
    header += bytes(8 * 33) + struct.pack("<2I", 0, len(clx))
    return Streams(WordDocument=header.ljust(text_start, b"\x00") + body, **{"0Table": clx})


def test_both_kinds_of_pieces_are_joined() -> None:
    """8-bit and UTF-16 pieces follow each other in the order of the piece table."""
    blocks = word_binary.read(word_97([("Price: 5 €, “quoted”\rNext ", True), ("Привет мир\r", False)]))
    assert [b.text for b in blocks] == ["Price: 5 €, “quoted”", "Next Привет мир"]


def test_fields_show_their_result_and_objects_nothing() -> None:
    """Field codes disappear, also nested ones; what they show stays; pictures leave nothing."""
    nested = 'See \x13 HYPERLINK "https://a.example" \x14the \x13 PAGE \x14third\x15 page\x15 and \x01\x08this\x13 TOC \x15.\r'
    assert [b.text for b in word_binary.read(word_97([(nested, True)]))] == ["See the third page and this."]


def test_tables_are_one_block() -> None:
    """Cells are joined by tabs, rows by line ends."""
    text = "Before\rName\x07Age\x07\x07Ann\x0742\x07\x07After\r"
    assert [(b.kind, b.text) for b in word_binary.read(word_97([(text, True)]))] == [
        ("text", "Before"),
        ("table", "Name\tAge\nAnn\t42"),
        ("text", "After"),
    ]


def test_footnotes_and_headers_follow_the_text() -> None:
    """Footnotes come after the main text, repeated headers once, comments not at all."""
    main, note, head, comment = "Main text\r", "\x02 A note\r", "Head\rHead\r", "A remark\r"
    counts = [len(main), len(note), len(head), 0, len(comment), 0, 0, 0]
    blocks = word_binary.read(word_97([(main + note + head + comment, True)], counts))
    assert [b.text for b in blocks] == ["Main text", "A note", "Head"]


def test_word_6_reads_its_own_code_page() -> None:
    """A Word 6 document without piece table is read from where its header says, in the code page of its
    language."""
    text = "Добрый день\r".encode("cp1251")
    header = struct.pack("<6H", 0xA5DC, 101, 0, 0x419, 0, 0).ljust(0x18, b"\x00") + struct.pack(
        "<2I", 768, 768 + len(text)
    )
    header = header.ljust(0x34, b"\x00") + struct.pack("<8i", len(text), *[0] * 7)
    assert [b.text for b in word_binary.read(Streams(WordDocument=header.ljust(768, b"\x00") + text))] == [
        "Добрый день"
    ]


def test_word_errors() -> None:
    """Passwords, older versions and damage each have their own error."""
    with pytest.raises(EncryptedDocument):
        word_binary.read(word_97([("secret\r", True)], flags=0x0100))
    with pytest.raises(UnsupportedFormat):
        word_binary.read(Streams(WordDocument=struct.pack("<6H", 0xA59B, 33, 0, 0, 0, 0).ljust(600, b"\x00")))
    with pytest.raises(CorruptDocument):
        word_binary.read(Streams(WordDocument=b"\xec\xa5"))
    with pytest.raises(CorruptDocument):
        word_binary.read(Streams(WordDocument=word_97([("text\r", True)]).openstream("WordDocument").read()))


# ── PowerPoint ─────────────────────────────────────────────────────────────────────────────────


def record(kind: int, body: bytes, instance: int = 0, container: bool = False) -> bytes:
    return struct.pack("<2HI", instance << 4 | (0xF if container else 0), kind, len(body)) + body


def text_box(kind: int, text: str) -> bytes:
    encoded = record(0x0FA8, text.encode("latin-1")) if text.isascii() else record(0x0FA0, text.encode("utf-16-le"))
    return record(0x0F9F, struct.pack("<I", kind)) + encoded


def presentation(token: int = 0xE391C05F) -> Streams:
    """Two slides: the first only in the outline, the second edited by a later save."""
    stream = b""

    def append(data: bytes) -> int:
        nonlocal stream
        offset = len(stream)
        stream += data
        return offset

    def slide(text: str) -> bytes:
        return record(0x03EE, record(0x040C, text_box(4, text), container=True), container=True)

    listing = (
        record(0x03F3, struct.pack("<4I", 2, 0, 1, 256) + bytes(4))
        + text_box(0, "Title of one")
        + text_box(1, "Point a\rPoint b")
    )
    listing += record(0x03F3, struct.pack("<4I", 3, 0, 0, 257) + bytes(4))
    document = record(0x03E8, record(0x0FF0, listing, container=True), container=True)
    places = [append(document), append(record(0x03EE, b"", container=True)), append(slide("Old text"))]
    first = append(record(0x1772, struct.pack("<4I", 3 << 20 | 1, *places)))
    edit = append(record(0x0FF5, struct.pack("<7I", 0, 0, 0, first, 1, 4, 0)))
    newer = append(slide("New text ✓"))
    second = append(record(0x1772, struct.pack("<2I", 1 << 20 | 3, newer)))
    last = append(record(0x0FF5, struct.pack("<7I", 0, 0, edit, second, 1, 4, 0)))
    user = bytes(8) + struct.pack("<3I", 20, token, last) + bytes(8)
    return Streams(PowerPoint_Document=stream, Current_User=user)


def test_slides_in_order_and_newest_version() -> None:
    """Slides come in presentation order with their numbers; a text replaced by a later save is gone."""
    blocks, count = powerpoint_binary.read(presentation())
    assert count == 2
    assert [(b.kind, b.page, b.text) for b in blocks] == [
        ("heading", 1, "Title of one"),
        ("text", 1, "Point a"),
        ("text", 1, "Point b"),
        ("text", 2, "New text ✓"),
    ]


def test_a_broken_chain_of_edits_is_read_in_file_order() -> None:
    """Without the directory of edits every text is read once, with no slide number."""
    stream = presentation().openstream("PowerPoint Document").read()
    blocks, count = powerpoint_binary.read(Streams(PowerPoint_Document=stream))
    assert count is None
    assert {b.text for b in blocks} == {"Title of one", "Point a", "Point b", "Old text", "New text ✓"}


def test_powerpoint_errors() -> None:
    """A password and a missing stream each have their own error; cut-off records end the reading."""
    with pytest.raises(EncryptedDocument):
        powerpoint_binary.read(presentation(token=0xF3D1C4DF))
    with pytest.raises(CorruptDocument):
        powerpoint_binary.read(Streams())
    stream = presentation().openstream("PowerPoint Document").read()
    for size in range(0, len(stream), 7):
        powerpoint_binary.read(
            Streams(PowerPoint_Document=stream[:size], Current_User=presentation().openstream("Current User").read())
        )


# ── both ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not rows(), reason="shared/data is not there")
@pytest.mark.timeout(30)
@pytest.mark.parametrize("row", [pytest.param(r, id=r["path"]) for r in rows()] or [pytest.param({}, id="absent")])
def test_real_files_yield_their_known_sentences(row: dict[str, str]) -> None:
    """Each real .doc and .ppt yields the sentences that its manifest names, without LibreOffice."""
    path = DATA / "docs_good" / row["path"]
    document = assemble(legacy_office.parse(path.read_bytes(), path.suffix, Limits()), Limits())
    assert [e for e in row["expected"].split(" || ") if fold(e) not in fold(document.text)] == []


@pytest.mark.skipif(not rows(), reason="shared/data is not there")
@pytest.mark.parametrize("name", ["docling__legacy_sample.ppt", "unst__simple.doc", "tika__testWORD6.doc"])
@pytest.mark.timeout(60)
def test_damaged_files_raise_document_errors_only(name: str) -> None:
    """Real files with bytes overwritten at 150 seeded places, or cut off, parse or dead-letter."""
    import random

    from rag_platform.errors import DocumentError

    whole = (DATA / "docs_good" / name).read_bytes()
    chance = random.Random(11)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 12)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        try:
            legacy_office.parse(bytes(data), Path(name).suffix, Limits())
        except DocumentError:
            continue


def test_what_is_no_container() -> None:
    """Bytes that are no OLE2 container are corrupt."""
    for data in (
        b"",
        b"plain text",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(3000),
    ):
        with pytest.raises(CorruptDocument):
            legacy_office.parse(data, ".doc", Limits())


@pytest.mark.skipif(not rows(), reason="shared/data is not there")
def test_the_cure_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where our reader fails and LibreOffice is missing, the error says what to install."""

    def refuse(container: object) -> None:
        raise CorruptDocument("damaged")

    monkeypatch.setattr(word_binary, "read", refuse)
    data = (DATA / "docs_good" / "unst__simple.doc").read_bytes()
    with pytest.raises(UnsupportedFormat, match="apt-get install libreoffice-writer"):
        legacy_office.parse(data, ".doc", Limits())


@pytest.mark.skipif(not rows(), reason="shared/data is not there")
@pytest.mark.parametrize("works", [True, False])
def test_libreoffice_converts_where_it_is_installed(
    works: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The converter's document is what is read, in a profile of its own; when the converter fails, our
    own reader answers. (A script stands for LibreOffice, which is not installed here.)"""
    written = docx.Document()
    written.add_heading("Converted heading", level=1)
    written.add_paragraph("Converted paragraph.")
    written.save(str(tmp_path / "result.docx"))
    program = tmp_path / "soffice"
    copy = f'out=""; while [ $# -gt 0 ]; do [ "$1" = --outdir ] && out="$2"; shift; done; mkdir -p "$out"; cp "{tmp_path}/result.docx" "$out/document.docx"'
    program.write_text("#!/bin/sh\n" + (copy if works else "exit 77") + "\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(libreoffice, "find", lambda: str(program))
    raw = legacy_office.parse((DATA / "docs_good" / "unst__simple.doc").read_bytes(), ".doc", Limits())
    text = "\n".join(b.text for b in raw.blocks)
    assert raw.mime_type == "application/msword"
    assert ("Converted paragraph." in text) == works
    assert ("my favorite things" in text) != works
    assert raw.parser.startswith("libreoffice+") == works
