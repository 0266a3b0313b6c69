"""Asks the judge: one prompt, one reply that fits a schema, within a deadline and the day's budget.

Nothing below tries again by itself; this is the one owner of retries.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Mapping
from typing import Any, TypeVar

import pydantic

from rag_platform.backends.llms.base import Completion, Message, StructuredLLM, TokenUsage
from rag_platform.backends.throttle import AdaptiveLimiter, CircuitBreaker
from rag_platform.errors import DependencyError, DependencyTimeout, RagError, RateLimited, RequestRefused
from rag_platform.evaluation.evaluators.budget import Call, DailyBudget

R = TypeVar("R", bound=pydantic.BaseModel)

ATTEMPTS = 4
"""Requests for one reply, while the service is busy or stumbles."""
FIRST_PAUSE_S = 0.5
"""Doubles with each attempt; a longer ``Retry-After`` is kept."""
MAX_WAIT_S = 5.0
"""Longest pause of the breaker that an answer waits for."""
REPAIRS = 1
"""Times that a reply which does not fit is sent back with what is wrong."""
MAX_REPLY_TOKENS = 2048
BYTES_PER_TOKEN = 2
"""Of a prompt, for what it may use at most; English has four or five."""

_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n?```\s*\Z", re.DOTALL)


class Unparsable(RagError):
    """What the judge replied is not what it was asked for."""


class Judge:
    """A model that judges. One that is down is not waited for by every answer anew."""

    def __init__(self, llm: StructuredLLM, budget: DailyBudget) -> None:
        self.dependency = f"judge:{llm.spec.model}"
        self._llm, self._budget = llm, budget
        self._limiter, self._breaker = AdaptiveLimiter(llm.spec.concurrency), CircuitBreaker()
        self._max_tokens = min(MAX_REPLY_TOKENS, llm.spec.max_context_tokens // 2)

    def session(self, timeout_s: float) -> Session:
        """Return what asks the judge for one metric of one answer."""
        return Session(self, self._budget, self._max_tokens, time.monotonic() + timeout_s)

    async def complete(self, messages: list[Message], schema: Mapping[str, Any], deadline: float) -> Completion:
        """Return one reply, after as many attempts as are useful before ``deadline`` (of ``time.monotonic``)."""
        pause = FIRST_PAUSE_S
        for left in range(ATTEMPTS - 1, -1, -1):
            try:
                return await self._once(messages, schema, deadline)
            except DependencyError as e:
                wait = max(pause * random.uniform(0.5, 1.0), e.retry_after_s or 0.0)
                in_vain = not e.retryable or isinstance(e, DependencyTimeout) or time.monotonic() + wait >= deadline
                if in_vain or not left:
                    raise
            await asyncio.sleep(wait)
            pause *= 2
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        await self._llm.aclose()

    async def _once(self, messages: list[Message], schema: Mapping[str, Any], deadline: float) -> Completion:
        async with self._limiter.slot():
            await self._wait_while_down(deadline)
            started = time.monotonic()
            try:
                answer = await self._llm.complete_json(
                    messages, schema, max_tokens=self._max_tokens, timeout_s=deadline - started
                )
            except RequestRefused:
                self._breaker.succeeded()  # it works: that says nothing about the next prompt
                raise
            except DependencyError as e:
                if isinstance(e, RateLimited):
                    self._limiter.slow_down(started)
                self._breaker.failed(e)
                raise
            except BaseException:
                self._breaker.abandoned()
                raise
        self._limiter.succeeded()
        self._breaker.succeeded()
        return answer

    async def _wait_while_down(self, deadline: float) -> None:
        while (delay := self._breaker.delay(max(deadline - time.monotonic(), 0.05))) > 0:
            last = self._breaker.last_error
            asked = last is not None and last.retry_after_s is not None
            patient = delay <= MAX_WAIT_S or asked
            if not patient or (last is not None and not last.retryable) or time.monotonic() + delay >= deadline:
                why = "not called: it failed repeatedly" if last is None else f"not called again after: {last}"
                raise DependencyError(self.dependency, why, retryable=False, retry_after_s=delay) from last
            await asyncio.sleep(delay)


class Session:
    """The questions to the judge for one metric of one answer. ``usd`` is what they have cost so far."""

    def __init__(self, judge: Judge, budget: DailyBudget, max_tokens: int, deadline: float) -> None:
        self._judge, self._budget, self._max_tokens, self._deadline = judge, budget, max_tokens, deadline
        self.usd = 0.0

    async def ask(self, prompt: str, reply: type[R]) -> R:
        """Return what the judge replies.

        Raises:
            Unparsable: its replies do not fit ``reply``.
            BudgetSpent: it may not be asked again today.
            RequestRefused: it refuses this prompt, such as one that is too long for it.
            DependencyTimeout: no reply before the deadline.
            DependencyError: it is down.
        """
        schema = strict(reply.model_json_schema())
        messages = [Message("user", prompt)]
        for left in range(REPAIRS, -1, -1):
            answer = await self._paid(messages, schema)
            try:
                return parsed(answer, reply)
            except Unparsable as e:
                if not left:
                    raise
                wrong = f"That reply cannot be used: {e}. Reply with nothing but JSON that fits the schema."
                messages = [*messages[:1], Message("assistant", answer.text), Message("user", wrong)]
        raise AssertionError("unreachable")

    async def _paid(self, messages: list[Message], schema: Mapping[str, Any]) -> Completion:
        said = sum(len(m.content.encode("utf-8", "replace")) for m in messages) + len(json.dumps(schema))
        call: Call | None = None
        try:
            async with self._budget.call(TokenUsage(said // BYTES_PER_TOKEN + 16, self._max_tokens)) as call:
                answer = await self._judge.complete(messages, schema, self._deadline)
                call.usage = answer.usage
        finally:
            self.usd += 0.0 if call is None else call.usd
        return answer


def strict(schema: Any) -> Any:
    """Return a JSON schema that is closed, as strict modes want it: nothing but what is named, all of it, and whole
    numbers, which are verdicts in all of these metrics, 0 or 1."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if closed.get("type") == "object":
        closed |= {"additionalProperties": False, "required": list(closed.get("properties", {}))}
    elif closed.get("type") == "integer":
        closed["enum"] = [0, 1]
    return closed


def parsed(answer: Completion, reply: type[R]) -> R:
    """Read a reply without trust: it may be fenced as Markdown.

    Raises:
        Unparsable: it was cut off, is no JSON, does not fit, or has a verdict that is neither 0 nor 1. The message
            holds nothing of it.
    """
    if answer.finish != "stop":
        raise Unparsable(f"the judge's reply was cut off ({answer.finish})")
    fenced = _FENCE.match(answer.text)
    try:
        found = reply.model_validate_json(fenced.group(1) if fenced else answer.text.strip())
    except pydantic.ValidationError as e:
        kinds = sorted({error["type"] for error in e.errors(include_input=False, include_url=False)})
        raise Unparsable(f"the judge's reply does not fit its schema ({', '.join(kinds)})") from None
    if not _verdicts_ok(found.model_dump()):
        raise Unparsable("the judge's reply has a verdict that is neither 0 nor 1")
    return found


def _verdicts_ok(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_verdicts_ok(v) for v in value.values())
    if isinstance(value, list):
        return all(_verdicts_ok(v) for v in value)
    return not isinstance(value, int) or value in (0, 1)
