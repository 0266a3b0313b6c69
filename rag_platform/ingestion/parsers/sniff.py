"""What a file really is, from its first bytes and, for containers, its members.

Wrong extensions are common (a PDF named .txt, a docx without a suffix), so content decides whenever it
is unmistakable; a suffix decides only between kinds of text.
"""

from __future__ import annotations

import re
from typing import Final

from rag_platform.errors import CorruptDocument, EmptyDocument, UnsupportedFormat
from rag_platform.ingestion.parsers.base import Limits
from rag_platform.ingestion.parsers.encoding import is_text
from rag_platform.ingestion.parsers.formats import by_suffix, suffix_of

VERSION: Final = 1

HEAD_BYTES: Final = 4096
_OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")

_READABLE: Final = (
    (b"{\\rtf", ".rtf"),
    (b"\x1f\x8b\x08", ".gz"),
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"II*\x00", ".tiff"),
    (b"MM\x00*", ".tiff"),
    (b"GIF87a", ".gif"),
    (b"GIF89a", ".gif"),
)
_REFUSED: Final = (
    (b"\x7fELF", "an executable program"),
    (b"\xfe\xed\xfa\xce", "an executable program"),
    (b"\xfe\xed\xfa\xcf", "an executable program"),
    (b"\xcf\xfa\xed\xfe", "an executable program"),
    (b"\xca\xfe\xba\xbe", "an executable program"),
    (b"\x00asm", "an executable program"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive; unpack it first"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first"),
    (b"MSCF\x00\x00\x00\x00", "a cabinet archive; unpack it first"),
    (b"!<arch>\n", "an ar archive; unpack it first"),
    (b"PAR1", "a Parquet table"),
    (b"SQLite format 3\x00", "a SQLite database"),
    (b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d", "a OneNote section"),
    (b"!BDN", "an Outlook mailbox"),
    (b"OggS", "audio or video"),
    (b"fLaC", "audio or video"),
    (b"ID3", "audio or video"),
    (b"\x1a\x45\xdf\xa3", "audio or video"),
    (b"FLV\x01", "audio or video"),
    (b"\x00\x01\x00\x00\x00", "a font"),
    (b"OTTO\x00", "a font"),
    (b"wOFF", "a font"),
    (b"wOF2", "a font"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
)
_HTML: Final = re.compile(
    rb"\s{0,512}(?:<!--.{0,512}?-->\s{0,512})?<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
_MAIL: Final = re.compile(
    rb"(?:From \S|(?:Return-Path|Received|Message-ID|MIME-Version|Delivered-To|From|Subject|Date):[ \t])", re.IGNORECASE
)
_BINARY_SUFFIXES: Final = {
    ".docx": "a zip container", ".docm": "a zip container", ".dotx": "a zip container", ".dotm": "a zip container",
    ".pptx": "a zip container", ".pptm": "a zip container", ".ppsx": "a zip container", ".potx": "a zip container",
    ".xlsx": "a zip container", ".xlsm": "a zip container", ".xltx": "a zip container",
    ".odt": "a zip container", ".ods": "a zip container", ".odp": "a zip container", ".ott": "a zip container",
    ".epub": "a zip container", ".msg": "an OLE2 container", ".gz": "gzip data", ".rtf": "RTF",
}  # fmt: skip


def kind_by_magic(data: bytes) -> str | None:
    """Return the suffix that the bytes stand for, ``".zip"`` or ``".ole"`` for containers that must be
    opened to tell, or None for what could be text.

    Raises:
        UnsupportedFormat: archives, programs, media, databases and fonts.
    """
    head = data[:HEAD_BYTES]
    if head.startswith(_ZIP):
        return ".zip"
    if head.startswith(_OLE):
        return ".ole"
    if b"%PDF-" in head[:1024]:
        return ".pdf"
    for magic, suffix in _READABLE:
        if head.startswith(magic):
            return suffix
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    if head[:2] == b"BM" and head[6:10] == b"\x00\x00\x00\x00":
        return ".bmp"
    _refuse(head)
    return None


def _refuse(head: bytes) -> None:
    for magic, what in _REFUSED:
        if head.startswith(magic):
            raise UnsupportedFormat(f"is {what}")
    if head[:2] == b"MZ" and b"\x00" in head[:64]:
        raise UnsupportedFormat("is an executable program")
    if head[4:8] == b"ftyp" or (head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"WAVE")):
        raise UnsupportedFormat("is audio or video")
    if head[:3] == b"BZh" and head[4:10] == b"1AY&SY":
        raise UnsupportedFormat("is a bzip2 archive; unpack it first")
    if head[257:262] == b"ustar":
        raise UnsupportedFormat("is a tar archive; unpack it first")


def light_suffix(data: bytes, name: str) -> str | None:
    """Return the suffix under which a light module may read the bytes in this process, or None."""
    suffix = suffix_of(name)
    module = by_suffix().get(suffix)
    if module is None or not module.light:
        return None
    try:
        return suffix if kind_by_magic(data) is None else None
    except UnsupportedFormat:
        return None


def decide(data: bytes, name: str, limits: Limits) -> str:
    """Return the suffix whose parser shall read the bytes. Containers are checked before any parser
    sees them: expansion bombs and encryption are refused here.

    Raises:
        DocumentError: the subclass that says why nothing can read them.
    """
    if not data.strip(b" \t\r\n\x00"):
        raise EmptyDocument("holds no bytes but white space" if data else "holds no bytes")
    suffix = suffix_of(name)
    kind = kind_by_magic(data)
    if kind == ".zip":
        from rag_platform.ingestion.parsers.containers import zip_kind

        kind = zip_kind(data, suffix, limits)
    elif kind == ".ole":
        from rag_platform.ingestion.parsers.containers import ole_kind

        kind = ole_kind(data, suffix)
    if kind is None:
        kind = _text_kind(data, suffix)
    if kind not in by_suffix():
        raise UnsupportedFormat(f"no parser reads {kind} files")
    return kind


def _text_kind(data: bytes, suffix: str) -> str:
    """The kind of a file that carries no magic number."""
    if suffix == ".pdf":
        return suffix  # the engines also look for a header further down
    if not is_text(data):
        if suffix in _BINARY_SUFFIXES:
            raise CorruptDocument(f"is named {suffix} but is not {_BINARY_SUFFIXES[suffix]}")
        if (module := by_suffix().get(suffix)) is not None and not module.light:
            return suffix
        raise UnsupportedFormat("holds binary data that no parser knows")
    known = by_suffix().get(suffix)
    if known is not None and suffix not in _BINARY_SUFFIXES and suffix not in (".doc", ".xls", ".ppt"):
        return suffix
    if _HTML.match(data):
        return ".html"  # among others, what web applications export as .doc and .xls
    if suffix in _BINARY_SUFFIXES or suffix in (".doc", ".xls", ".ppt"):
        if data[:512].lower().count(b"mime-version:"):
            return ".mhtml"
        if suffix == ".xls":
            return ".tsv" if b"\t" in data[:HEAD_BYTES] else ".csv"
        raise CorruptDocument(f"is named {suffix} but holds plain text")
    if data.lstrip()[:5] == b"<?xml":
        return ".xml"
    if suffix in ("", ".txt") or known is None:
        return ".eml" if suffix == "" and _MAIL.match(data) else ".txt"
    return suffix
