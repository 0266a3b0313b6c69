"""What a source connector promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rag_platform.records import SourceItem, SourceSpec


class SourceConnector(Protocol):
    """Lists and fetches the documents of one source. Synchronous, safe to call from threads."""

    spec: SourceSpec

    def list(self) -> Sequence[SourceItem]:
        """Return every document, complete, in a stable order.

        Raises:
            IncompleteListing: the end was not reached (missing root, denied folder, failed page).
                A listing is complete or it is an error; a part of one would read as deletions.
        """
        ...

    def fetch(self, uri: str, *, max_bytes: int) -> bytes | None:
        """Return the bytes of one document, or None when it has vanished since the listing.

        Raises:
            LimitExceeded: it is larger than ``max_bytes``.
            DocumentError: this one document cannot be read (denied, a broken link).
            DependencyError: the source itself fails.
        """
        ...
