"""Chat models of OpenAI, or of any server that speaks its ``/v1/chat/completions``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rag_platform.backends.llms import openai_replies as replies
from rag_platform.backends.llms.base import Completion, Delta, FinishReason, LLMSpec, Message, TokenUsage
from rag_platform.backends.openai_clients import OpenAIClients
from rag_platform.errors import ConfigurationError, DependencyError, DependencyTimeout, RequestRefused
from rag_platform.identity import fingerprint
from rag_platform.settings import Settings as PlatformSettings
from rag_platform.settings import setting

if TYPE_CHECKING:
    import openai

NAME = "openai_compatible"

_DEFAULT_MODEL = "gpt-4.1-mini"
_PING_TIMEOUT_S = 5.0
_LAST_WORDS_S = 1.0
"""How long to wait behind the finish reason for the usage, which comes in a chunk of its own or not at all."""


@dataclass(frozen=True)
class Settings:
    """``RAG_LLM_…``, ``RAG_LLM_FALLBACK_…`` for the second one, and ``RAG_JUDGE_…`` for the judge."""

    api_key: str | None = setting(None, "API key; default: OPENAI_API_KEY, for OpenAI's own address only.", secret=True)
    base_url: str | None = setting(None, "Address of another server, with its /v1; default: OpenAI's own.")
    model: str | None = setting(
        None, f"Model name; needed for another server, {_DEFAULT_MODEL} at OpenAI's own address."
    )
    provider: str | None = setting(
        None, "Provider id of genai-prices, to know the price; default: openai at OpenAI's own address."
    )
    max_context_tokens: int = setting(8192, "Prompt and answer together, in tokens.")
    concurrency: int = setting(8, "Requests at the same time; halved while the server says 429.")
    request_timeout_s: float = setting(60.0, "Deadline of one request, when the question's own is later.")

    def validate(self, prefix: str) -> None:
        """Raises ConfigurationError that names the variable."""
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise ConfigurationError(f"{prefix}BASE_URL: must begin with http:// or https://")
        if self.base_url is not None and self.model is None:
            raise ConfigurationError(f"{prefix}MODEL: say which model the server at {prefix}BASE_URL shall use")
        for name, low, high in (
            ("max_context_tokens", 512, 10_000_000),
            ("concurrency", 1, 1024),
            ("request_timeout_s", 0.05, 3600),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigurationError(f"{prefix}{name.upper()}: must be between {low} and {high}")


class OpenAICompatibleLLM:
    """One answer a call and no second try; ``GuardedLLM`` owns the retries.

    A parameter of ours that the server refuses (``stream_options`` on small servers, ``max_tokens`` or
    ``temperature`` on reasoning models) is left out or renamed, once, and remembered.

    Args:
        prefix: of the variables that configure it, for messages.
    """

    def __init__(self, own: Settings, api_key: str, prefix: str = "RAG_LLM_") -> None:
        self._own = own
        self._api_key = api_key
        self._prefix = prefix
        self._dependency = f"{prefix.removeprefix('RAG_').rstrip('_').lower()}:{NAME}"
        # OpenAI's newer models know only the new name of the limit, other servers often only the old one.
        names = ("max_completion_tokens", "max_tokens")
        self._limit_names = names if own.base_url is None else names[::-1]
        self._refused: frozenset[str] = frozenset()
        self._clients = OpenAIClients(api_key, own.base_url, own.request_timeout_s)

    @cached_property
    def spec(self) -> LLMSpec:
        own = self._own
        model = own.model or _DEFAULT_MODEL
        return LLMSpec(
            name=NAME,
            model=model,
            provider=own.provider or ("openai" if own.base_url is None else None),
            fingerprint=fingerprint(NAME, {"model": model, "base_url": own.base_url}),
            max_context_tokens=own.max_context_tokens,
            concurrency=own.concurrency,
        )

    async def stream(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        timeout_s: float,
        first_delta_s: float | None = None,
        temperature: float = 0.0,
    ) -> AsyncGenerator[Delta, None]:
        """See ``LLM.stream``."""
        now = asyncio.get_running_loop().time()
        deadline = now + min(timeout_s, self._own.request_timeout_s)
        first = deadline if first_delta_s is None else min(deadline, now + first_delta_s)
        chunks = await self._within(first, self._open(messages, max_tokens, temperature, stream=True))
        finish: FinishReason | None = None
        usage: TokenUsage | None = None
        until = first
        try:
            if not hasattr(chunks, "response"):  # HTML comes back as a string
                raise replies.nonsense(self._dependency)
            while True:
                try:
                    chunk = await self._within(until, _next(chunks))
                except DependencyError:
                    if finish is None:
                        raise
                    break  # all of the answer is there; only the accounting is missing
                if chunk is None:
                    break
                text, reason = replies.piece(chunk, self._dependency)
                usage = replies.usage(chunk) or usage
                if reason is not None and finish is None:
                    finish = reason
                    until = min(deadline, asyncio.get_running_loop().time() + _LAST_WORDS_S)
                elif text and finish is None:
                    until = deadline
                if text:
                    yield Delta(text)
        finally:
            if hasattr(chunks, "close"):
                await chunks.close()
        if finish is None:
            raise DependencyError(self._dependency, "its stream ended before the answer did")
        yield Delta("", finish, usage, self.spec.model)

    async def complete(
        self, messages: Sequence[Message], *, max_tokens: int, timeout_s: float, temperature: float = 0.0
    ) -> Completion:
        """See ``LLM.complete``."""
        deadline = asyncio.get_running_loop().time() + min(timeout_s, self._own.request_timeout_s)
        answer = await self._within(deadline, self._open(messages, max_tokens, temperature, stream=False))
        text, finish = replies.whole(answer, self._dependency)
        return Completion(text, finish, replies.usage(answer), self.spec.model)

    async def complete_json(
        self, messages: Sequence[Message], schema: Mapping[str, Any], *, max_tokens: int, timeout_s: float
    ) -> Completion:
        """See ``StructuredLLM``. A server without ``json_schema`` is asked without it: the messages say what to
        write as well."""
        deadline = asyncio.get_running_loop().time() + min(timeout_s, self._own.request_timeout_s)
        bound = {"type": "json_schema", "json_schema": {"name": "reply", "schema": dict(schema), "strict": True}}
        answer = await self._within(
            deadline, self._open(messages, max_tokens, 0.0, stream=False, response_format=bound)
        )
        text, finish = replies.whole(answer, self._dependency)
        return Completion(text, finish, replies.usage(answer), self.spec.model)

    async def ping(self) -> None:
        """List the models: needs the address and the key to be right, and generates nothing."""
        deadline = asyncio.get_running_loop().time() + min(_PING_TIMEOUT_S, self._own.request_timeout_s)
        client = await self._within(deadline, self._clients.get())
        page = await self._within(deadline, _list_models(client))
        if not isinstance(getattr(page, "data", None), list):
            raise replies.nonsense(self._dependency)

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later call opens new ones."""
        await self._clients.aclose()

    async def _open(
        self, messages: Sequence[Message], max_tokens: int, temperature: float, *, stream: bool, **more: Any
    ) -> Any:
        """Send the request; again without a parameter of ours that the server does not take."""
        client = await self._clients.get()
        import openai

        sent: Any = [{"role": m.role, "content": m.content.encode("utf-8", "replace").decode()} for m in messages]
        wanted: dict[str, Any] = {"temperature": temperature, **more}
        if stream:
            wanted |= {"stream": True, "stream_options": {"include_usage": True}}
        refused = self._refused
        while True:
            limit = next((name for name in self._limit_names if name not in refused), None)
            options = {k: v for k, v in wanted.items() if k not in refused} | ({limit: max_tokens} if limit else {})
            try:
                answer = await client.chat.completions.create(model=self.spec.model, messages=sent, **options)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as e:
                name = replies.blamed(e, options)
                if name is None:
                    raise
                refused |= {name}
                continue
            self._refused = refused  # only now: a refusal that quotes the question may name anything
            return answer

    async def _within(self, deadline: float, call: Any) -> Any:
        """Await ``call`` until ``deadline`` (of the event loop's clock); raise errors of ours."""
        try:
            # The SDK's own timeout is per read: dripped bytes outlive it.
            async with asyncio.timeout_at(deadline):
                return await call
        except TimeoutError as e:
            raise DependencyTimeout(self._dependency, "no answer in time") from e
        except Exception as e:
            from rag_platform.backends.openai_errors import mapped  # imports the SDK, as did the client

            ours = mapped(e, self._dependency, self._prefix, self._request_refused)
            if ours is e:
                raise
            raise ours from e

    def _request_refused(self, what: str) -> RequestRefused:
        return RequestRefused(self._dependency, f"refused the request ({what})")


async def _next(chunks: AsyncIterator[Any]) -> Any:
    """Return the next chunk, None at the end."""
    return await anext(chunks, None)


async def _list_models(client: openai.AsyncOpenAI) -> Any:
    return await client.models.list()


def build(settings: PlatformSettings, prefix: str = "RAG_LLM_") -> OpenAICompatibleLLM:
    """Build the model from the variables with ``prefix``; does no I/O.

    Raises:
        ConfigurationError: a value makes no sense, or there is no key for OpenAI's own service.
    """
    own = settings.vendor(Settings, prefix)
    own.validate(prefix)
    api_key = own.api_key
    if api_key is None and own.base_url is None:
        api_key = settings.environ.get("OPENAI_API_KEY")
        if not api_key:
            raise ConfigurationError(
                f"openai_compatible needs {prefix}API_KEY (or {prefix}BASE_URL of a server without keys)"
            )
    return OpenAICompatibleLLM(own, api_key or "none", prefix)
