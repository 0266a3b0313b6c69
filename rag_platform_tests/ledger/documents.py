"""Documents to put into a ledger."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rag_platform import identity
from rag_platform.ledger import Ledger
from rag_platform.ledger.documents import Document, DocumentChange


def document(uri: str, content: str = "a", *, digits: int = 1, **changes: Any) -> Document:
    """A live document of the source ``docs``."""
    document_id = identity.document_id("docs", uri)
    made = Document(
        document_id=document_id,
        source="docs",
        uri=uri,
        bucket=identity.bucket(document_id, digits),
        live=True,
        generation=0,
        change_token="1",
        size=1,
        modified_at=0.0,
        content_hash=identity.text_hash(content),
        metadata_hash="m",
        metadata={"acl": ["public"], "tags": [], "tenant": "default", "title": None},
        snapshot_id="s",
        run_id="r",
    )
    return replace(made, **changes)


def commit(ledger: Ledger, *documents: Document) -> None:
    """Commit documents that must not have been there."""
    done = ledger.documents.commit([DocumentChange(d, 0) for d in documents])
    assert done == {d.document_id for d in documents}
