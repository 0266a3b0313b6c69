"""The shapes of OpenAI's chat completions, and how questions and answers fit into them.

The last message, of the user, is the question and the earlier ones are its history. System messages are not
read: what the documents say is not for a client to instruct. Sampling parameters (temperature, top_p, seed,
penalties, stop, user, metadata …) are ignored; what would change the shape of the answer (several choices,
tools, JSON mode, audio, log probabilities) is refused. Our own options stand in a field ``rag``, which the
official client sends as ``extra_body={"rag": {…}}``; everything of an ``Answer`` comes back in a field ``rag``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from rag_platform.query.answer import Answer, Citation
from rag_platform.query.events import Event, Final, TextDelta
from rag_platform.query.profiles import PROFILES
from rag_platform.query.question import MAX_QUESTION_CHARS, MAX_TURNS, Turn
from rag_platform.records import SearchMode
from serve.problems import NOT_FOUND, Problem, invalid
from serve.schemas import DeadlineMs, FieldError, FilterText, Passages

MODELS = {f"rag-{name}": name for name in PROFILES}
"""Model names and their profiles."""
ALIASES = {**{name: name for name in PROFILES}, "rag": ""}
"""Further names that are understood and not listed; ``rag`` is the server's default profile."""

MARKER = re.compile(r"\[(\d{1,3})\]")
CORRECTION = "\n\n— The text above could not be verified. The answer that holds is:\n\n"


class ContentPart(msgspec.Struct, frozen=True):
    """A part of a message; only text is read."""

    type: str
    text: str = ""


class ChatMessage(msgspec.Struct, frozen=True):
    """A message of the conversation."""

    role: str
    content: str | list[ContentPart] | None = None


class StreamOptions(msgspec.Struct, frozen=True):
    """How the stream ends."""

    include_usage: bool = False


class RagOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of our own, as those of ``POST /v1/query``."""

    k: Passages | None = None
    mode: SearchMode = "hybrid"
    filter: FilterText | None = None
    rerank: bool | None = None
    deadline_ms: DeadlineMs | None = None
    use_cache: bool = True


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A chat completion request. Fields that are not listed are ignored."""

    model: Annotated[str, Meta(max_length=64, examples=["rag-balanced"])]
    messages: Annotated[
        list[ChatMessage], Meta(min_length=1, examples=[[{"role": "user", "content": "How are chunks cut?"}]])
    ]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    n: int | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None
    logprobs: bool | None = None
    rag: RagOptions = RagOptions()

    def refuse_unsupported(self) -> None:
        """
        Raises:
            Problem: 400; a parameter asks for something that answers here do not have.
        """
        refusals = {
            "n": self.n not in (None, 1),
            "tools": bool(self.tools),
            "functions": bool(self.functions),
            "response_format": (self.response_format or {}).get("type", "text") != "text",
            "modalities": any(m != "text" for m in self.modalities or ()),
            "logprobs": bool(self.logprobs),
        }
        for name, asked in refusals.items():
            if asked:
                raise invalid(name, "is not supported here", code="unsupported_parameter")

    def profile(self, default: str) -> str:
        """
        Raises:
            Problem: 404; no such model.
        """
        name = MODELS.get(self.model) or ALIASES.get(self.model)
        if name is None:
            detail = f"there is no such model; there are {', '.join(MODELS)}"
            raise Problem(NOT_FOUND, detail, errors=(FieldError("model", detail),), code="model_not_found")
        return name or default

    def conversation(self) -> tuple[str, tuple[Turn, ...]]:
        """Return the question and the turns before it, the oldest ones left out where there are too many.

        Raises:
            Problem: 400; the last message is not a user's, or something is not text.
        """
        last = len(self.messages) - 1
        if self.messages[last].role != "user":
            raise invalid(f"messages[{last}].role", "the last message must be the user's")
        turns = []
        for number, message in enumerate(self.messages[:last]):
            text = _text(message, number)
            if message.role in ("user", "assistant") and text.strip():
                turns.append(Turn("user" if message.role == "user" else "assistant", text[: 4 * MAX_QUESTION_CHARS]))
        return _text(self.messages[last], last), tuple(turns[-MAX_TURNS:])

    def answer_tokens(self, profile: str) -> int | None:
        """Return the wanted length, cut to what the profile allows; None: the profile's."""
        wanted = self.max_completion_tokens or self.max_tokens
        return None if wanted is None else min(wanted, 4 * PROFILES[profile].answer_tokens)


