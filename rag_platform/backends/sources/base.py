"""What a source connector promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rag_platform.records import SourceItem, SourceSpec


@dataclass(frozen=True, slots=True)
class Replacement:
    """What is there now instead of the version that was listed. Without its own change token the old token would
    stand for the new bytes, and a return to the old bytes would go unseen."""

    item: SourceItem
    data: bytes


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

    def fetch(self, uri: str, *, max_bytes: int) -> bytes | Replacement | None:
        """Return the bytes of one document, or None when it has vanished since the listing. The bytes are those
        of one version; a connector that knows that it is not the listed one returns a ``Replacement``.

        Raises:
            LimitExceeded: it is larger than ``max_bytes``.
            DocumentError: this one document cannot be read (denied, a broken link).
            DependencyError: the source itself fails.
        """
        ...
