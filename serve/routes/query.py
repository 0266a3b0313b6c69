"""``POST /v1/query`` and ``POST /v1/retrieve``: from a body to a ``Question``, and its answer back."""

from __future__ import annotations

from typing import Literal

import msgspec
from litestar import Request, post
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from rag_platform.backends.vector_stores import filters
from rag_platform.query.answer import Answer, Degradation
from rag_platform.query.question import Question, Turn
from rag_platform.query.retrieve import Retrieval
from serve import call
from serve.api import Api, deadline_of, less_waiting
from serve.auth import Caller
from serve.call import Call
from serve.intake import Intake, deadline_s
from serve.openapi import documented
from serve.problems import INVALID, Problem, invalid
from serve.reply import NO_STORE, Reply
from serve.schemas import QueryRequest, Result, RetrieveRequest, RetrieveResponse
from serve.streaming import EventStream, QueryFraming

_encoder = msgspec.json.Encoder()
_FRAMING = QueryFraming()


def routes(api: Api) -> list[HTTPRouteHandler]:
    queries = Intake(QueryRequest, api.http.read_timeout_s)
    searches = Intake(RetrieveRequest, api.http.read_timeout_s)

    @post(
        "/v1/query",
        status_code=200,
        opt=documented(
            "Answer a question",
            "The answer rests on passages that the caller may read, and cites them. With `stream: true` or "
            "`Accept: text/event-stream` it comes as server-sent events: `stage`, `passages` and `text` while it is "
            "made, then `answer`, which replaces every text before it; `error` ends a stream that failed. The headers "
            "`X-RAG-Mode`, `X-RAG-Cache` and `X-RAG-Degraded` repeat what the body says.",
            body=QueryRequest,
            returns=Answer,
            streams=True,
            errors=(400, 401, 403, 408, 413, 415, 429, 503),
            headers=("X-Deadline-Ms",),
        ),
    )
    async def query(request: Request) -> ASGIApp:  # type: ignore[type-arg]
        now = call.of(request.scope)
        caller = await api.admit(now)
        asked = await queries.read(now, request.receive)
        question = question_of(asked, caller, now, api.settings.profile)
        if asked.stream or b"text/event-stream" in now.headers.get(b"accept", b""):
            return EventStream(now, api.events(question), _FRAMING, deadline_of(question))
        answer = await api.answer(question, request.receive)
        return Reply(_encoder.encode(answer), answer_headers(answer))

    @post(
        "/v1/retrieve",
        status_code=200,
        opt=documented(
            "Find passages",
            "What an answer would rest on, best first, without an answer.",
            body=RetrieveRequest,
            returns=RetrieveResponse,
            errors=(400, 401, 403, 408, 413, 415, 429, 503),
            headers=("X-Deadline-Ms",),
        ),
    )
    async def retrieve(request: Request) -> ASGIApp:  # type: ignore[type-arg]
        now = call.of(request.scope)
        caller = await api.admit(now)
        asked = await searches.read(now, request.receive)
        question = question_of(asked, caller, now, api.settings.profile)
        found = await api.work(question, request.receive, api.service.retrieve)
        api.service.query_log.use(caller.key_id)
        return Reply(_encoder.encode(as_response(found, now.request_id)), retrieval_headers(found))

    return [query, retrieve]


def question_of(asked: QueryRequest | RetrieveRequest, caller: Caller, now: Call, default_profile: str) -> Question:
    """
    Raises:
        Problem: 400; names the field.
    """
    answering = asked if isinstance(asked, QueryRequest) else None
    return build_question(
        caller,
        now,
        text=asked.question,
        history=tuple(Turn(m.role, m.text) for m in answering.history) if answering else (),
        profile=asked.profile or default_profile,
        k=asked.k,
        mode=asked.mode,
        where=asked.filter,
        rerank=asked.rerank,
        max_answer_tokens=answering.max_answer_tokens if answering else None,
        deadline_ms=asked.deadline_ms,
        use_cache=answering.use_cache if answering else True,
    )


def build_question(
    caller: Caller,
    now: Call,
    *,
    text: str,
    history: tuple[Turn, ...],
    profile: str,
    k: int | None,
    mode: Literal["hybrid", "vector", "keyword"],
    where: str | None,
    rerank: bool | None,
    max_answer_tokens: int | None,
    deadline_ms: int | None,
    use_cache: bool,
) -> Question:
    """
    Raises:
        Problem: 400; names the field where one is to blame.
    """
    tree = None
    if where is not None:
        try:
            tree = filters.parse(where)
        except ValueError as e:
            raise invalid("filter", str(e)) from None
    try:
        question = Question(
            text,
            caller.principal,
            now.request_id,
            history,
            profile,
            k,
            mode,
            tree,
            rerank,
            max_answer_tokens,
            deadline_s(now, deadline_ms),
            use_cache,
            caller.key_id,
        )
    except ValueError as e:  # its messages name limits, and repeat nothing of the question
        raise Problem(INVALID, str(e)) from None
    return less_waiting(question, now.waited_s)


def as_response(found: Retrieval, request_id: str) -> RetrieveResponse:
    results = [
        Result(
            chunk_id=h.chunk_id,
            document_id=h.document_id,
            source=h.source,
            uri=h.uri,
            title=h.title,
            heading_path=h.heading_path,
            page=h.page,
            start=h.start,
            end=h.end,
            score=h.score,
            text=h.text,
            version_id=h.version_id,
            snapshot_id=h.snapshot_id,
            run_id=h.run_id,
        )
        for h in found.hits
    ]
    return RetrieveResponse(
        request_id=request_id,
        results=results,
        mode=found.mode,
        degraded=list(found.degraded),
        timings_ms=dict(found.timings_ms),
    )


def answer_headers(answer: Answer) -> list[tuple[bytes, bytes]]:
    """Return what a client may want to know without reading the body."""
    headers = [NO_STORE, (b"x-rag-mode", answer.mode.encode()), (b"x-rag-cache", answer.cache.encode())]
    if answer.degraded:
        headers.append((b"x-rag-degraded", degraded_header(answer.degraded)))
    return headers


def retrieval_headers(found: Retrieval) -> list[tuple[bytes, bytes]]:
    headers = [NO_STORE, (b"x-rag-mode", found.mode.encode())]
    if found.degraded:
        headers.append((b"x-rag-degraded", degraded_header(found.degraded)))
    return headers


def degraded_header(degraded: list[Degradation] | tuple[Degradation, ...]) -> bytes:
    """Return ``stage;reason=Class, stage;reason=Class``."""
    return ", ".join(f"{d.stage};reason={d.reason}" for d in degraded).encode("latin-1", "replace")
