"""What the routes share, and the two things that most of them do: admit a caller, work for a client."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from litestar.types import Receive

from rag_platform.evaluation.gauges import ScoreGauges
from rag_platform.ledger.keys import Scope
from rag_platform.query.answer import Answer
from rag_platform.query.events import Event, Final
from rag_platform.query.question import Question
from rag_platform.settings import Settings
from serve.attend import BACKSTOP_S, attend
from serve.auth import Authenticator, Caller
from serve.call import Call
from serve.idempotency import IdempotentWrites
from serve.limits import Limits
from serve.service_protocol import AnsweringService
from serve.settings import HttpSettings
from serve.shedding import Gate

T = TypeVar("T")

MAX_WAITING_SHARE = 0.5
"""Of a question's deadline, how much it may spend waiting for a place: the rest is needed to answer."""


@dataclass
class Api:
    """The parts of one running API. ``stopping`` is set as soon as the server is told to end."""

    settings: Settings
    http: HttpSettings
    service: AnsweringService
    authenticator: Authenticator
    gate: Gate
    scores: ScoreGauges
    idempotent: IdempotentWrites = field(default_factory=IdempotentWrites)
    limits: Limits = field(init=False)
    stopping: bool = False

    def __post_init__(self) -> None:
        self.limits = Limits(self.service.query_log.key_usage)

    async def admit(self, call: Call, scope: Scope = "query", *, counted: bool = True) -> Caller:
        """Return who calls; with ``counted`` the request counts against the key's limits.

        Raises:
            Unauthenticated, Forbidden, TooManyRequests, DependencyError: see ``problems``.
        """
        arrived = time.monotonic()
        caller = await self.authenticator.caller(
            call.header(b"authorization"),
            api_key=call.header(b"x-api-key"),
            host=call.header(b"host"),
            origin=call.header(b"origin"),
        )
        call.waited_s = time.monotonic() - arrived
        caller.require(scope)
        if counted:
            self.limits.check(caller)
        return caller

    async def answer(self, question: Question, receive: Receive) -> Answer:
        """Return the answer: from the exact cache at once, else when there is a place to work on it.

        Raises:
            Problem: 503; shed, or out of time.
            Unanswerable: there is none.
            ClientGone: the client hung up; the work was cancelled.
        """
        arrived = time.monotonic()
        found = await self.service.cached(question)
        if found is not None:
            return found
        left = less_waiting(question, time.monotonic() - arrived)
        return await self.work(left, receive, self.service.answer)

    async def work(self, question: Question, receive: Receive, do: Callable[[Question], Awaitable[T]]) -> T:
        """Do the work of a question in a place of the gate, as long as its client waits; raises as ``answer``."""
        self.gate.refuse_if_full()
        limit_s = deadline_of(question)

        async def in_place() -> T:
            arrived = time.monotonic()
            async with self.gate.place(limit_s * MAX_WAITING_SHARE):
                return await do(less_waiting(question, time.monotonic() - arrived))

        return await attend(receive, in_place(), limit_s + BACKSTOP_S)

    async def events(self, question: Question) -> AsyncGenerator[Event, None]:
        """Yield the events of an answer, worked on in a place of the gate; raises as ``answer``, but for ``ClientGone``."""
        arrived = time.monotonic()
        found = await self.service.cached(question)
        if found is not None:
            yield Final(found)
            return
        async with self.gate.place(deadline_of(question) * MAX_WAITING_SHARE):
            stream = self.service.stream(less_waiting(question, time.monotonic() - arrived))
            async with contextlib.aclosing(stream) as events:
                async for event in events:
                    yield event


def deadline_of(question: Question) -> float:
    """Return the seconds that a question may take."""
    return question.profile.deadline_s if question.deadline_s is None else question.deadline_s


def less_waiting(question: Question, waited_s: float) -> Question:
    """Return the question with what it waited taken off its deadline."""
    if waited_s < 0.001:
        return question
    return dataclasses.replace(question, deadline_s=max(0.001, deadline_of(question) - waited_s))
