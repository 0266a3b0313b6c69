"""What the judge may cost on one day, over all processes that share a ledger."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from rag_platform.backends.llms.base import LLMSpec, TokenUsage
from rag_platform.backends.prices import PriceBook
from rag_platform.errors import DependencyTimeout, RagError
from rag_platform.ledger.evaluations import Evaluations
from rag_platform.ledger.keys import utc_day


class BudgetSpent(RagError):
    """The judge may not be asked again today. The message says which limit ended it."""


@dataclass(slots=True)
class Call:
    """One call of the judge.

    Attributes:
        most: what it may use at most.
        usage: what it has used, set by the caller; None counts as ``most``.
        usd: what it has cost, after the block; 0 where the price is unknown.
    """

    most: TokenUsage
    usage: TokenUsage | None = None
    usd: float = 0.0


class DailyBudget:
    """Days are of UTC. What a call may use at most is written to the ledger before the call and corrected after it,
    so that calls side by side, in any number of processes, never go over a limit together; what a killed process
    had reserved stays counted.

    Args:
        max_usd, max_tokens: of one day; 0 is no limit. Without a known price the dollars stay 0.
        judge: under whose name the use is kept.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        evaluations: Evaluations,
        prices: PriceBook,
        spec: LLMSpec,
        judge: str,
        *,
        max_usd: float,
        max_tokens: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._evaluations, self._prices, self._spec, self._judge = evaluations, prices, spec, judge
        self._max_usd, self._max_tokens, self._now = max_usd, max_tokens, now
        self._spent: tuple[str, str] | None = None

    @contextlib.asynccontextmanager
    async def call(self, most: TokenUsage) -> AsyncIterator[Call]:
        """Reserve what a call may use at most, and count what it has used in the end. A block that raises anything
        but a timeout has used nothing.

        Raises:
            BudgetSpent: nothing is left for such a call today, nor for any other until tomorrow.
        """
        day = utc_day(self._now())
        await asyncio.to_thread(self._reserve, day, most)
        call = Call(most)
        failed = True
        try:
            yield call
            failed = False
        except (DependencyTimeout, TimeoutError, asyncio.CancelledError):
            failed = False  # the service may go on, and bills what it writes
            raise
        finally:
            used = TokenUsage() if failed else (call.usage or most)
            call.usd = self._usd(used)
            await asyncio.shield(asyncio.to_thread(self._correct, day, most, used))

    def _reserve(self, day: str, most: TokenUsage) -> None:
        if self._spent is not None and self._spent[0] == day:
            raise BudgetSpent(self._spent[1])
        usd, tokens = self._usd(most), _tokens(most)
        self._evaluations.add_spend(day, self._judge, usd=usd, tokens=tokens, calls=0)
        now = self._evaluations.judge_spend(day)
        over = self._over(now.usd, now.tokens)
        if over is None:
            return
        self._evaluations.add_spend(day, self._judge, usd=-usd, tokens=-tokens, calls=0)
        before = self._evaluations.judge_spend(day)
        message = f"the budget of {day} ({over}) has no room for the next call: {before.tokens} tokens are used"
        if self._spec_has_price:
            message += f", ${max(before.usd, 0.0):.4f}"
        if before.calls == 0:
            message += f", and one call may need {tokens} tokens"
        self._spent = (day, message)
        raise BudgetSpent(message)

    def _correct(self, day: str, reserved: TokenUsage, used: TokenUsage) -> None:
        usd, tokens = self._usd(used) - self._usd(reserved), _tokens(used) - _tokens(reserved)
        self._evaluations.add_spend(day, self._judge, usd=usd, tokens=tokens, calls=1)

    def _over(self, usd: float, tokens: int) -> str | None:
        if self._max_tokens and tokens > self._max_tokens:
            return f"RAG_JUDGE_DAILY_TOKENS={self._max_tokens}"
        if self._max_usd and usd > self._max_usd + 1e-9:  # sums of what was added and taken away again
            return f"RAG_JUDGE_DAILY_USD={self._max_usd:g}"
        return None

    @property
    def _spec_has_price(self) -> bool:
        return self._prices.llm_usd(self._spec.provider, self._spec.model, TokenUsage(1, 1)) is not None

    def _usd(self, usage: TokenUsage) -> float:
        if usage.prompt_tokens == usage.completion_tokens == 0:
            return 0.0
        return self._prices.llm_usd(self._spec.provider, self._spec.model, usage) or 0.0


def _tokens(usage: TokenUsage) -> int:
    return usage.prompt_tokens + usage.completion_tokens
