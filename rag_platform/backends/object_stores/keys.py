"""Which keys an object store takes."""

from __future__ import annotations

import re

_BAD = re.compile(r"[\x00-\x1f\x7f\\]")


def checked(key: str) -> str:
    """Return ``key`` when it is a plain relative POSIX path that every store can hold.

    At most 1,024 bytes of UTF-8 in all (S3) and 200 in one segment (file systems, with room for a
    temporary name); no empty, ``.`` or ``..`` segment, none that starts with a dot, no control
    character, no backslash.

    Raises:
        ValueError: it is not. Keys are computed by the platform, so a bad one is a bug.
    """
    parts = key.split("/")
    if not all(parts) or any(part.startswith(".") for part in parts) or _BAD.search(key):
        raise ValueError(f"not an object key: {key!r}")
    if len(key.encode()) > 1024 or any(len(part.encode()) > 200 for part in parts):
        raise ValueError(f"object key too long: {key[:80]!r}…")
    return key


def checked_prefix(prefix: str) -> str:
    """Return the folder ``prefix`` without its trailing slash; an empty one is the whole store."""
    prefix = prefix.rstrip("/")
    return checked(prefix) if prefix else ""
