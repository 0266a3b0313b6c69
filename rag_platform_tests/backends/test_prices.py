"""What tokens cost, from the list that ships with genai-prices and from a file of one's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rag_platform.backends.llms.base import TokenUsage
from rag_platform.backends.prices import PriceBook
from rag_platform.errors import ConfigurationError

USAGE = TokenUsage(prompt_tokens=1_000_000, completion_tokens=500_000)


def test_known_models_have_their_list_price() -> None:
    """Input and output are priced apart; an embedding model has input alone."""
    prices = PriceBook()
    usd = prices.llm_usd("openai", "gpt-4.1-mini", USAGE)
    assert usd == pytest.approx(0.4 + 0.5 * 1.6)
    assert prices.llm_usd("openai", "gpt-4.1-mini", TokenUsage()) == 0
    assert prices.embedding_usd("openai", "text-embedding-3-small", 1_000_000) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("provider", "model"), [("openai", "gpt-4.1-mini-of-my-own"), ("nobody", "gpt-4.1-mini"), (None, "gpt-4.1-mini")]
)
def test_unknown_price_is_none(provider: str | None, model: str) -> None:
    """A model or provider that the list does not name has no price, and a server of one's own no provider."""
    prices = PriceBook()
    assert prices.llm_usd(provider, model, USAGE) is None
    assert prices.embedding_usd(provider, model, 10) is None


def test_own_prices_win(tmp_path: Path) -> None:
    """The file names models whatever their provider; what it does not say stays unknown."""
    path = tmp_path / "prices.yaml"
    path.write_text("m: {input_per_million: 1, output_per_million: 2.5}\ngpt-4.1-mini: {input_per_million: 9}\n")
    prices = PriceBook(path)
    assert prices.llm_usd(None, "m", USAGE) == pytest.approx(1 + 1.25)
    assert prices.llm_usd("openai", "gpt-4.1-mini", USAGE) is None  # its output has no price in the file
    assert prices.embedding_usd("openai", "gpt-4.1-mini", 1_000_000) == 9
    assert prices.llm_usd("openai", "gpt-4.1", USAGE) is not None


@pytest.mark.parametrize(
    "text",
    [
        "- m", "m: 3", "m: {output_per_million: 1}", "m: {input_per_million: -1}", "m: {input_per_million: .nan}",
        "m: {input_per_million: true}", "m: {input_per_million: 1, cached: 2}", "m: [", "\x00",
    ],
)  # fmt: skip
def test_unreadable_file_is_a_configuration_error(tmp_path: Path, text: str) -> None:
    """A file that says something else is refused at the start, by the variable's name."""
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="RAG_PRICES_FILE"):
        PriceBook(path)
    with pytest.raises(ConfigurationError, match="RAG_PRICES_FILE"):
        PriceBook(tmp_path / "missing.yaml")


def test_the_list_is_loaded_when_asked_and_never_from_the_network() -> None:
    """Importing the module loads no list; with every connection refused the prices are there all the same."""
    code = (
        "import sys, socket\n"
        "from rag_platform.backends.prices import PriceBook; from rag_platform.backends.llms.base import TokenUsage\n"
        "assert 'genai_prices' not in sys.modules\n"
        "def refuse(*_): raise AssertionError('network')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "print(PriceBook().llm_usd('openai', 'gpt-4.1-mini', TokenUsage(10, 10)) > 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
