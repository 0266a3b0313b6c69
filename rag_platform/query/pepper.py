"""The key of the question hashes in the query log.

Questions are short and guessable: whoever reads a ledger (a backup, a reporting account) could find most
of them by hashing likely ones. So the hash is keyed, and its key does not live in the ledger.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
from pathlib import Path

from rag_platform.settings import Settings

KEY_BYTES = 32


def pepper(settings: Settings) -> bytes:
    """Return the key: RAG_QUERY_LOG_PEPPER, or a random one kept in RAG_HOME (mode 0600, made at first use).

    Where RAG_HOME cannot be written the key lasts as long as the process: hashes then agree within it only.
    """
    if settings.query_log_pepper:
        return hashlib.sha256(settings.query_log_pepper.encode("utf-8", "replace")).digest()
    path = settings.root / "query_log.pepper"
    try:
        return _read(path) or _create(path)
    except OSError:
        return secrets.token_bytes(KEY_BYTES)


def question_hash(key: bytes, tenant: str, question: str) -> str:
    """Return the keyed BLAKE2b (RFC 7693) of a tenant's normalised question: 32 hex digits."""
    mac = hashlib.blake2b(key=key, digest_size=16)
    mac.update(tenant.encode("utf-8", "replace"))
    mac.update(b"\0")
    mac.update(question.encode("utf-8", "replace"))
    return mac.hexdigest()


def _read(path: Path) -> bytes | None:
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return None
    return key if len(key) == KEY_BYTES else None


def _create(path: Path) -> bytes:
    """Make the file, whole or not at all; when another process was faster, its key counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".pepper-")  # readable by its owner only
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(secrets.token_bytes(KEY_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    found = _read(path)
    if found is None:
        raise OSError(f"{path} does not hold {KEY_BYTES} bytes")
    return found
