"""What the routes need of the query service; ``rag_platform.query.service.QueryService`` is the real one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from rag_platform.query.answer import Answer
from rag_platform.query.citing import CitedSpan
from rag_platform.query.events import Event
from rag_platform.query.log import QueryLog
from rag_platform.query.question import Question
from rag_platform.query.retrieve import Retrieval
from rag_platform.records import Principal


class AnsweringService(Protocol):
    """Every method that may fail raises ``Unanswerable`` or another ``DependencyError``."""

    query_log: QueryLog

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...

    async def cached(self, question: Question) -> Answer | None: ...

    async def answer(self, question: Question) -> Answer: ...

    def stream(self, question: Question) -> AsyncGenerator[Event, None]: ...

    async def retrieve(self, question: Question) -> Retrieval: ...

    async def citation(self, chunk_id: str, principal: Principal) -> CitedSpan | None: ...

    async def feedback(self, request_id: str, rating: int, comment: str | None, key_id: str | None) -> bool: ...

    async def ready(self) -> dict[str, str]: ...
