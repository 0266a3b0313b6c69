"""Retrieval over a real LanceDB, with an embedder that is a table."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rag_platform.backends.embedders.base import EmbedderSpec, TextKind, Tokenizer
from rag_platform.backends.vector_stores.filters import parse
from rag_platform.backends.vector_stores.lancedb import LanceVectorStore
from rag_platform.errors import DependencyError, DependencyTimeout, EmbeddingRefused
from rag_platform.query.retrieve import Degradation, Retriever
from rag_platform.records import LOCAL_OPERATOR, EmbeddingBatch, Principal
from rag_platform.settings import Settings
from rag_platform_tests.contracts.vector_stores import DIMENSIONS, document, run, table, unit


class TableEmbedder:
    """Knows the vector of a few questions; may fail instead."""

    spec = EmbedderSpec("table", "table", "f", DIMENSIONS, 256, 2, 1, 0.0)

    def __init__(self, seeds: dict[str, int], error: Exception | None = None) -> None:
        self.seeds, self.error, self.batches = seeds, error, list[int]()

    @property
    def tokenizer(self) -> Tokenizer:
        raise NotImplementedError

    async def embed(
        self, texts: Sequence[str], *, kind: TextKind = "passage", timeout_s: float | None = None
    ) -> EmbeddingBatch:
        assert kind == "query"
        self.batches.append(len(texts))
        if self.error:
            raise self.error
        return EmbeddingBatch(np.stack([unit(self.seeds[t]) for t in texts]), tokens=len(texts))

    async def ping(self) -> None: ...

    async def aclose(self) -> None: ...


QUESTIONS = {"wolves in winter": 20, "rivers": 11, "alpha": 12}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LanceVectorStore:
    made = LanceVectorStore(str(tmp_path_factory.mktemp("index")))
    run(made.ensure("i", DIMENSIONS))
    rows = table(
        document("a.md", ["alpha wolves", "beta rivers", "gamma hills"], seed=10),
        document("b.md", ["delta plains"], seed=20, tags=["x"]),
        document("secret.md", ["wolves wolves"], seed=30, acl=["staff"]),
    )
    run(made.replace("i", rows, stale=[]))
    return made


def retriever(store: LanceVectorStore, error: Exception | None = None, **settings: object) -> Retriever:
    return Retriever(store, TableEmbedder(QUESTIONS, error), Settings.from_env({}, **settings))


def test_modes(store: LanceVectorStore) -> None:
    """Keyword finds words, vector finds meaning, hybrid finds both and says so."""
    r = retriever(store)
    question = "wolves in winter"
    keyword = run(r.retrieve("i", question, LOCAL_OPERATOR, 3, "keyword"))
    vector = run(r.retrieve("i", question, LOCAL_OPERATOR, 3, "vector"))
    hybrid = run(r.retrieve("i", question, LOCAL_OPERATOR, 3))
    assert [h.text for h in keyword.hits] == ["wolves wolves", "alpha wolves"]
    assert vector.hits[0].text == "delta plains" and len(vector.hits) == 3
    assert {h.text for h in hybrid.hits[:2]} == {"wolves wolves", "delta plains"}
    assert [x.mode for x in (keyword, vector, hybrid)] == ["keyword", "vector", "hybrid"]
    assert all(not x.degraded and {"search", "fuse"} <= x.timings_ms.keys() for x in (keyword, vector, hybrid))
    assert "embed" in hybrid.timings_ms and "embed" not in keyword.timings_ms


def test_reciprocal_rank_is_an_option(store: LanceVectorStore) -> None:
    """RAG_FUSION=rrf ranks by ranks; the candidate depth is never below k."""
    hits = run(retriever(store, fusion="rrf", candidates=1).retrieve("i", "rivers", LOCAL_OPERATOR, 5)).hits
    assert hits[0].text == "beta rivers" and hits[0].score == pytest.approx(2 / 61)
    assert len(hits) == 5


def test_permissions_and_filters_hold_in_every_mode(store: LanceVectorStore) -> None:
    """A principal and a filter narrow every mode; nobody else's chunk appears."""
    r = retriever(store)
    for mode in ("hybrid", "vector", "keyword"):
        hits = run(r.retrieve("i", "wolves in winter", Principal("default"), 9, mode)).hits
        assert hits and "secret.md" not in {h.uri for h in hits}
        assert run(r.retrieve("i", "wolves in winter", Principal("other"), 9, mode)).hits == []
    only = run(r.retrieve("i", "wolves in winter", Principal("default"), 9, where=parse('tags has "x"')))
    assert {h.uri for h in only.hits} == {"b.md"}


@pytest.mark.parametrize("error", [DependencyTimeout("embedder:x", "slow"), EmbeddingRefused("no")])
def test_a_failing_embedder_costs_the_vector_leg(store: LanceVectorStore, error: Exception) -> None:
    """Hybrid goes on with words and declares it; vector alone has nothing to go on with."""
    r = retriever(store, error)
    found = run(r.retrieve("i", "wolves in winter", LOCAL_OPERATOR, 3))
    assert [h.text for h in found.hits] == ["wolves wolves", "alpha wolves"]
    assert found.mode == "keyword" and found.degraded == (Degradation("embed", type(error).__name__),)
    with pytest.raises((DependencyError, EmbeddingRefused)):
        run(r.retrieve("i", "wolves in winter", LOCAL_OPERATOR, 3, "vector"))
    assert run(r.retrieve("i", "alpha", LOCAL_OPERATOR, 3, "keyword")).degraded == ()


def test_many_questions(store: LanceVectorStore) -> None:
    """A batch is embedded in the embedder's batches and answered in order, as one by one."""
    embedder = TableEmbedder(QUESTIONS)
    r = Retriever(store, embedder, Settings.from_env({}))
    asked = ["alpha", "rivers", "wolves in winter", "rivers", "alpha"]
    together = asyncio.run(r.retrieve_many("i", asked, LOCAL_OPERATOR, 3))
    assert embedder.batches == [2, 2, 1]
    for question, found in zip(asked, together, strict=True):
        assert found.hits == run(r.retrieve("i", question, LOCAL_OPERATOR, 3)).hits
    assert asyncio.run(r.retrieve_many("i", [], LOCAL_OPERATOR, 3)) == []


def test_bad_requests(store: LanceVectorStore) -> None:
    """Empty questions, k below one and unknown modes are refused; an unknown index is a KeyError."""
    r = retriever(store)
    for question, k, mode in (("", 3, "hybrid"), (" \n", 3, "keyword"), ("x", 0, "hybrid"), ("x", 3, "magic")):
        with pytest.raises(ValueError):
            run(r.retrieve("i", question, LOCAL_OPERATOR, k, mode))  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        run(r.retrieve("nope", "alpha", LOCAL_OPERATOR, 3))


def test_an_empty_index(tmp_path: Path) -> None:
    """An empty index answers with no hits in every mode."""
    empty = LanceVectorStore(str(tmp_path / "index"))
    run(empty.ensure("i", DIMENSIONS))
    for mode in ("hybrid", "vector", "keyword"):
        assert run(retriever(empty).retrieve("i", "alpha", LOCAL_OPERATOR, 3, mode)).hits == []
