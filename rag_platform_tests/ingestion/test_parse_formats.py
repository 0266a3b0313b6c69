"""What a file is, is decided by its content; containers are checked before any parser opens them."""

from __future__ import annotations

import ast
import gzip
import io
import zipfile
from pathlib import Path

import pytest

from rag_platform.errors import (
    CorruptDocument,
    DocumentError,
    EmptyDocument,
    EncryptedDocument,
    LimitExceeded,
    UnsupportedFormat,
)
from rag_platform.ingestion.parsers import formats, mail, web, xml_text
from rag_platform.ingestion.parsers.base import Limits
from rag_platform.ingestion.parsers.compressed import parse as parse_gzip
from rag_platform.ingestion.parsers.containers import open_zip
from rag_platform.ingestion.parsers.sniff import decide

LIMITS = Limits()


def make_zip(**members: str | bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return out.getvalue()


OOXML = {"[Content_Types].xml": "<Types/>"}


def test_every_parser_keeps_the_contract() -> None:
    """Suffixes are lower-case with a dot and claimed once; a module with suffixes has VERSION and parse."""
    for module in formats.modules().values():
        assert all(s.startswith(".") and s == s.lower() for s in module.suffixes), module.name
        if module.suffixes:
            source = (Path(formats.__file__).parent / f"{module.name}.py").read_text()
            functions = {n.name for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}
            assert "parse" in functions, module.name
    assert {".pdf", ".docx", ".xlsx", ".pptx", ".html", ".eml", ".msg", ".epub", ".rtf"} <= set(formats.by_suffix())


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (b"%PDF-1.7\n...", "note.txt", ".pdf"),
        (b"\n\nheader junk %PDF-1.4\n", "a", ".pdf"),
        (make_zip(**OOXML, word__document="x"), "no_extension", ".docx"),
        (make_zip(**OOXML, xl__workbook="x"), "report.pdf", ".xlsx"),
        (make_zip(**OOXML, ppt__presentation="x"), "x.docx", ".pptx"),
        (make_zip(mimetype="application/epub+zip"), "book.zip", ".epub"),
        (make_zip(mimetype="application/vnd.oasis.opendocument.text", content="x"), "a.doc", ".odt"),
        (b"{\\rtf1 text}", "a.doc", ".rtf"),
        (b"<!DOCTYPE html><html><body>x", "export.xls", ".html"),
        (b"<!DOCTYPE html><html><body>x", "page", ".html"),
        (b"a\tb\nc\td\n", "export.xls", ".tsv"),
        (b"just words", "README", ".txt"),
        (b"just words", "strange.suffix", ".txt"),
        (b"<?xml version='1.0'?><a>x</a>", "feed", ".xml"),
        (b"# words", "a.md", ".md"),
        (gzip.compress(b"words", mtime=0), "a.txt", ".gz"),
    ],
)
def test_content_decides(data: bytes, name: str, expected: str) -> None:
    """A wrong, missing or foreign extension does not matter when the content is unmistakable."""
    assert decide(data, name, LIMITS) == expected


@pytest.mark.parametrize(
    ("data", "name", "error", "says"),
    [
        (b"MZ\x90\x00" + b"\x00" * 60, "setup.txt", UnsupportedFormat, "executable"),
        (b"\x7fELF\x02\x01", "a.txt", UnsupportedFormat, "executable"),
        (make_zip(a="x", b="y"), "a.zip", UnsupportedFormat, "zip archive"),
        (b"7z\xbc\xaf\x27\x1c\x00\x04", "a.7z", UnsupportedFormat, "7z archive"),
        (b"\x00" * 257 + b"ustar" + b"\x00" * 300, "a.txt", UnsupportedFormat, "tar"),
        (b"\x00\x00\x00\x18ftypmp42", "a.mp4", UnsupportedFormat, "audio or video"),
        (b"plain words", "a.docx", CorruptDocument, "plain text"),
        (b"\x93\x81\x02" * 99, "a.docx", CorruptDocument, "not a zip container"),
        (b"PK\x03\x04 cut off", "a.docx", CorruptDocument, "damaged"),
        (bytes(range(256)) * 9, "a.xyz", UnsupportedFormat, "binary"),
        (b"  \n ", "a.docx", EmptyDocument, "white space"),
    ],
)
def test_refusals_say_why(data: bytes, name: str, error: type[DocumentError], says: str) -> None:
    """Archives, programs, media and damaged containers are refused with a reason."""
    with pytest.raises(error, match=says):
        decide(data, name, LIMITS)


def test_expansion_bombs_are_refused_unopened() -> None:
    """Ratio, total size and number of members are bounded; ordinary compression is not a bomb."""
    with pytest.raises(LimitExceeded, match="bomb"):
        decide(make_zip(**OOXML, word__document=b"a" * 20_000_000), "a.docx", LIMITS)
    with pytest.raises(LimitExceeded, match="expands to"):
        decide(make_zip(**OOXML, word__document=b"a" * 3000), "a.docx", Limits(max_expanded_bytes=2000))
    assert decide(make_zip(**OOXML, word__document=b"a" * 5_000_000), "a.docx", LIMITS) == ".docx"
    with pytest.raises(LimitExceeded, match="unpacks"):
        parse_gzip(gzip.compress(b"a" * 5000, mtime=0), ".gz", Limits(max_expanded_bytes=2000))


