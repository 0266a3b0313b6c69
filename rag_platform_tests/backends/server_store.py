"""A real store that declares itself a server, can be away, and may lack the keyword leg."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from rag_platform.backends.vector_stores.base import SearchRequest, SearchResult
from rag_platform.errors import DependencyError


class ServerStore:
    """See ``base.VectorStore``: every call goes to ``inner``, unless the server is ``away``."""

    def __init__(self, inner: Any, *, keyword: bool = True) -> None:
        self.inner = inner
        self.away = False
        self.closed = 0
        self.capabilities = dataclasses.replace(
            inner.capabilities, keyword=keyword, survives_server_outage=False, atomic_replace=False
        )

    async def search(self, index: str, request: SearchRequest) -> SearchResult:
        self._answer()
        if "keyword" in request.legs and not self.capabilities.keyword:
            raise ValueError("no keyword leg")
        found: SearchResult = await self.inner.search(index, request)
        return found

    def state_token(self, index: str) -> None:
        return None

    async def aclose(self) -> None:
        self.closed += 1
        await self.inner.aclose()

    def __getattr__(self, name: str) -> Any:
        work = getattr(self.inner, name)
        if inspect.iscoroutinefunction(work):

            async def answered(*args: Any, **more: Any) -> Any:
                self._answer()
                return await work(*args, **more)

            return answered

        def told(*args: Any, **more: Any) -> Any:
            self._answer()
            return work(*args, **more)

        return told

    def _answer(self) -> None:
        if self.away:
            raise DependencyError("vector_store:second", "is away")
