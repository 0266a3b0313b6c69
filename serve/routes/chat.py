"""``POST /v1/chat/completions`` and ``GET /v1/models``: what OpenAI's clients call, see ``openai_chat``."""

from __future__ import annotations

import time

import msgspec
from litestar import Request, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from rag_platform.query.question import MAX_QUESTION_CHARS
from serve import call
from serve.api import Api, deadline_of
from serve.intake import Intake
from serve.openai_chat import MODELS, ChatFraming, ChatRequest, completion
from serve.openapi import documented
from serve.problems import invalid
from serve.reply import Reply
from serve.routes.query import answer_headers, build_question
from serve.schemas import MAX_CHAT_BODY_BYTES
from serve.streaming import EventStream

_encoder = msgspec.json.Encoder()
_STARTED = int(time.time())


def routes(api: Api) -> list[HTTPRouteHandler]:
    chats = Intake(ChatRequest, api.http.read_timeout_s, MAX_CHAT_BODY_BYTES)

    @post(
        "/v1/chat/completions",
        status_code=200,
        opt=documented(
            "Answer as OpenAI's API does",
            "For clients of OpenAI's chat completions. The last message, the user's, is the question, earlier ones "
            "are its history; system messages and sampling parameters are ignored; tools, several choices and JSON "
            "mode are refused. Citations are annotations of the message; the whole answer is in the field `rag`, and "
            "the request's field `rag` takes our own options.",
            body=ChatRequest,
            returns={"type": "object", "description": "A chat completion of OpenAI's API."},
            streams=True,
            errors=(400, 401, 403, 404, 408, 413, 415, 429, 503),
            headers=("X-Deadline-Ms",),
        ),
    )
    async def chat_completions(request: Request) -> ASGIApp:  # type: ignore[type-arg]
        now = call.of(request.scope)
        caller = await api.admit(now)
        asked = await chats.read(now, request.receive)
        asked.refuse_unsupported()
        profile = asked.profile(api.settings.profile)
        text, history = asked.conversation()
        if not text.strip() or len(text) > MAX_QUESTION_CHARS:
            last = len(asked.messages) - 1
            raise invalid(f"messages[{last}].content", f"must hold 1 to {MAX_QUESTION_CHARS} characters")
        question = build_question(
            caller,
            now,
            text=text,
            history=history,
            profile=profile,
            k=asked.rag.k,
            mode=asked.rag.mode,
            where=asked.rag.filter,
            rerank=asked.rag.rerank,
            max_answer_tokens=asked.answer_tokens(profile),
            deadline_ms=asked.rag.deadline_ms,
            use_cache=asked.rag.use_cache,
        )
        created = int(time.time())
        if asked.stream:
            wants_usage = asked.stream_options is not None and asked.stream_options.include_usage
            framing = ChatFraming(now.request_id, asked.model, created, include_usage=wants_usage)
            return EventStream(now, api.events(question), framing, deadline_of(question))
        answer = await api.answer(question, request.receive)
        return Reply(_encoder.encode(completion(answer, asked.model, created)), answer_headers(answer))

    @get(
        "/v1/models",
        opt=documented(
            "List the models of the chat endpoint",
            "Each profile is a model.",
            returns={"type": "object", "description": "A list of models of OpenAI's API."},
            errors=(401, 403),
        ),
    )
    async def models(request: Request) -> ASGIApp:  # type: ignore[type-arg]
        await api.admit(call.of(request.scope), counted=False)
        return Reply(_encoder.encode({"object": "list", "data": [_model(name) for name in MODELS]}))

    @get(
        "/v1/models/{name:str}",
        opt=documented(
            "Describe a model",
            "One of those that are listed.",
            returns={"type": "object", "description": "A model of OpenAI's API."},
            errors=(401, 403, 404),
        ),
    )
    async def model(request: Request) -> ASGIApp:  # type: ignore[type-arg]
        name: str = request.path_params["name"]
        await api.admit(call.of(request.scope), counted=False)
        ChatRequest(model=name, messages=[]).profile(api.settings.profile)
        return Reply(_encoder.encode(_model(name)))

    return [chat_completions, models, model]


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": _STARTED, "owned_by": "rag-platform"}