def test_encrypted_containers() -> None:
    """An encrypted zip member, and OpenDocument's own encryption, need a password."""
    data = bytearray(make_zip(**OOXML, word__document="x"))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        data[at + offset] |= 1
    with pytest.raises(EncryptedDocument):
        open_zip(bytes(data), LIMITS)
    manifest = "<m><encryption-data/></m>"
    odt = make_zip(mimetype="application/vnd.oasis.opendocument.text", **{"META-INF/manifest.xml": manifest})
    with pytest.raises(EncryptedDocument):
        decide(odt, "a.odt", LIMITS)


def test_nested_gzip_ends() -> None:
    """Documents inside documents are bounded in depth."""
    data = b"words"
    for _ in range(6):
        data = gzip.compress(data, mtime=0)
    with pytest.raises(LimitExceeded, match="deep"):
        parse_gzip(data, ".gz", LIMITS)


def test_xml_reads_no_external_entity_and_expands_none(tmp_path: Path) -> None:
    """XXE finds nothing; a billion laughs stay one."""
    secret = tmp_path / "secret"
    secret.write_text("TOP-SECRET")
    xxe = f'<!DOCTYPE a [<!ENTITY x SYSTEM "file://{secret}">]><a><b>safe &x; words</b></a>'
    text = "\n".join(b.text for b in xml_text.parse(xxe.encode(), ".xml", LIMITS).blocks)
    assert "TOP-SECRET" not in text
    assert "words" in text
    bomb = '<!DOCTYPE a [<!ENTITY a "ha">' + "".join(
        f'<!ENTITY {chr(98 + i)} "{"&" + chr(97 + i) + ";" * 1}{("&" + chr(97 + i) + ";") * 9}">' for i in range(12)
    )
    bomb += "]><a><b>words &m;</b></a>"
    text = "\n".join(b.text for b in xml_text.parse(bomb.encode(), ".xml", LIMITS).blocks)
    assert len(text) < 1000


def test_html_structure() -> None:
    """Headings with levels, lists, tables as rows, code as it stands; scripts, hidden parts and navigation go."""
    page = b"""<html lang="de-AT"><head><title>The  title</title><script>bad()</script></head><body>
    <nav>menu</nav><h1>Head</h1><p>One <b>bold</b>word and <a href=x>link</a>.<br>Next line</p>
    <ul><li>first</li><li><p>second</p></li></ul><div style="display:none">unseen</div>
    <table><tr><th>A</th><th>B</th></tr><tr><td>1</td><td></td></tr><tr><td>2</td><td>x<br>y</td></tr></table>
    <pre>if x:\n    y</pre><noscript>no</noscript>tail text</body></html>"""
    raw = web.parse(page, ".html", LIMITS)
    assert (raw.title, raw.language) == ("The  title", "de")
    assert [(b.kind, b.level, b.text) for b in raw.blocks] == [
        ("heading", 1, "Head"),
        ("text", 0, "One boldword and link.\nNext line"),
        ("list_item", 0, "- first"),
        ("list_item", 0, "- second"),
        ("table", 0, "A | B\n1\n2 | x y"),
        ("code", 0, "if x:\n    y"),
        ("text", 0, "tail text"),
    ]


def test_deep_and_unclosed_html_is_read() -> None:
    """Fifty thousand open elements neither recurse nor lose the text."""
    raw = web.parse(b"<div><b><i>" * 20_000 + b"the end", ".html", LIMITS)
    assert raw.blocks[-1].text == "the end"


def test_a_layout_table_is_read_as_text() -> None:
    """A table around a whole page is not data."""
    page = "<table><tr><td><h2>Part</h2><p>" + "word " * 500 + "</p></td></tr></table>"
    assert web.parse(page.encode(), ".html", LIMITS).blocks[0].kind == "heading"


def test_mail_with_attachments() -> None:
    """Readable attachments become part of the mail's text; others become warnings; names are never paths."""
    message = (
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nFrom: a@example.invalid\nMIME-Version: 1.0\n"
        b'Content-Type: multipart/mixed; boundary="B"\n\n--B\nContent-Type: text/plain\n\nthe body\n'
        b'--B\nContent-Type: text/markdown\nContent-Disposition: attachment; filename="../../etc/notes.md"\n\n# Inside\n'
        b'--B\nContent-Type: application/zip\nContent-Disposition: attachment; filename="a.zip"\n'
        b"Content-Transfer-Encoding: base64\n\nUEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==\n--B--\n"
    )
    raw = mail.parse(message, ".eml", LIMITS)
    assert raw.title == "Grüße"
    assert [b.text for b in raw.blocks] == [
        "Subject: Grüße\nFrom: a@example.invalid",
        "the body",
        "Attachment: notes.md",
        "# Inside",
    ]
    assert raw.warnings == ["attachment a.zip: unsupported_format"]


def test_mails_in_mails_are_bounded() -> None:
    """A mail attached to a mail is read, to a limited depth, without failing the outer one."""
    inner = b"Subject: deepest\n\nthe core\n"
    for level in range(5):
        head = f'Subject: level {level}\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="B{level}"\n\n'
        part = f"--B{level}\nContent-Type: message/rfc822\n\n".encode() + inner
        inner = head.encode() + part + f"\n--B{level}--\n".encode()
    raw = mail.parse(inner, ".eml", LIMITS)
    text = "\n".join(b.text for b in raw.blocks)
    assert "level 4" in text
    assert "level 2" in text
    assert "the core" not in text
    assert any("limit_exceeded" in w for w in raw.warnings)
