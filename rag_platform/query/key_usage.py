"""What each API key has used today: the ledger's count of all processes, and ours that is not in it yet."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from rag_platform.ledger.keys import KeyUse, utc_day


@dataclass(slots=True)
class Use:
    requests: int = 0
    tokens: int = 0
    usd: float = 0.0
    last_used_at: float = 0.0

    def grow(self, requests: int, tokens: int, usd: float, last_used_at: float) -> None:
        self.requests += requests
        self.tokens += tokens
        self.usd += usd
        self.last_used_at = max(self.last_used_at, last_used_at)


_Counts = dict[tuple[str, str], Use]
"""By (key_id, day)."""


class KeyUsage:
    """Thread-safe. Readers ask ``today`` and ``add``; one writer takes what is pending, writes it to the ledger,
    reports how that went, and reads the ledger's totals back. In this order nothing is counted twice and what is
    being written is never missed. Other processes' use is seen when they have written it and we have read it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: _Counts = {}
        self._writing: _Counts = {}
        self._written: _Counts = {}

    def add(self, key_id: str, *, tokens: int, usd: float, at: float) -> None:
        """Count one request of a key."""
        with self._lock:
            _at(self._pending, (key_id, utc_day(at))).grow(1, tokens, usd, at)

    def today(self, key_id: str, now: float) -> Use:
        """Return what the key has used on the UTC day of ``now``."""
        slot = (key_id, utc_day(now))
        total = Use()
        with self._lock:
            for counts in (self._written, self._writing, self._pending):
                if (use := counts.get(slot)) is not None:
                    total.grow(use.requests, use.tokens, use.usd, use.last_used_at)
        return total

    # ── for the writer ──

    def take(self) -> list[KeyUse]:
        """Return what has to be written now; ``done`` must follow."""
        with self._lock:
            self._writing, self._pending = self._pending, {}
            return [
                KeyUse(key_id, day, u.requests, u.tokens, u.usd, u.last_used_at)
                for (key_id, day), u in self._writing.items()
            ]

    def done(self, *, written: bool) -> None:
        """Say whether what was taken is in the ledger; if not, it is taken again."""
        with self._lock:
            into = self._written if written else self._pending
            for slot, u in self._writing.items():
                _at(into, slot).grow(u.requests, u.tokens, u.usd, u.last_used_at)
            self._writing = {}

    def learn(self, day: str, uses: Iterable[KeyUse]) -> None:
        """Replace what is known of a day by the ledger's counts; forget other days."""
        with self._lock:
            self._written = {(u.key_id, day): Use(u.requests, u.tokens, u.usd) for u in uses}


def _at(counts: _Counts, slot: tuple[str, str]) -> Use:
    return counts.setdefault(slot, Use())
