"""How much a key may ask: requests a minute, tokens and dollars a day."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal

from rag_platform import metrics
from rag_platform.query.key_usage import KeyUsage
from serve.auth import Caller

Reason = Literal["rate", "tokens", "usd"]

DAY_S = 86_400


class TooManyRequests(Exception):
    """A limit of the key is reached. The message is for the caller.

    Attributes:
        reason: which limit.
        retry_after_s: whole seconds, at least 1, until sending again can help.
    """

    def __init__(self, reason: Reason, retry_after_s: float, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = max(1, math.ceil(retry_after_s))


class Limits:
    """Checks each request of a key; a caller without a key has no limits.

    Requests: a token bucket in this process that holds one minute's worth, so a burst of that many passes, and
    several server processes allow as many times the rate. Daily budgets (UTC) count all processes. They are
    checked before an answer and charged after it: answers under way when a budget ends are still given, and
    what has no known price costs no dollars.

    Args:
        key_usage: see ``QueryLog.key_usage``.
        monotonic, clock: seconds.
    """

    def __init__(
        self,
        key_usage: KeyUsage,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._usage = key_usage
        self._monotonic, self._clock = monotonic, clock
        self._buckets: dict[str, tuple[float, float]] = {}  # key_id → (level, when)

    def check(self, caller: Caller) -> None:
        """Take one request from the caller's limits. Not thread-safe: for the event loop.

        Raises:
            TooManyRequests: a limit is reached; nothing was taken.
        """
        key_id, limits = caller.key_id, caller.limits
        if key_id is None:
            return
        refusal = None
        if limits.daily_tokens is not None or limits.daily_usd is not None:
            refusal = self._over_budget(key_id, limits.daily_tokens, limits.daily_usd)
        if refusal is None and limits.requests_per_minute is not None:
            refusal = self._too_fast(key_id, limits.requests_per_minute)
        if refusal is not None:
            metrics.LIMITED.labels(refusal.reason).inc()
            raise refusal

    def _too_fast(self, key_id: str, per_minute: int) -> TooManyRequests | None:
        now, rate = self._monotonic(), per_minute / 60
        level, at = self._buckets.get(key_id, (float(per_minute), now))
        level = min(float(per_minute), level + (now - at) * rate)
        if level > 1 - 1e-6:  # waiting for as long as we said must be enough, whatever was rounded
            self._buckets[key_id] = (level - 1, now)
            return None
        return TooManyRequests("rate", (1 - level) / rate, f"this API key may send {per_minute} requests a minute")

    def _over_budget(self, key_id: str, tokens: int | None, usd: float | None) -> TooManyRequests | None:
        now = self._clock()
        used = self._usage.today(key_id, now)
        tomorrow = DAY_S - now % DAY_S
        if tokens is not None and used.tokens >= tokens:
            return TooManyRequests("tokens", tomorrow, f"this API key has used its {tokens} tokens of today (UTC)")
        if usd is not None and used.usd >= usd:
            return TooManyRequests("usd", tomorrow, f"this API key has used its ${usd:g} of today (UTC)")
        return None
