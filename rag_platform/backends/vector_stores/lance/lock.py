"""One writer per table: a lock file beside a local index.

LanceDB's own optimistic commits keep two writers from damaging a table; the lock keeps them from
wasting each other's work in retries and makes read-back counts exact. On an object store there is
no lock, only those commits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from rag_platform.errors import DependencyError, LockTimeout


@contextlib.asynccontextmanager
async def writer_lock(folder: Path | None, index: str, timeout_s: float) -> AsyncIterator[None]:
    """Hold the writer lock of ``index``; ``folder`` is None for a remote index: no lock.

    The lock goes with the process that holds it, however it ends.

    Raises:
        LockTimeout: another writer held it for ``timeout_s`` seconds.
        DependencyError: the folder cannot be written.
    """
    if folder is None:
        yield
        return
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / f".{index}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as e:
        raise DependencyError("vector_store:lancedb", f"cannot lock its folder: {e.strerror}") from e
    try:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as e:
                if time.monotonic() >= deadline:
                    raise LockTimeout(f"another process writes to the index {index!r}; nothing was done") from e
            await asyncio.sleep(0.02)
        yield
    finally:
        os.close(descriptor)
