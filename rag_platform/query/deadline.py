"""The time that a question has left, and what each stage took of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

SHARE = 0.6
"""Of the time left, what one stage may take: what replaces it when it fails, and what follows, need some too."""


class Clock:
    """Started when the question came in.

    Args:
        deadline_s: seconds for everything.
    """

    def __init__(self, deadline_s: float) -> None:
        self._started = time.monotonic()
        self.deadline_s = deadline_s
        self.timings_ms: dict[str, float] = {}

    @property
    def left(self) -> float:
        """Seconds until the deadline; below zero after it."""
        return self._started + self.deadline_s - time.monotonic()

    @property
    def elapsed_ms(self) -> float:
        return (time.monotonic() - self._started) * 1000

    def budget(self, stage_s: float) -> float:
        """Return the seconds that a stage may take: its budget, or a share of what remains."""
        return max(0.0, min(stage_s, SHARE * self.left))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the wall time of the block to the stage's."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = (time.perf_counter() - started) * 1000
            self.timings_ms[name] = round(self.timings_ms.get(name, 0.0) + spent, 3)
