"""A store whose clients live as long as an event loop, for tests that give every call a loop of its own."""

from __future__ import annotations

import asyncio
import functools
from typing import Any


class ClosedAfterUse:
    """Passes everything on to ``store``, and closes its clients when no call of the running loop is left."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._active = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        @functools.wraps(found)
        async def call(*arguments: Any, **named: Any) -> Any:
            self._active += 1
            try:
                return await found(*arguments, **named)
            finally:
                self._active -= 1
                if not self._active:
                    await self._store.aclose()

        return call
