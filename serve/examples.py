"""One example of each body, for the OpenAPI document. Instances, so that they cannot stop fitting their shapes."""

from __future__ import annotations

from typing import Any

import msgspec

from rag_platform.query.answer import Answer, Citation, Usage
from serve.openai_chat import ChatMessage, ChatRequest
from serve.schemas import (
    CitationResponse,
    FeedbackRequest,
    FeedbackResponse,
    QueryRequest,
    ReadyResponse,
    Result,
    RetrieveRequest,
    RetrieveResponse,
)

_QUESTION = "How do I replay a dead letter?"
_SENTENCE = "A dead letter is replayed with `rag dead-letters replay ID`."
_REQUEST_ID = "5c9f2d0c0a2f4c5d9b1e7a3f8d6c4b2a"
_CHUNK_ID = "1b9f5a52-7c0e-5a0a-9d58-3f1c7e0f4b11"
_PLACE: dict[str, Any] = {
    "chunk_id": _CHUNK_ID,
    "document_id": "8f14e45fceea167a5a36dedd4bea2543",
    "source": "docs",
    "uri": "operations/dead-letters.md",
    "title": "Dead letters",
    "page": None,
    "heading_path": "Operations > Dead letters",
    "start": 1200,
    "end": 1200 + len(_SENTENCE),
    "version_id": "c9f0f895fb98ab9159f51fd0297e236d",
    "snapshot_id": "45c48cce2e2d7fbdea1afc51c7c6ad26",
    "run_id": "3b1f7d3e-9c55-4c1c-8d2b-1f2e3d4c5b6a",
}

_EXAMPLES: tuple[msgspec.Struct, ...] = (
    QueryRequest(question=_QUESTION, profile="fast", filter='source = "docs"'),
    Answer(
        request_id=_REQUEST_ID,
        answer=f"“{_SENTENCE}” [1]",
        citations=[Citation(number=1, quote=_SENTENCE, score=0.83, **_PLACE)],
        mode="full",
        generator="extractive",
        degraded=[],
        cache="miss",
        refused=False,
        usage=Usage(),
        cost_usd=0.0,
        timings_ms={"embed": 4.1, "search": 6.3, "generate": 38.0, "total": 51.7},
        release_id="20261122T190000Z",
        profile="fast",
    ),
    RetrieveRequest(question=_QUESTION, k=1),
    RetrieveResponse(
        request_id=_REQUEST_ID,
        results=[Result(score=0.83, text=_SENTENCE, **_PLACE)],
        mode="hybrid",
        degraded=[],
        timings_ms={"embed": 4.1, "search": 6.3, "total": 11.2},
    ),
    FeedbackRequest(request_id=_REQUEST_ID, rating="up", comment="Exactly that."),
    FeedbackResponse(request_id=_REQUEST_ID, rating="up"),
    CitationResponse(
        before="## Replaying\n\n",
        text=_SENTENCE,
        after="\n",
        mime_type="text/markdown",
        modified_at=1_795_000_000.0,
        content_hash="2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
        run_url="http://127.0.0.1:3000/runs/3b1f7d3e-9c55-4c1c-8d2b-1f2e3d4c5b6a",
        url="https://docs.example.org/operations/dead-letters.md",
        **_PLACE,
    ),
    ReadyResponse(status="ready", dependencies={"release": "ok", "vector_store": "ok"}, missing=[]),
    ChatRequest(model="rag-balanced", messages=[ChatMessage("user", _QUESTION)]),
)


def example_of(shape: Any) -> Any | None:
    """Return an example of a struct as JSON values, without what is left at its default in requests; None: no such."""
    for example in _EXAMPLES:
        if type(example) is shape:
            values: dict[str, Any] = msgspec.to_builtins(example)
            if not shape.__name__.endswith("Request"):
                return values
            required = set(shape.__struct_fields__[: len(shape.__struct_fields__) - len(shape.__struct_defaults__)])
            given = {f: getattr(example, f) for f in shape.__struct_fields__}
            defaults = dict(msgspec.structs.asdict(_blank(shape, required, given)))
            return {f: v for f, v in values.items() if f in required or given[f] != defaults[f]}
    return None


def _blank(shape: Any, required: set[str], given: dict[str, Any]) -> Any:
    return shape(**{f: given[f] for f in required})
