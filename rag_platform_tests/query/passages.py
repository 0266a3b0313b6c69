"""Passages of invented documents, for tests."""

from __future__ import annotations

from rag_platform.query.passage import Passage
from rag_platform.records import Hit


def passage(number: int, text: str, title: str = "", *, before: str = "", uri: str | None = None) -> Passage:
    """Passage ``number``, behind ``before`` in its document."""
    start = len(before)
    hit = Hit(
        chunk_id=f"chunk-{number}", document_id=f"document-{number}", source="docs", uri=uri or f"{number}.md",
        title=title, version_id="v", content_hash="h", snapshot_id="s", run_id="r", ordinal=0, start=start,
        end=start + len(text), page=None, heading_path="", mime_type="text/plain", language="en", modified_at=None,
        tags=(), tenant="default", acl=("public",), text=text, score=1.0,
    )  # fmt: skip
    return Passage(number, hit, start, start + len(text), text, 1.0 / number)
