"""Binary Word and PowerPoint documents: through LibreOffice where it is installed (it knows headings and
tables), else by readers of our own, which know the text."""

from __future__ import annotations

import importlib
import io
from typing import Final

import olefile

from rag_platform.errors import CorruptDocument, DocumentError, EncryptedDocument, UnsupportedFormat
from rag_platform.ingestion.parsers import libreoffice, powerpoint_binary, word_binary
from rag_platform.ingestion.parsers.base import Limits, RawDocument
from rag_platform.ingestion.parsers.formats import PACKAGE, by_suffix
from rag_platform.ingestion.parsers.text_quality import useful_title

SUFFIXES: Final = (".doc", ".dot", ".ppt", ".pps", ".pot")
VERSION: Final = 1

_MIME: Final = {"doc": "application/msword", "ppt": "application/vnd.ms-powerpoint"}
_CURE: Final = {
    "doc": "apt-get install libreoffice-writer, or save it as .docx",
    "ppt": "apt-get install libreoffice-impress, or save it as .pptx",
}
_CONVERSION_SHARE: Final = 0.5


def parse(data: bytes, suffix: str, limits: Limits) -> RawDocument:
    """Read a .doc or .ppt; which of them it is, its streams say.

    Raises:
        EncryptedDocument: it needs a password.
        CorruptDocument: it is not an OLE2 container.
        UnsupportedFormat: neither reader finds text in it; the cure names the package to install.
    """
    try:
        container = olefile.OleFileIO(io.BytesIO(data))
    except (OSError, ValueError, IndexError) as e:
        raise CorruptDocument("is not a readable OLE2 container") from e
    with container:
        family = _family(container)
        native = _native(container, family)
        title = _title(container)
    if isinstance(native, EncryptedDocument):
        raise native
    converted = _converted(data, family, limits)
    if converted is not None:
        converted.mime_type = _MIME[family]
        converted.title = converted.title or title
        return converted
    if isinstance(native, DocumentError):
        if libreoffice.find() is None:
            raise UnsupportedFormat(
                f"this .{family} cannot be read without LibreOffice", cure=_CURE[family]
            ) from native
        raise native
    native.title = title
    return native


def _family(container: olefile.OleFileIO) -> str:
    if container.exists("WordDocument"):
        return "doc"
    if container.exists("PowerPoint Document"):
        return "ppt"
    if container.exists("EncryptedPackage"):
        raise EncryptedDocument("the document needs a password")
    if container.exists("PP40") or container.exists("PP95"):
        raise UnsupportedFormat("a presentation older than PowerPoint 97", cure="save it as .pptx")
    raise UnsupportedFormat("an OLE2 container without a Word or PowerPoint document")


def _native(container: olefile.OleFileIO, family: str) -> RawDocument | DocumentError:
    """Read by our own readers; an error is returned, as LibreOffice may still do better."""
    try:
        if family == "doc":
            blocks, pages = word_binary.read(container), None
        else:
            blocks, pages = powerpoint_binary.read(container)
    except DocumentError as e:
        return e
    return RawDocument(blocks=blocks, mime_type=_MIME[family], page_count=pages, parser=f"native-{family}")


def _converted(data: bytes, family: str, limits: Limits) -> RawDocument | None:
    target = family + "x"
    module = by_suffix().get(f".{target}")
    if module is None or libreoffice.find() is None:
        return None
    output = libreoffice.convert(data, f".{family}", target, _CONVERSION_SHARE * limits.wall_s)
    if output is None:
        return None
    try:
        parser = importlib.import_module(f"{PACKAGE}.{module.name}")
        read: RawDocument = parser.parse(output, f".{target}", limits)
    except DocumentError:
        return None
    if not any(b.text.strip() for b in read.blocks):
        return None
    read.parser = f"libreoffice+{read.parser or module.name}"
    return read


def _title(container: olefile.OleFileIO) -> str | None:
    try:
        properties = container.getproperties("\x05SummaryInformation", no_conversion=[10])
        raw, page = properties.get(2), properties.get(1, 1252)
    except Exception:  # olefile raises anything on damaged properties, and a title is not worth a document
        return None
    if isinstance(raw, bytes):
        encoding = "utf-8" if page in (65001, -535) else f"cp{page & 0xFFFF}"
        try:
            raw = raw.decode(encoding, "replace")
        except LookupError:
            raw = raw.decode("cp1252", "replace")
    return useful_title(raw) if isinstance(raw, str) else None
