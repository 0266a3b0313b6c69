"""What a key may ask, and what it is told when that is used up."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from rag_platform import metrics
from rag_platform.ledger.keys import KeyLimits, KeyUse, utc_day
from rag_platform.query.key_usage import KeyUsage
from rag_platform.records import Principal
from serve.auth import OPEN_CALLER, Caller
from serve.limits import Limits, TooManyRequests

MORNING = 1_795_335_600.0  # 2026-11-22 08:20 UTC


@dataclass
class Time:
    now: float = MORNING

    def __call__(self) -> float:
        return self.now


def caller(key_id: str = "k", **limits: float) -> Caller:
    return Caller(Principal("t"), key_id, frozenset({"query"}), KeyLimits(**limits))  # type: ignore[arg-type]


def passes(limits: Limits, who: Caller) -> bool:
    try:
        limits.check(who)
    except TooManyRequests:
        return False
    return True


def test_a_burst_of_one_minute_passes_then_the_rate_holds() -> None:
    """N at once, then one each 60/N seconds; waiting for as long as the refusal says is enough."""
    time = Time()
    limits, who = Limits(KeyUsage(), monotonic=time), caller(requests_per_minute=5)
    assert [passes(limits, who) for _ in range(7)] == [True] * 5 + [False] * 2
    for _ in range(20):
        with pytest.raises(TooManyRequests, match="5 requests a minute") as caught:
            limits.check(who)
        assert (caught.value.reason, caught.value.retry_after_s) == ("rate", 12)
        time.now += caught.value.retry_after_s
        assert passes(limits, who)
    time.now += 3600
    assert sum(passes(limits, who) for _ in range(20)) == 5


def test_no_more_than_the_rate_over_any_stretch() -> None:
    """Whatever the arrivals, at most N (1 + t/60) requests pass in t seconds, and refusals cost nothing."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance, time = random.Random(seed), Time()
    limits, who = Limits(KeyUsage(), monotonic=time), caller(requests_per_minute=30)
    passed = 0
    for _ in range(5000):
        time.now += chance.expovariate(2.0)
        passed += passes(limits, who)
        assert passed <= 30 * (1 + (time.now - MORNING) / 60) + 1e-3
    assert passed >= 30 * (time.now - MORNING) / 60 * 0.95


def test_keys_do_not_share_their_rate() -> None:
    """One key's flood refuses no other's requests; neither a key without limits nor a caller without a key is limited."""
    time = Time()
    limits = Limits(KeyUsage(), monotonic=time)
    assert [passes(limits, caller("a", requests_per_minute=1)) for _ in range(3)] == [True, False, False]
    assert passes(limits, caller("b", requests_per_minute=1))
    assert all(passes(limits, caller("c")) and passes(limits, OPEN_CALLER) for _ in range(100))


def test_daily_budgets_end_at_midnight_utc() -> None:
    """Tokens or dollars used up, by this process or another: refused until the next UTC day, then as new."""
    time, usage = Time(), KeyUsage()
    limits = Limits(usage, clock=time)
    who = caller(daily_tokens=100, daily_usd=1.0)
    usage.add("k", tokens=99, usd=0.5, at=time.now)
    assert passes(limits, who)
    usage.learn(utc_day(time.now), [KeyUse("k", utc_day(time.now), 1, 1, 0.1)])  # another server's
    with pytest.raises(TooManyRequests, match="100 tokens") as caught:
        limits.check(who)
    assert caught.value.reason == "tokens"
    assert caught.value.retry_after_s == 86_400 - MORNING % 86_400
    usage.add("rich", tokens=0, usd=1.0, at=time.now)
    with pytest.raises(TooManyRequests, match=r"\$1 ") as caught:
        limits.check(caller("rich", daily_usd=1.0))
    assert caught.value.reason == "usd"
    time.now += caught.value.retry_after_s
    assert passes(limits, who) and passes(limits, caller("rich", daily_usd=1.0))


def test_a_refusal_by_budget_takes_nothing_from_the_rate_and_is_counted() -> None:
    """The metric tells operators which limit refuses."""

    def count(reason: str) -> float:
        return metrics.REGISTRY.get_sample_value("rag_limited_total", {"reason": reason}) or 0.0

    before = count("tokens")
    time, usage = Time(), KeyUsage()
    limits = Limits(usage, monotonic=time, clock=time)
    usage.add("k", tokens=10, usd=0, at=time.now)
    assert not any(passes(limits, caller(requests_per_minute=1, daily_tokens=10)) for _ in range(3))
    assert count("tokens") == before + 3
    assert passes(limits, caller(requests_per_minute=1, daily_tokens=11))
