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


def answerable(states: Mapping[str, str]) -> bool:
    """Whether questions can be answered at all, if only in part: what a server stays in rotation for.

    Something must be found: in the store of the serving release, or by words in its replica, of which nothing is
    shown without the ledger. All else makes answers better or faster, and each says what it lacks.

    Args:
        states: ``ok`` or what is wrong, as ``Readiness.look`` returns it.
    """

    def ok(*names: str) -> bool:
        return all(states.get(name, "ok") == "ok" for name in names)

    return ok("release") and (ok("vector_store") or ("keyword_replica" in states and ok("keyword_replica", "ledger")))


class Readiness:
    """Remembers what it found for two seconds, so that probes do not become load.

    Args:
        checks: returns what there is to ask now.
    """

    def __init__(self, checks: Callable[[], Mapping[str, Check]]) -> None:
        self._checks = checks
        self._found: dict[str, str] = {}
        self._at = -KEPT_S

    async def look(self) -> dict[str, str]:
        """Return, for each dependency, ``ok`` or the class of its error."""
        if time.monotonic() - self._at >= KEPT_S:
            checks = self._checks()
            states = await asyncio.gather(*(_state(check) for check in checks.values()))
            self._found = dict(zip(checks, states, strict=True))
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
