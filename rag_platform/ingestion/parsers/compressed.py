"""A gzip file that holds one document."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Final

from rag_platform.errors import CorruptDocument, LimitExceeded
from rag_platform.ingestion.parsers.base import Limits, RawDocument
from rag_platform.ingestion.parsers.dispatch import read_nested

SUFFIXES: Final = (".gz", ".gzip")
VERSION: Final = 1

_MAX_BYTES: Final = 256 * 1024 * 1024


def parse(data: bytes, suffix: str, limits: Limits) -> RawDocument:
    """Unpack within bounds and read what is inside, told by its content.

    Raises:
        DocumentError: damaged, too large, or what is inside cannot be read.
    """
    most = min(_MAX_BYTES, limits.max_expanded_bytes)
    unpacker = zlib.decompressobj(wbits=31)
    try:
        inside = unpacker.decompress(data, most + 1)
    except zlib.error as e:
        raise CorruptDocument("its gzip data are damaged") from e
    if len(inside) > most:
        raise LimitExceeded(f"unpacks to more than {most} bytes")
    deeper = dataclasses.replace(limits, max_attachment_depth=limits.max_attachment_depth - 1)
    return read_nested(inside, _inner_name(data), deeper)


def _inner_name(data: bytes) -> str:
    """The file name that gzip may keep in its header."""
    if len(data) > 10 and data[3] & 8 and not data[3] & 4:
        end = data.find(b"\x00", 10, 300)
        return data[10:end].decode("latin-1") if end > 0 else ""
    return ""
