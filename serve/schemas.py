"""Bodies of requests and of those responses that are not an ``Answer``. Limits are checked while decoding.

``Annotated`` metadata is read twice: by msgspec, which refuses what breaks a limit and names the field, and
by ``openapi.py``, which publishes it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from rag_platform.query.answer import Degradation
from rag_platform.query.question import MAX_DEADLINE_S, MAX_K, MAX_QUESTION_CHARS, MAX_TURNS
from rag_platform.records import SearchMode

MAX_BODY_BYTES = 64 * 1024
"""Of every request but a chat completion."""
MAX_CHAT_BODY_BYTES = 512 * 1024
"""A chat client sends the whole conversation every time."""
MAX_DEADLINE_MS = int(MAX_DEADLINE_S * 1000)
MAX_FILTER_CHARS = 4096
MAX_COMMENT_CHARS = 2000
MAX_ID_CHARS = 128

QuestionText = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_QUESTION_CHARS,
        description="The question, in words.",
        examples=["How do I replay a dead letter?"],
    ),
]
ProfileName = Annotated[
    Literal["fast", "balanced", "thorough"],
    Meta(description="Named set of steps and budgets; without one, the server's default."),
]
FilterText = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_FILTER_CHARS,
        description="Narrows the search: comparisons joined by and, or, not and parentheses, over source, uri, "
        "title, document_id, mime_type, language, heading_path, tags (has), page and modified_at.",
        examples=['source = "docs" and (tags has "howto" or page >= 3)'],
    ),
]
Passages = Annotated[int, Meta(ge=1, le=MAX_K, description="Passages that may be cited.", examples=[5])]
DeadlineMs = Annotated[
    int,
    Meta(
        ge=1,
        le=MAX_DEADLINE_MS,
        description="Milliseconds for everything. The header X-Deadline-Ms says the same; the shorter one holds.",
        examples=[8000],
    ),
]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An earlier turn of the conversation."""

    role: Literal["user", "assistant"]
    text: Annotated[str, Meta(max_length=4 * MAX_QUESTION_CHARS)]


class QueryRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question."""

    question: QuestionText
    history: Annotated[list[Message], Meta(max_length=MAX_TURNS, description="Earlier turns, oldest first.")] = []
    profile: ProfileName | None = None
    k: Passages | None = None
    mode: Annotated[SearchMode, Meta(description="How passages are searched for.")] = "hybrid"
    filter: FilterText | None = None
    rerank: Annotated[bool | None, Meta(description="Overrides the profile.")] = None
    max_answer_tokens: Annotated[int, Meta(ge=1, description="At most four times the profile's.")] | None = None
    deadline_ms: DeadlineMs | None = None
    use_cache: Annotated[bool, Meta(description="False neither reads nor writes cached answers.")] = True
    stream: Annotated[bool, Meta(description="Answer as server-sent events, as Accept: text/event-stream does.")] = (
        False
    )


class RetrieveRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A search without an answer."""

    question: QuestionText
    profile: ProfileName | None = None
    k: Passages | None = None
    mode: Annotated[SearchMode, Meta(description="How passages are searched for.")] = "hybrid"
    filter: FilterText | None = None
    rerank: Annotated[bool | None, Meta(description="Overrides the profile.")] = None
    deadline_ms: DeadlineMs | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One retrieved chunk. ``[start, end)`` are characters of the parsed document; scores compare within a list."""

    chunk_id: str
    document_id: str
    source: str
    uri: str
    title: str
    heading_path: str
    page: int | None
    start: int
    end: int
    score: float
    text: str
    version_id: str
    snapshot_id: str
    run_id: str


class RetrieveResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Ranked chunks, best first."""

    request_id: str
    results: list[Result]
    mode: SearchMode
    degraded: list[Degradation]
    timings_ms: dict[str, float]


class FeedbackRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reader's opinion on an answer."""

    request_id: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=MAX_ID_CHARS,
            description="Of the answer.",
            examples=["01900000-0000-7000-8000-000000000000"],
        ),
    ]
    rating: Literal["up", "down"]
    comment: Annotated[str, Meta(max_length=MAX_COMMENT_CHARS)] = ""


class FeedbackResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The opinion is stored."""

    request_id: str
    rating: Literal["up", "down"]


class CitationResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Where a cited chunk stands: ``before + text + after`` is a stretch of the parsed document, and ``text``
    is ``[start, end)`` of it. ``url`` opens the document at its source, where it has an address there; ``run_url`` opens
    the Dagster run that indexed it, where its UI is configured."""

    chunk_id: str
    document_id: str
    source: str
    uri: str
    title: str
    page: int | None
    heading_path: str
    start: int
    end: int
    before: str
    text: str
    after: str
    mime_type: str
    modified_at: float | None
    version_id: str
    content_hash: str
    snapshot_id: str
    run_id: str
    run_url: str | None
    url: str | None


class ReadyResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Each dependency with ``ok`` or the class of its error; ``missing`` names those that are not ok."""

    status: Literal["ready", "not_ready", "stopping"]
    dependencies: dict[str, str]
    missing: list[str]


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field of a request."""

    field: str
    detail: str


class ProblemBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Problem details (RFC 9457). ``type`` is stable; ``detail`` is for a person and may change."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldError] = []
    retry_after_s: int | None = None
    error: dict[str, str | None] | None = None
    """The same in the form of the OpenAI API; only below /v1/chat and /v1/models."""