def _text(message: ChatMessage, number: int) -> str:
    if message.content is None:
        return ""
    if isinstance(message.content, str):
        return message.content
    if any(part.type != "text" for part in message.content):
        raise invalid(f"messages[{number}].content", "only text can be read", code="unsupported_content")
    return "\n".join(part.text for part in message.content)


# ── answers ──


def cited_places(answer: Answer) -> list[dict[str, Any]]:
    """Return an annotation for each place of the text that refers to a citation, in OpenAI's form plus the citation."""
    by_number = {c.number: c for c in answer.citations}
    return [
        _annotation(by_number[int(m[1])], m.start(), m.end())
        for m in MARKER.finditer(answer.answer)
        if int(m[1]) in by_number
    ]


def _annotation(citation: Citation, start: int, end: int) -> dict[str, Any]:
    place = {"start_index": start, "end_index": end, "url": citation.uri, "title": citation.title}
    return {"type": "url_citation", "url_citation": place, "citation": citation}


def usage(answer: Answer) -> dict[str, int]:
    used = answer.usage
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
    }


def completion(answer: Answer, model: str, created: int) -> dict[str, Any]:
    """Return the body of a response that is not streamed."""
    message = {
        "role": "assistant",
        "content": answer.answer,
        "refusal": None,
        "annotations": cited_places(answer),
    }
    return {
        "id": f"chatcmpl-{answer.request_id}",
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": usage(answer),
        "rag": answer,
    }


class ChatFraming:
    """Chunks of a streamed completion. One stream has one framing: it knows what was sent.

    Text cannot be taken back here. Where the verified answer is not what was streamed, it follows behind a line
    that says so.
    """

    def __init__(self, request_id: str, model: str, created: int, *, include_usage: bool) -> None:
        self._head = {
            "id": f"chatcmpl-{request_id}",
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._include_usage = include_usage
        self._sent = ""
        self._began = False

    def event(self, event: Event) -> bytes:
        if isinstance(event, TextDelta):
            return self._delta(event.text)
        return self._end(event.answer) if isinstance(event, Final) else b""

    def failure(self, problem: Problem, request_id: str) -> bytes:
        return b"data: %b\n\n" % problem.body(request_id, openai=True)

    def _delta(self, text: str) -> bytes:
        if not text:
            return b""
        self._sent += text
        delta: dict[str, Any] = {"content": text}
        if not self._began:
            self._began = True
            delta = {"role": "assistant", "content": text, "refusal": None}
        return self._chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])

    def _end(self, answer: Answer) -> bytes:
        frames = []
        corrected = not answer.answer.startswith(self._sent)
        frames.append(self._delta(CORRECTION + answer.answer if corrected else answer.answer[len(self._sent) :]))
        shift = len(self._sent) - len(answer.answer)
        cited = cited_places(answer)
        for one in cited:
            one["url_citation"]["start_index"] += shift
            one["url_citation"]["end_index"] += shift
        last = {"index": 0, "delta": {"annotations": cited} if cited else {}, "logprobs": None, "finish_reason": "stop"}
        frames.append(self._chunk([last], rag=answer))
        if self._include_usage:
            frames.append(self._chunk([], usage=usage(answer)))
        frames.append(b"data: [DONE]\n\n")
        return b"".join(frames)

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        if self._include_usage:
            more.setdefault("usage", None)
        return b"data: %b\n\n" % msgspec.json.encode({**self._head, "choices": choices, **more})
