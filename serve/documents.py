"""The parsed text of a document version: what a citation is shown inside."""

from __future__ import annotations

import asyncio
import threading
from pathlib import PurePosixPath

from rag_platform import identity
from rag_platform.backends.object_stores import open_object_store
from rag_platform.ingestion.segments import SegmentStore
from rag_platform.ledger import Ledger
from rag_platform.ledger.releases import Release
from rag_platform.records import Hit
from rag_platform.settings import Settings


class DocumentTexts:
    """Reads parsed texts through the ledger. Callers have checked that the reader may see the chunk; its ACL
    is its document's."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings, self._ledger = settings, ledger
        self._lock = threading.Lock()
        self._segments: SegmentStore | None = None

    async def __call__(self, hit: Hit, release: Release) -> str | None:
        """Return the text that ``hit`` was cut from; None when it is no longer kept.

        Raises:
            DependencyError: ledger or object store failed.
        """
        return await asyncio.to_thread(self._read, hit, release)

    def _read(self, hit: Hit, release: Release) -> str | None:
        suffix = PurePosixPath(hit.uri).suffix.lower()
        key = identity.parse_key(hit.content_hash, suffix, release.pipeline["parser"])
        with self._lock:  # a segment store is not thread-safe
            if self._segments is None:
                self._segments = SegmentStore(self._ledger, open_object_store(self._settings))
            for table in self._segments.read("parse", [key], ["parse_key", "text"]):
                for text in table["text"].to_pylist():
                    return str(text)
        return None
