"""Builds, from settings, what scores answers. Connects to nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

from rag_platform import backends
from rag_platform.backends.embedders.base import Embedder
from rag_platform.backends.llms.base import LLMSpec, StructuredLLM, TokenUsage
from rag_platform.backends.prices import PriceBook
from rag_platform.errors import ConfigurationError
from rag_platform.evaluation.evaluators.base import Evaluator
from rag_platform.evaluation.evaluators.budget import DailyBudget
from rag_platform.evaluation.evaluators.judge import Judge
from rag_platform.evaluation.evaluators.ragas_judge import RagasJudge, pinned
from rag_platform.evaluation.evaluators.ragas_offline import RagasOffline
from rag_platform.ledger import Ledger
from rag_platform.settings import Settings

PREFIX = "RAG_JUDGE_"


def open_evaluators(
    settings: Settings, ledger: Ledger, *, traffic: bool = False, now: Callable[[], float] = time.time
) -> list[Evaluator]:
    """Return the evaluators that the settings ask for; the caller closes them.

    Args:
        traffic: for logged answers, which have no reference. Without a judge nothing scores them.
        now: seconds since the epoch, for the budget of the day.

    Raises:
        ConfigurationError: the judge is unknown or set up so that it cannot work, or its budget is in dollars and
            its price is unknown.
    """
    evaluators: list[Evaluator] = [] if traffic else [RagasOffline(_embedder(settings))]
    if settings.judge != "none":
        evaluators.append(_judge(settings, ledger, traffic, now))
    return evaluators


def _judge(settings: Settings, ledger: Ledger, traffic: bool, now: Callable[[], float]) -> RagasJudge:
    llm: StructuredLLM = backends.load("llms", settings.judge).build(settings, PREFIX)
    prices = PriceBook(settings.prices_file)
    embedder = _embedder(settings)
    pin = pinned(llm.spec, embedder)
    if settings.judge_daily_usd:
        _need_price(prices, llm.spec)
    budget = DailyBudget(
        ledger.evaluations,
        prices,
        llm.spec,
        pin,
        max_usd=settings.judge_daily_usd,
        max_tokens=settings.judge_daily_tokens,
        now=now,
    )
    return RagasJudge(Judge(llm, budget), pin, embedder, timeout_s=settings.judge_timeout_s, traffic=traffic)


def _need_price(prices: PriceBook, spec: LLMSpec) -> None:
    if prices.llm_usd(spec.provider, spec.model, TokenUsage(1, 1)) is None:
        raise ConfigurationError(
            f"RAG_JUDGE_DAILY_USD: the price of {spec.model} is unknown; name it in RAG_PRICES_FILE, or limit the "
            "tokens by RAG_JUDGE_DAILY_TOKENS"
        )


def _embedder(settings: Settings) -> Embedder:
    built: Embedder = backends.load("embedders", settings.embedder).build(settings)
    return built
