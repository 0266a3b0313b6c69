"""What can be used now: every dependency asked at the same time, each for a second at most."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from rag_platform.errors import DependencyTimeout, RagError

PING_TIMEOUT_S = 1.0
KEPT_S = 2.0

Check = Callable[[], Awaitable[Any]]
"""Raises an error of the platform when its dependency cannot be used."""


class Readiness:
    """Remembers what it found for two seconds, so that probes do not become load."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._found: dict[str, str] = {}
        self._at = -KEPT_S

    async def look(self) -> dict[str, str]:
        """Return, for each dependency, ``ok`` or the class of its error."""
        if time.monotonic() - self._at >= KEPT_S:
            states = await asyncio.gather(*(_state(check) for check in self._checks.values()))
            self._found = dict(zip(self._checks, states, strict=True))
            self._at = time.monotonic()
        return self._found


async def _state(check: Check) -> str:
    try:
        async with asyncio.timeout(PING_TIMEOUT_S):
            await check()
    except TimeoutError:
        return DependencyTimeout.__name__
    except RagError as e:
        return type(e).__name__
    return "ok"
