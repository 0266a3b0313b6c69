"""A stretch of a retrieved chunk that the generator may use."""

from __future__ import annotations

from dataclasses import dataclass

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
