"""What the judge may cost on one day: a hard limit over calls side by side and over processes, kept in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rag_platform.backends.llms.base import LLMSpec, TokenUsage
from rag_platform.backends.prices import PriceBook
from rag_platform.errors import ConfigurationError, DependencyError, DependencyTimeout
from rag_platform.evaluation.evaluators.budget import BudgetSpent, DailyBudget
from rag_platform.evaluation.evaluators.opening import open_evaluators
from rag_platform.ledger import Ledger, open_ledger
from rag_platform.settings import Settings
from rag_platform_tests.evaluation.judge_server import JudgeServer
from rag_platform_tests.evaluation.judging import DAY, KEYS, NOON, judged_by, scored

SPEC = LLMSpec("openai_compatible", "judge-1", None, "f", 8192)
CALL = TokenUsage(60, 40)


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    opened = open_ledger(settings)
    yield opened
    opened.close()


@pytest.fixture
def prices(tmp_path: Path) -> PriceBook:
    return PriceBook(price_file(tmp_path))


def price_file(folder: Path) -> Path:
    path = folder / "prices.yaml"
    path.write_text("judge-1: {input_per_million: 1000, output_per_million: 2000}\n")
    return path


def budget(ledger: Ledger, prices: PriceBook, *, usd: float = 0.0, tokens: int = 0, at: float = NOON) -> DailyBudget:
    return DailyBudget(ledger.evaluations, prices, SPEC, "judge-1@0", max_usd=usd, max_tokens=tokens, now=lambda: at)


async def spend(of: DailyBudget, usage: TokenUsage | None, error: Exception | None = None) -> float:
    async with of.call(CALL) as call:
        call.usage = usage
        if error is not None:
            raise error
    return call.usd


def test_what_was_used_is_counted_and_not_what_was_reserved(ledger: Ledger, prices: PriceBook) -> None:
    """The service's own count; where it has none, the most that it may have been."""
    of = budget(ledger, prices)
    assert asyncio.run(spend(of, TokenUsage(10, 5))) == pytest.approx(0.02)
    assert asyncio.run(spend(of, None)) == pytest.approx(0.14)
    found = ledger.evaluations.judge_spend(DAY)
    assert (found.tokens, found.calls) == (115, 2) and found.usd == pytest.approx(0.16)


def test_a_call_that_failed_costs_nothing_and_one_that_was_left_may(ledger: Ledger, prices: PriceBook) -> None:
    """After a deadline nobody knows what the service went on to write."""
    of = budget(ledger, prices)
    with pytest.raises(DependencyError):
        asyncio.run(spend(of, None, DependencyError("judge", "down")))
    assert ledger.evaluations.judge_spend(DAY).tokens == 0
    with pytest.raises(DependencyTimeout):
        asyncio.run(spend(of, None, DependencyTimeout("judge", "slow")))
    assert ledger.evaluations.judge_spend(DAY).tokens == 100


@pytest.mark.parametrize("limit", [{"tokens": 250}, {"usd": 0.35}])
def test_the_limit_holds_for_many_at_once(ledger: Ledger, prices: PriceBook, limit: dict[str, float]) -> None:
    """Eight budgets on one ledger, in threads, that want a hundred tokens each: two at most get them."""
    own = [budget(ledger, prices, **limit) for _ in range(8)]  # type: ignore[arg-type]

    def one(of: DailyBudget) -> bool:
        try:
            asyncio.run(spend(of, CALL))
        except BudgetSpent:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        got = sum(pool.map(one, own))
    found = ledger.evaluations.judge_spend(DAY)
    assert got <= 2 and found.tokens == 100 * got == 100 * found.calls
    assert not limit.get("usd") or found.usd <= limit["usd"] + 1e-9


def test_a_budget_that_is_used_up_says_so_until_tomorrow(ledger: Ledger, prices: PriceBook) -> None:
    """The message names the limit; the next day has a budget of its own."""
    of = budget(ledger, prices, tokens=150)
    asyncio.run(spend(of, CALL))
    with pytest.raises(BudgetSpent, match=r"2027-01-15 \(RAG_JUDGE_DAILY_TOKENS=150\).* 100 tokens"):
        asyncio.run(spend(of, CALL))
    asyncio.run(spend(budget(ledger, prices, tokens=150, at=NOON + 86_400), CALL))
    with pytest.raises(BudgetSpent, match="one call may need 100 tokens"):
        asyncio.run(spend(budget(ledger, prices, tokens=99, at=NOON + 2 * 86_400), CALL))


def test_what_the_budget_leaves_out_is_scored_the_next_day(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for one answer, the other one has no score at all, is said to be left, and is scored tomorrow."""
    with JudgeServer().running() as server:
        generous = judged_by(tmp_path, server.base_url)
        scored(generous, ledger, [KEYS])
        used = ledger.evaluations.judge_spend(DAY).tokens
        tight = judged_by(tmp_path, server.base_url, RAG_JUDGE_DAILY_TOKENS=str(used + 1))
        calls = server.calls
        [found], notes = scored(tight, ledger, [KEYS])
        assert found == {} and server.calls == calls
        assert len(notes) == 4 and all("RAG_JUDGE_DAILY_TOKENS" in n and " of 1 answers: " in n for n in notes)
        assert ledger.evaluations.judge_spend(DAY).tokens == used
        [found], notes = scored(generous, ledger, [KEYS], now=lambda: NOON + 86_400)
        assert len(found) == 4 and notes == ()


def test_every_score_carries_what_it_cost(ledger: Ledger, tmp_path: Path) -> None:
    """With a price, the dollars of the scores are those of the day; without one, tokens are counted alone."""
    with JudgeServer().running() as server:
        priced = judged_by(tmp_path, server.base_url, RAG_PRICES_FILE=str(price_file(tmp_path)))
        [found], _ = scored(priced, ledger, [KEYS])
        spent = ledger.evaluations.judge_spend(DAY)
        assert spent.usd == pytest.approx(sum(s.usd for s in found.values())) and spent.usd > 0
        [found], _ = scored(judged_by(tmp_path, server.base_url), ledger, [KEYS])
        assert sum(s.usd for s in found.values()) == 0 and ledger.evaluations.judge_spend(DAY).tokens > spent.tokens


def test_a_budget_in_dollars_needs_a_price(ledger: Ledger, tmp_path: Path) -> None:
    """Otherwise it would never end; the cure is in the message."""
    with pytest.raises(ConfigurationError, match="RAG_PRICES_FILE"):
        open_evaluators(judged_by(tmp_path, "http://127.0.0.1:1/v1", RAG_JUDGE_DAILY_USD="1"), ledger)
