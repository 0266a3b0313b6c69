"""Zip and OLE2 containers told apart by their members, and refused when encrypted or a bomb."""

from __future__ import annotations

import io
import zipfile
from typing import Final

from rag_platform.errors import CorruptDocument, EncryptedDocument, LimitExceeded, UnsupportedFormat
from rag_platform.ingestion.parsers.base import Limits

VERSION: Final = 1

_MAX_MEMBERS: Final = 50_000
_MAX_RATIO: Final = 120
"""Compression above this is a bomb: the real documents measured (docs_good, docs_bad) stay below 20."""
_RATIO_FREE_BYTES: Final = 8 * 1024 * 1024
_MIMETYPES: Final = {
    "application/epub+zip": ".epub",
    "application/vnd.oasis.opendocument.text": ".odt",
    "application/vnd.oasis.opendocument.spreadsheet": ".ods",
    "application/vnd.oasis.opendocument.presentation": ".odp",
    "application/vnd.oasis.opendocument.graphics": ".odg",
}
_OOXML: Final = (("word/", ".docx"), ("ppt/", ".pptx"), ("xl/", ".xlsx"))


def open_zip(data: bytes, limits: Limits) -> zipfile.ZipFile:
    """Open a zip file whose declared sizes are harmless. Reading a member never yields more than it
    declares, so the check holds.

    Raises:
        CorruptDocument: not a readable zip file.
        EncryptedDocument: a member is encrypted.
        LimitExceeded: too many members, too large, or compressed beyond what documents are.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError) as e:
        raise CorruptDocument("its zip container is damaged or cut off") from e
    if len(members) > _MAX_MEMBERS:
        raise LimitExceeded(f"its container holds {len(members)} members; the limit is {_MAX_MEMBERS}")
    expanded = sum(m.file_size for m in members)
    if expanded > limits.max_expanded_bytes:
        raise LimitExceeded(f"expands to {expanded} bytes; the limit is {limits.max_expanded_bytes}")
    if expanded > _RATIO_FREE_BYTES and expanded > _MAX_RATIO * len(data):
        raise LimitExceeded(f"expands {expanded // max(1, len(data))}-fold: an expansion bomb")
    if any(m.flag_bits & 1 for m in members):
        raise EncryptedDocument("needs a password")
    return archive


def zip_kind(data: bytes, suffix: str, limits: Limits) -> str:
    """Return the suffix of the document inside a zip container.

    Raises:
        DocumentError: what ``open_zip`` raises; UnsupportedFormat for a mere archive.
    """
    with open_zip(data, limits) as archive:
        names = archive.namelist()
        kind = _mimetype_kind(archive) or _member_kind(names, suffix)
        if kind is None:
            raise UnsupportedFormat("is a zip archive; unpack it first")
        if kind.startswith(".od") and b"encryption-data" in read_member(archive, "META-INF/manifest.xml"):
            raise EncryptedDocument("needs a password")
    return kind


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return one member's bytes; empty when there is none of that name.

    Raises:
        CorruptDocument: its data are damaged.
    """
    try:
        return archive.read(name)
    except KeyError:
        return b""
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, EOFError, NotImplementedError, ValueError) as e:
        raise CorruptDocument("its zip container is damaged") from e
    except Exception as e:  # zlib.error and lzma.LZMAError share no base class
        raise CorruptDocument("its zip container is damaged") from e


def _mimetype_kind(archive: zipfile.ZipFile) -> str | None:
    if "mimetype" not in archive.namelist() or archive.getinfo("mimetype").file_size > 200:
        return None
    mimetype = read_member(archive, "mimetype").decode("ascii", "replace").strip()
    return _MIMETYPES.get(mimetype.removesuffix("-template"))


def _member_kind(names: list[str], suffix: str) -> str | None:
    if "META-INF/container.xml" in names:
        return ".epub"
    folded = [n.replace("\\", "/").lstrip("/") for n in names]
    if "[Content_Types].xml" in folded or "_rels/.rels" in folded:
        for prefix, kind in _OOXML:
            if any(n.startswith(prefix) for n in folded):
                # A template or macro-enabled document keeps its own suffix only if a parser wants it.
                return kind
    if "content.xml" in names and suffix in (".odt", ".ods", ".odp"):
        return suffix
    return None


def ole_kind(data: bytes, suffix: str) -> str:
    """Return ``.doc``, ``.xls``, ``.ppt`` or ``.msg`` for an OLE2 container.

    Raises:
        EncryptedDocument: it wraps an encrypted document.
        CorruptDocument, UnsupportedFormat: it cannot be opened, or holds something else.
    """
    import olefile

    try:
        with olefile.OleFileIO(io.BytesIO(data)) as ole:
            top = {entry[0].lower() for entry in ole.listdir(streams=True, storages=False)}
    except Exception as e:  # olefile raises whatever the damage leads to
        if suffix in (".doc", ".xls", ".ppt", ".msg"):
            return suffix  # a parser that recovers text from damaged files may still read it
        raise CorruptDocument("its OLE2 container is damaged") from e
    if "encryptedpackage" in top or "encryptioninfo" in top:
        raise EncryptedDocument("needs a password")
    for stream, kind in (
        ("worddocument", ".doc"),
        ("workbook", ".xls"),
        ("book", ".xls"),
        ("powerpoint document", ".ppt"),
        ("__properties_version1.0", ".msg"),
    ):
        if stream in top:
            return kind
    if suffix in (".doc", ".xls", ".ppt", ".msg"):
        return suffix
    raise UnsupportedFormat("is an OLE2 container that holds no known kind of document")
