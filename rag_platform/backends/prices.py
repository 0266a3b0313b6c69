"""What tokens cost: the public list of ``genai-prices``, which ships with its package, and prices of your own.

No network. A model that neither knows has no price: None, never a guess.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_platform.backends.llms.base import TokenUsage
from rag_platform.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars for a million tokens; ``output_per_million`` None: only input is priced (an embedder)."""

    input_per_million: float
    output_per_million: float | None = None


class PriceBook:
    """Prices of models.

    Args:
        override: YAML file ``model: {input_per_million: …, output_per_million: …}``, in dollars; what it
            names wins over the public list, whatever the provider.

    Raises:
        ConfigurationError: the file cannot be read or holds something else.
    """

    def __init__(self, override: Path | None = None) -> None:
        self._own = {} if override is None else _read(override)

    @staticmethod
    def load() -> None:
        """Load the public list, which takes a third of a second: in a thread, before the first question."""
        import genai_prices

        with contextlib.suppress(LookupError):
            genai_prices.calc_price(genai_prices.Usage(input_tokens=1), "", provider_id="openai")

    def llm_usd(self, provider: str | None, model: str, usage: TokenUsage) -> float | None:
        """Return the dollars for ``usage``; None when the price is not known.

        Args:
            provider: id of ``genai-prices``, such as ``openai``; None: only the file is asked.
        """
        return self._usd(provider, model, usage.prompt_tokens, usage.completion_tokens)

    def embedding_usd(self, provider: str | None, model: str, tokens: int) -> float | None:
        """Return the dollars for embedding ``tokens``; None when the price is not known."""
        return self._usd(provider, model, tokens, 0)

    def _usd(self, provider: str | None, model: str, prompt: int, completion: int) -> float | None:
        own = self._own.get(model)
        if own is not None:
            if own.output_per_million is None and completion:
                return None
            return (prompt * own.input_per_million + completion * (own.output_per_million or 0.0)) / 1e6
        if provider is None:
            return None
        import genai_prices  # here: its list takes a while to load

        # No count of zero: an embedder has no price for output, and would count as unknown.
        counts = {"input_tokens": prompt, **({"output_tokens": completion} if completion else {})}
        try:
            price = genai_prices.calc_price(genai_prices.Usage(**counts), model, provider_id=provider)
        except LookupError:
            return None
        return float(price.total_price)


def _read(path: Path) -> dict[str, Price]:
    import yaml

    try:
        rows = yaml.safe_load(path.read_text("utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise ConfigurationError(f"RAG_PRICES_FILE: cannot read {path} ({type(e).__name__})") from e
    if not isinstance(rows, dict):
        raise ConfigurationError(f"RAG_PRICES_FILE: {path} must map model names to prices")
    return {str(model): _price(str(model), row, path) for model, row in rows.items()}


def _price(model: str, row: Any, path: Path) -> Price:
    names = ("input_per_million", "output_per_million")
    if not isinstance(row, dict) or not {names[0]} <= set(row) <= set(names):
        raise ConfigurationError(
            f"RAG_PRICES_FILE: {model} in {path} needs input_per_million, may have output_per_million and nothing else"
        )
    for name, value in row.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise ConfigurationError(f"RAG_PRICES_FILE: {name} of {model} in {path} must be a number of dollars")
    return Price(**row)
