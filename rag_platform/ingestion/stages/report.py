"""What a stage did, in a shape that counters, run metadata and a person can read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rag_platform.errors import DependencyError
from rag_platform.ledger.dead_letters import DeadLetter

SLOWEST = 10


@dataclass(slots=True)
class StageReport:
    """Counts by bucket, the slowest documents (seconds, uri), and new dead letters. ``outage``: a failure that
    did not stop the stage."""

    stage: str
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    slowest: list[tuple[float, str]] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    outage: DependencyError | None = None

    def add(self, bucket: str, **amounts: int | float) -> None:
        counter = self.counts.setdefault(bucket, Counter())
        for name, amount in amounts.items():
            counter[name] += amount  # type: ignore[assignment]

    def took(self, seconds: float, uri: str) -> None:
        """Remember how long one document took, if it is among the slowest."""
        self.slowest.append((seconds, uri))
        if len(self.slowest) > 8 * SLOWEST:
            self.slowest = sorted(self.slowest, reverse=True)[:SLOWEST]

    @property
    def slowest_documents(self) -> list[tuple[float, str]]:
        return sorted(self.slowest, reverse=True)[:SLOWEST]

    @property
    def totals(self) -> dict[str, float]:
        total: Counter[str] = Counter()
        for counter in self.counts.values():
            total.update(counter)
        return dict(total)

    @contextmanager
    def timing(self, bucket: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[bucket] = self.seconds.get(bucket, 0.0) + time.perf_counter() - started
