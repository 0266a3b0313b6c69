"""What a question is answered with. The HTTP body, the cache entry and ``rag ask --json`` are this shape."""

from __future__ import annotations

from typing import Literal

import msgspec

Mode = Literal["full", "keyword_only", "context_only", "cached"]
"""``full``: everything that the profile asks for was done, or did not change what the answer rests on.
``keyword_only``: retrieved by words alone. ``context_only``: extracts, because no answer could be generated.
``cached``: nothing could be retrieved by meaning; the answer to the nearest earlier question, by words."""

CacheState = Literal["miss", "exact", "semantic"]


class Degradation(msgspec.Struct, frozen=True):
    """A stage that did not do its part, and why: an error's class or a fixed word, never its text."""

    stage: str
    reason: str


class Citation(msgspec.Struct, frozen=True, kw_only=True):
    """A quote and where it stands. ``[start, end)`` are characters of the parsed document, and
    ``quote`` is exactly its text there. ``number`` is how the answer's text refers to it: ``[1]``."""

    number: int
    chunk_id: str
    document_id: str
    source: str
    uri: str
    title: str
    page: int | None
    heading_path: str
    start: int
    end: int
    quote: str
    score: float
    version_id: str
    snapshot_id: str
    run_id: str


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens that were billed for this answer; nothing when it came from the cache."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    embedding_tokens: int = 0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """See DESIGN §9.

    Attributes:
        answer: text with ``[n]`` behind what citation n supports.
        generator: ``extractive`` (quoted, not written) or the model's name.
        refused: the documents do not answer the question; ``citations`` is then empty.
        cost_usd: None when a price is unknown.
        timings_ms: wall time of each stage, and ``total``.
        similar_question: whether a semantic hit answered another wording.
    """

    request_id: str
    answer: str
    citations: list[Citation]
    mode: Mode
    generator: str
    degraded: list[Degradation]
    cache: CacheState
    refused: bool
    usage: Usage
    cost_usd: float | None
    timings_ms: dict[str, float]
    release_id: str
    profile: str
