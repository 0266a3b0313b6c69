"""A stretch of a retrieved chunk that the generator may use."""

from __future__ import annotations

from dataclasses import dataclass

from rag_platform.query.answer import Citation
from rag_platform.records import Hit


@dataclass(frozen=True, slots=True)
class Passage:
    """Passage ``number`` (from 1) of an answer's context.

    ``text`` is the parsed document's ``[start, end)``; the chunk's own text begins at ``hit.start``.
    """

    number: int
    hit: Hit
    start: int
    end: int
    text: str
    score: float

    def citation(self, number: int, start: int, end: int, quote: str, score: float) -> Citation:
        """Return citation ``number`` of the document's ``[start, end)``, whose text is ``quote``."""
        hit = self.hit
        return Citation(
            number=number,
            chunk_id=hit.chunk_id,
            document_id=hit.document_id,
            source=hit.source,
            uri=hit.uri,
            title=hit.title,
            page=hit.page,
            heading_path=hit.heading_path,
            start=start,
            end=end,
            quote=quote,
            score=score,
            version_id=hit.version_id,
            snapshot_id=hit.snapshot_id,
            run_id=hit.run_id,
        )
