"""Batches, bisection and outages of ``embed_texts``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from rag_platform import backends
from rag_platform.backends.embedders.base import Embedder
from rag_platform.errors import ConfigurationError, DependencyError, EmbeddingRefused
from rag_platform.ingestion.embed import EmbedOutcome, embed_texts
from rag_platform.settings import Settings
from rag_platform_tests.backends.misbehaving_openai import POISON, MisbehavingOpenAI, vector_of

DIMENSIONS = 8


@pytest.fixture
def server() -> Iterator[MisbehavingOpenAI]:
    with MisbehavingOpenAI(DIMENSIONS).running() as running:
        yield running


def embedder_of(server: MisbehavingOpenAI, **environ: str) -> Embedder:
    settings = {
        "RAG_OPENAI_BASE_URL": server.base_url,
        "RAG_OPENAI_DIMENSIONS": str(DIMENSIONS),
        "RAG_OPENAI_BATCH_SIZE": "64",
        "RAG_OPENAI_CONCURRENCY": "2",
        **environ,
    }
    embedder: Embedder = backends.load("embedders", "openai_compatible").build(Settings.from_env(settings))
    return embedder


def work(
    embedder: Embedder, items: list[tuple[str, str]], timeout_s: float = 5, seen: dict[str, Any] | None = None
) -> EmbedOutcome:
    def keep(vectors: Mapping[str, Any]) -> None:
        if seen is not None:
            assert not seen.keys() & vectors.keys()
            seen.update(vectors)

    async def main() -> EmbedOutcome:
        try:
            return await embed_texts(embedder, items, timeout_s=timeout_s, on_batch=keep)
        finally:
            await embedder.aclose()

    return asyncio.run(main())


def items_of(count: int) -> list[tuple[str, str]]:
    return [(f"k{i}", f"text number {i} " + "word " * (i * 7 % 23)) for i in range(count)]


def test_every_text_gets_its_own_vector(server: MisbehavingOpenAI) -> None:
    """Whatever the order of the work, each key gets the vector of its text, in the fewest calls."""
    items, seen = items_of(300), {}
    outcome = work(embedder_of(server), items, seen=seen)
    assert outcome.outage is None and not outcome.refused
    assert outcome.vectors.keys() == dict(items).keys() == seen.keys()
    for key, text in items:
        np.testing.assert_allclose(outcome.vectors[key], vector_of(text, DIMENSIONS) / 3, atol=1e-6)
    assert outcome.calls == server.calls == 5
    assert outcome.tokens == sum(len(t.split()) for _, t in items)
    assert 1 <= server.most_concurrent <= 2


def test_batches_hold_texts_of_like_length(server: MisbehavingOpenAI) -> None:
    """Neighbours in length travel together, the longest first."""
    work(embedder_of(server, RAG_OPENAI_CONCURRENCY="1"), items_of(300))
    longest = [max(map(len, batch)) for batch in server.inputs]
    assert longest == sorted(longest, reverse=True)


def test_nothing_to_do(server: MisbehavingOpenAI) -> None:
    """No items, no calls."""
    assert work(embedder_of(server), []) == EmbedOutcome() and server.calls == 0


@pytest.mark.parametrize("poisoned", [(0,), (37, 38), (5, 99, 150, 299)])
def test_poison_costs_itself_only(server: MisbehavingOpenAI, poisoned: tuple[int, ...]) -> None:
    """Refused texts are found by bisection; all others are embedded; the calls stay logarithmic (P5)."""
    server.fault = "poison"
    items = items_of(300)
    for i in poisoned:
        items[i] = (f"k{i}", f"bad {POISON} {i}")
    outcome = work(embedder_of(server), items)
    assert outcome.outage is None
    assert outcome.refused.keys() == {f"k{i}" for i in poisoned}
    assert all(isinstance(e, EmbeddingRefused) for e in outcome.refused.values())
    assert outcome.vectors.keys() == dict(items).keys() - outcome.refused.keys()
    assert outcome.calls <= 5 + len(poisoned) * (2 * 6 + 1) + 5


def test_single_poison_alone(server: MisbehavingOpenAI) -> None:
    """One text, and that one bad: refused after a harmless text was accepted."""
    server.fault = "poison"
    outcome = work(embedder_of(server), [("k", POISON)])
    assert outcome.refused.keys() == {"k"} and outcome.outage is None and not outcome.vectors


@pytest.mark.parametrize("count", [1, 100])
def test_refusing_everything_is_an_outage(server: MisbehavingOpenAI, count: int) -> None:
    """A service that refuses also the harmless text is broken: nobody is dead-lettered (P6), and few calls are made."""
    server.fault = "refuse_all"
    outcome = work(embedder_of(server), items_of(count))
    assert isinstance(outcome.outage, DependencyError) and not outcome.refused and not outcome.vectors
    assert server.calls <= 4


@pytest.mark.parametrize(
    "fault", ["server_error", "frozen", "malformed_json", "unauthorized", "insufficient_quota", "nan"]
)
def test_outage_keeps_what_succeeded(server: MisbehavingOpenAI, fault: str) -> None:
    """What was embedded before the service went down is kept and reported; nothing is refused."""
    embedder = embedder_of(server, RAG_OPENAI_CONCURRENCY="1", RAG_OPENAI_BATCH_SIZE="10")
    seen: dict[str, Any] = {}

    class Breaking(dict[str, Any]):
        def update(self, *args: Any, **kwargs: Any) -> None:
            super().update(*args, **kwargs)
            if len(self) >= 30:
                server.fault = fault

    seen = Breaking()
    outcome = work(embedder, items_of(100), timeout_s=0.5, seen=seen)
    assert isinstance(outcome.outage, DependencyError)
    assert len(outcome.vectors) == len(seen) == 30 and not outcome.refused


def test_outage_in_the_middle_of_a_bisection(server: MisbehavingOpenAI) -> None:
    """Refusals seen while the service was going down are not believed."""

    class Dying:
        def __init__(self, inner: Embedder) -> None:
            self._inner, self.calls = inner, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        async def embed(self, texts: Any, **kwargs: Any) -> Any:
            self.calls += 1
            server.fault = "refuse_all" if self.calls < 8 else "server_error"
            return await self._inner.embed(texts, **kwargs)

        async def ping(self) -> None:
            server.fault = None
            await self._inner.ping()

    outcome = work(Dying(embedder_of(server, RAG_OPENAI_CONCURRENCY="1")), items_of(40), timeout_s=0.5)  # type: ignore[arg-type]
    assert outcome.outage is not None and not outcome.refused and not outcome.vectors


def test_batches_that_are_too_large_shrink(server: MisbehavingOpenAI) -> None:
    """A service that takes fewer texts a call than configured still embeds them all, and its limit is learnt."""
    server.max_inputs = 8
    outcome = work(embedder_of(server, RAG_OPENAI_CONCURRENCY="1"), items_of(300))
    assert len(outcome.vectors) == 300 and not outcome.refused and outcome.outage is None
    assert outcome.calls <= 300 / 8 * 1.5 + 25


def test_configuration_errors_pass_through(server: MisbehavingOpenAI) -> None:
    """A wrong configuration ends the work."""
    embedder = embedder_of(server, RAG_OPENAI_TOKENIZER="missing.json")
    with pytest.raises(ConfigurationError):
        work(embedder, items_of(3))
