"""A citation shown where it stands: the chunk, and its document around it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from rag_platform.backends.sources import document_url
from rag_platform.errors import RagError
from rag_platform.ledger import Ledger
from rag_platform.ledger.releases import Release
from rag_platform.records import Hit

DOCUMENT_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class CitedSpan:
    """A chunk and what stands before and after it in its document; empty where that is not kept. ``url`` is
    where a person opens the document at its source, None where there is no such address."""

    hit: Hit
    before: str
    after: str
    url: str | None = None


DocumentText = Callable[[Hit, Release], Awaitable[str | None]]
"""Returns the parsed text of the document version that a chunk belongs to; None when it is not kept."""


async def in_document(hit: Hit, release: Release, document_text: DocumentText | None) -> CitedSpan:
    """Return ``hit`` inside its document; alone when the document cannot be had: it is still worth showing."""
    text = None
    if document_text is not None:
        with contextlib.suppress(RagError, TimeoutError):
            async with asyncio.timeout(DOCUMENT_TIMEOUT_S):
                text = await document_text(hit, release)
    if text is None or text[hit.start : hit.end] != hit.text:
        return CitedSpan(hit, "", "")
    return CitedSpan(hit, text[: hit.start], text[hit.end :])


def address(ledger: Ledger, hit: Hit) -> str | None:
    """Return where a person opens the document of ``hit`` at its source, None where there is no such address.

    Raises:
        RagError: the ledger failed, or the source's connector cannot be loaded.
    """
    source = ledger.sources.get(hit.source)
    return None if source is None else document_url(source.spec, hit.uri)
