"""File names as uris and back.

A uri is the path relative to the source, with ``/``, in the name's own characters: no case folding
and no Unicode normalisation, so that every listed name can be fetched again. Only what cannot be
written as Unicode is escaped: a byte that is not UTF-8 becomes ``%XX`` (80 to FF), and a literal ``%``
that could be mistaken for such an escape becomes ``%25``. ``decode(encode(name)) == name`` always.
"""

from __future__ import annotations

import re

from rag_platform.errors import DocumentError

_ESCAPE = re.compile(r"%(25|[89A-F][0-9A-F])")
_AMBIGUOUS = re.compile(r"%(?=25|[89A-F][0-9A-F])")


def encode(name: str) -> str:
    """Turn an operating-system path (surrogateescape) into a uri that is valid Unicode."""
    name = _AMBIGUOUS.sub("%25", name)
    if name.isascii() or not any("\udc80" <= c <= "\udcff" for c in name):
        return name
    return "".join(f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in name)


def decode(uri: str) -> str:
    """Turn a uri back into the operating-system path (surrogateescape)."""

    def one(match: re.Match[str]) -> str:
        value = int(match.group(1), 16)
        return chr(0xDC00 + value) if value >= 0x80 else chr(value)

    return _ESCAPE.sub(one, uri)


def checked_parts(uri: str) -> list[str]:
    """Split a relative path into its segments.

    Raises:
        DocumentError: the path is empty, absolute, holds a NUL or leaves its root by ``..``.
    """
    parts = uri.split("/")
    if "\0" in uri or any(part in ("", ".", "..") for part in parts):
        raise DocumentError("its path is not a plain relative path inside the source")
    return parts
