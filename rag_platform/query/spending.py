"""Tokens and dollars of one question."""

from __future__ import annotations

from rag_platform import metrics
from rag_platform.backends.embedders.base import EmbedderSpec
from rag_platform.backends.llms.base import LLMSpec, TokenUsage
from rag_platform.backends.prices import PriceBook
from rag_platform.backends.rerankers.base import RerankerSpec
from rag_platform.query.answer import Usage


class Spending:
    """Adds up what the steps of one question were billed. An unknown price makes the sum unknown, not smaller."""

    def __init__(self, prices: PriceBook) -> None:
        self._prices = prices
        self._prompt = self._completion = self._embedding = 0
        self._usd: float | None = 0.0

    def llm(self, spec: LLMSpec, usage: TokenUsage | None) -> None:
        """Count one call of a language model; ``usage`` None: it does not say what it counted."""
        if usage is None:
            self._add("llm", None)
            return
        self._prompt += usage.prompt_tokens
        self._completion += usage.completion_tokens
        metrics.TOKENS.labels("prompt").inc(usage.prompt_tokens)
        metrics.TOKENS.labels("completion").inc(usage.completion_tokens)
        billed = usage.billed_by or spec
        self._add("llm", self._prices.llm_usd(billed.provider, billed.model, usage))

    def embedding(self, spec: EmbedderSpec, tokens: int) -> None:
        self._embedding += tokens
        metrics.TOKENS.labels("embedding").inc(tokens)
        price = spec.usd_per_million_tokens
        self._add("embedding", None if price is None else tokens * price / 1e6)

    def rerank(self, spec: RerankerSpec) -> None:
        self._add("rerank", spec.usd_per_call)

    @property
    def usage(self) -> Usage:
        return Usage(prompt_tokens=self._prompt, completion_tokens=self._completion, embedding_tokens=self._embedding)

    @property
    def usd(self) -> float | None:
        """Dollars; None when the price of any call is unknown."""
        return None if self._usd is None else round(self._usd, 9)

    def _add(self, kind: str, usd: float | None) -> None:
        if usd is None:
            metrics.COST_UNKNOWN.labels(kind).inc()
            self._usd = None
            return
        metrics.COST_USD.labels(kind).inc(usd)
        if self._usd is not None:
            self._usd += usd
