"""Several language models in order: the next one answers when one fails. The same interface."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, Sequence
from typing import TypeVar

from rag_platform.backends.llms.base import LLM, Completion, Delta, LLMSpec, Message
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.identity import fingerprint

T = TypeVar("T", Delta, Completion)


class FallbackLLM:
    """Asks ``llms`` in order until one begins to answer. After its first delta nobody else is asked.

    Args:
        llms: the preferred one first.
        share: of the time left, how long one that has another behind it may take to begin (to finish,
            for ``complete``).

    Raises:
        ConfigurationError: no model at all.
    """

    def __init__(self, llms: Sequence[LLM], share: float = 0.5) -> None:
        if not llms:
            raise ConfigurationError("a fallback needs at least one language model")
        self._llms = tuple(llms)
        self._share = share

    @property
    def spec(self) -> LLMSpec:
        """That of the first, for the smallest of the contexts: a prompt must fit whoever answers."""
        specs = [llm.spec for llm in self._llms]
        return dataclasses.replace(
            specs[0],
            fingerprint=fingerprint("fallback", {"llms": [s.fingerprint for s in specs]}),
            max_context_tokens=min(s.max_context_tokens for s in specs),
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
        """See ``LLM.stream``; raises as the last one did."""
        deadline = time.monotonic() + timeout_s
        for number, llm in enumerate(self._llms, 1):
            left = deadline - time.monotonic()
            last = number == len(self._llms)
            patience = [s for s in (first_delta_s, None if last else left * self._share) if s is not None]
            deltas = llm.stream(
                messages,
                max_tokens=max_tokens,
                timeout_s=left,
                first_delta_s=min(patience, default=None),
                temperature=temperature,
            )
            begun = False
            try:
                async with contextlib.aclosing(deltas):
                    async for delta in deltas:
                        begun = True
                        yield delta if number == 1 else _billed(delta, llm.spec)
                return
            except DependencyError:
                if begun or last:
                    raise

    async def complete(
        self, messages: Sequence[Message], *, max_tokens: int, timeout_s: float, temperature: float = 0.0
    ) -> Completion:
        """See ``LLM.complete``; raises as the last one did."""
        deadline = time.monotonic() + timeout_s
        for number, llm in enumerate(self._llms, 1):
            left = deadline - time.monotonic()
            last = number == len(self._llms)
            if not last:
                left *= self._share
            try:
                answer = await llm.complete(messages, max_tokens=max_tokens, timeout_s=left, temperature=temperature)
                return answer if number == 1 else _billed(answer, llm.spec)
            except DependencyError:
                if last:
                    raise
        raise AssertionError("unreachable")

    async def ping(self) -> None:
        """One that works is enough; raises as the last one did."""
        for llm in self._llms[:-1]:
            with contextlib.suppress(DependencyError):
                return await llm.ping()
        return await self._llms[-1].ping()

    async def aclose(self) -> None:
        for llm in self._llms:
            await llm.aclose()


def _billed(answer: T, spec: LLMSpec) -> T:
    """Note on the usage that another model than the first one is to be paid."""
    if answer.usage is None or answer.usage.billed_by is not None:
        return answer
    return dataclasses.replace(answer, usage=dataclasses.replace(answer.usage, billed_by=spec))
