"""A language model behind a guard: bulkhead, circuit breaker, retry budget. The same interface."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence

from rag_platform.backends.guard import Guard
from rag_platform.backends.llms.base import LLM, Completion, Delta, LLMSpec, Message
from rag_platform.errors import DependencyTimeout, RequestRefused

_GRACE_S = 0.05


class GuardedLLM:
    """``inner``, called through ``guard``.

    A stream is tried again only before its first delta: what a reader has seen cannot be taken back. A
    request that is refused for what it holds counts as an answer, so that one reader's question never
    closes the model to the others.
    """

    def __init__(self, inner: LLM, guard: Guard) -> None:
        self._inner = inner
        self._guard = guard

    @property
    def spec(self) -> LLMSpec:
        return self._inner.spec

    async def stream(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        timeout_s: float,
        first_delta_s: float | None = None,
        temperature: float = 0.0,
    ) -> AsyncGenerator[Delta, None]:
        """See ``LLM.stream``. A slow reader does not hold the upstream: what it has not read waits here."""
        arrived: asyncio.Queue[Delta | BaseException | None] = asyncio.Queue()
        begun = False
        patience = timeout_s if first_delta_s is None else min(timeout_s, first_delta_s)
        begins_by = time.monotonic() + patience

        async def attempt(left: float) -> RequestRefused | None:
            nonlocal begun
            deltas = self._inner.stream(
                messages,
                max_tokens=max_tokens,
                timeout_s=left,
                first_delta_s=begins_by - time.monotonic(),
                temperature=temperature,
            )
            try:
                async with contextlib.aclosing(deltas):
                    async for delta in deltas:
                        begun = True
                        arrived.put_nowait(delta)
            except RequestRefused as e:
                return e
            return None

        def repeatable() -> bool:
            return not begun and time.monotonic() < begins_by

        async def pump() -> None:
            try:
                refused = await self._guard.call(attempt, timeout_s, repeatable=repeatable)
                arrived.put_nowait(refused)
            except BaseException as e:
                arrived.put_nowait(e)

        # A task of its own: the guard's deadline must interrupt the upstream, never the reader between two deltas.
        pumping = asyncio.create_task(pump())
        try:
            try:
                # Waiting for a slot counts too, and only here; the attempt itself ends a little earlier.
                async with asyncio.timeout(patience + _GRACE_S):
                    item = await arrived.get()
            except TimeoutError as e:
                raise DependencyTimeout(self._guard.dependency, f"no answer within {patience:.3g} s") from e
            while item is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
                item = await arrived.get()
        finally:
            pumping.cancel()
            await asyncio.wait([pumping])

    async def complete(
        self, messages: Sequence[Message], *, max_tokens: int, timeout_s: float, temperature: float = 0.0
    ) -> Completion:
        """See ``LLM.complete``."""

        async def attempt(left: float) -> Completion | RequestRefused:
            try:
                return await self._inner.complete(
                    messages, max_tokens=max_tokens, timeout_s=left, temperature=temperature
                )
            except RequestRefused as e:
                return e

        answer = await self._guard.call(attempt, timeout_s)
        if isinstance(answer, RequestRefused):
            raise answer
        return answer

    async def ping(self) -> None:
        """Ask the model itself: whether the breaker is open is not the question."""
        await self._inner.ping()

    async def aclose(self) -> None:
        await self._inner.aclose()
