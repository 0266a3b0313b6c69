"""What a language model promises."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "content_filter"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens that the service counted (and billed).

    ``billed_by`` is the model, where it is not the one that was called: a fallback answered.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    billed_by: LLMSpec | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer. The last one of a stream has a ``finish``, the ``model`` that wrote it and, where
    the service counts, ``usage``."""

    text: str = ""
    finish: FinishReason | None = None
    usage: TokenUsage | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer. ``usage`` is None where the service does not count."""

    text: str
    finish: FinishReason
    usage: TokenUsage | None
    model: str


@dataclass(frozen=True, slots=True)
class LLMSpec:
    """What a model is, as data.

    Attributes:
        name: vendor file name.
        model: model name, as sent.
        provider: provider id of ``genai-prices``, None when unknown (another server's model).
        fingerprint: changes whenever answers would (model, address, sampling); part of cache keys.
        max_context_tokens: prompt and answer together.
        concurrency: requests at a time that the service bears.
    """

    name: str
    model: str
    provider: str | None
    fingerprint: str
    max_context_tokens: int
    concurrency: int = 8


class LLM(Protocol):
    """Asynchronous; construction does no I/O. One request a call: retries belong to the caller's guard."""

    @property
    def spec(self) -> LLMSpec: ...

    def stream(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        timeout_s: float,
        first_delta_s: float | None = None,
        temperature: float = 0.0,
    ) -> AsyncGenerator[Delta, None]:
        """Yield the answer as it is written; exactly the last delta has a ``finish``.

        ``timeout_s`` is for the whole stream, ``first_delta_s`` for the time until its first delta, when
        that is shorter. Closing the iterator early closes the connection.

        Raises:
            DependencyTimeout: not finished, or not begun, in time.
            RequestRefused: the service refuses these messages.
            DependencyError: the service is down, refuses us, answers nonsense, or its stream ends
                without a finish reason (a cut connection looks like that).
        """
        ...

    async def complete(
        self, messages: Sequence[Message], *, max_tokens: int, timeout_s: float, temperature: float = 0.0
    ) -> Completion:
        """Return the whole answer; raises as ``stream`` does."""
        ...

    async def ping(self) -> None:
        """Raise ``DependencyError`` when the service cannot be used. Generates nothing."""
        ...

    async def aclose(self) -> None: ...


class StructuredLLM(Protocol):
    """A language model whose reply can be bound to a JSON schema. One request a call."""

    @property
    def spec(self) -> LLMSpec: ...

    async def complete_json(
        self, messages: Sequence[Message], schema: Mapping[str, Any], *, max_tokens: int, timeout_s: float
    ) -> Completion:
        """Return a reply that should fit ``schema``. Small servers do not hold a model to it, so the caller reads
        it without trust.

        Raises:
            DependencyTimeout: not finished in time.
            RequestRefused: the service refuses these messages.
            DependencyError: the service is down, refuses us or answers nonsense.
        """
        ...

    async def aclose(self) -> None: ...
