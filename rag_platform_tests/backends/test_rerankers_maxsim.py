"""The local reranker, with the real model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_platform import backends
from rag_platform.backends.rerankers.base import Reranker
from rag_platform.backends.rerankers.late_interaction import filled, maxsim, standardised, token_weights
from rag_platform.backends.rerankers.maxsim import MaxSimReranker
from rag_platform.backends.rerankers.passage_cache import PackedPassage, PassageCache
from rag_platform.backends.token_encoder import TokenVectors
from rag_platform.errors import ConfigurationError
from rag_platform.settings import Settings
from rag_platform_tests.contracts.rerankers import CANDIDATES, PATIENCE_S, QUESTION, RerankerContract, candidate, run


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def maxsim_reranker(cache: Path, **environ: str) -> MaxSimReranker:
    built = backends.load("rerankers", "maxsim").build(
        Settings.from_env(
            {"RAG_CACHE_DIR": str(cache), "RAG_HOME": str(cache / "home"), "RAG_EMBED_WORKERS": "2", **environ}
        )
    )
    assert isinstance(built, MaxSimReranker)
    return built


class TestContract(RerankerContract):
    @pytest.fixture
    def reranker(self, cache: Path) -> Iterator[Reranker]:
        yield maxsim_reranker(cache)


class TestContractWithoutCache(RerankerContract):
    @pytest.fixture
    def reranker(self, cache: Path) -> Iterator[Reranker]:
        yield maxsim_reranker(cache, RAG_MAXSIM_CACHE_MB="0")


def test_evidence_of_a_leg_counts(cache: Path) -> None:
    """Of two equal passages, the one with the higher BM25 or cosine is better, and a leg that did not find
    a passage counts no more for it than for the worst it found."""
    reranker = maxsim_reranker(cache)
    text = "Nodes are drained with kubectl drain."
    by_keyword = [candidate(text, keyword=5.0), candidate(text, keyword=2.0), candidate(text)]
    by_vector = [candidate(text, vector=0.2), candidate(text, vector=0.6), candidate(text)]
    first = run(reranker, reranker.rerank(QUESTION, by_keyword, timeout_s=PATIENCE_S))
    assert first[0] > first[1] == pytest.approx(first[2])
    second = run(reranker, reranker.rerank(QUESTION, by_vector, timeout_s=PATIENCE_S))
    assert second[1] > second[0] == pytest.approx(second[2])


def test_cached_passages_score_the_same(cache: Path) -> None:
    """The second call judges from the cache and gives the very scores of the first; closing empties it."""
    reranker = maxsim_reranker(cache)

    async def main() -> tuple[list[float], list[float]]:
        first = await reranker.rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S)
        held = reranker._cache.bytes
        assert held > 0
        second = await reranker.rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S)
        assert reranker._cache.bytes == held
        return first, second

    first, second = run(reranker, main())
    assert first == second
    assert reranker._cache.bytes == 0


def test_nonsense_setting(cache: Path) -> None:
    """A value that makes no sense names its variable."""
    with pytest.raises(ConfigurationError, match="RAG_MAXSIM_CACHE_MB"):
        maxsim_reranker(cache, RAG_MAXSIM_CACHE_MB="-1")


def test_no_writable_folder_names_the_cure(tmp_path: Path) -> None:
    """Where the model cannot be built, the error says which setting helps."""
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    reranker = maxsim_reranker(blocked / "a")
    with pytest.raises(ConfigurationError, match="RAG_CACHE_DIR"):
        run(reranker, reranker.ping())


def encoded(rng: np.random.Generator, tokens: int) -> TokenVectors:
    vectors = rng.standard_normal((tokens, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pooled = vectors.mean(axis=0) if tokens else np.ones(384, np.float32)
    return TokenVectors(
        ids=rng.integers(1000, 30_000, tokens).astype(np.int32),
        offsets=np.zeros((tokens, 2), np.int32),
        vectors=vectors,
        pooled=(pooled / np.linalg.norm(pooled)).astype(np.float32),
    )


def test_packing_keeps_cosines() -> None:
    """Packed to a quarter, token vectors keep their cosines to two decimals; no tokens are no problem."""
    rng = np.random.default_rng(7)
    question = encoded(rng, 12)
    for tokens in (0, 1, 200):
        passage = encoded(rng, tokens)
        packed = PackedPassage.pack(passage)
        assert packed.size < passage.vectors.nbytes / 3 + 5000
        np.testing.assert_allclose(
            question.vectors @ packed.vectors.T, question.vectors @ passage.vectors.T, atol=0.005
        )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=60), st.integers(0, 6))
def test_cache_is_bounded_and_forgets_the_least_recent(uses: list[int], room: int) -> None:
    """Whatever is put in, the bytes stay within the limit, are counted exactly, and the last one used stays."""
    rng = np.random.default_rng(7)
    passages = {str(i): PackedPassage.pack(encoded(rng, 10 + i)) for i in range(13)}
    largest = max(p.size for p in passages.values())
    held = PassageCache(room * largest)
    for use in map(str, uses):
        if held.get(use) is None:
            held.put(use, passages[use])
        assert held.bytes <= room * largest
        assert held.bytes == sum(p.size for p in held._held.values())
        assert (held.get(use) is passages[use]) == (room > 0)
    held.clear()
    assert held.bytes == 0 and held.get("0") is None


def test_token_weights_favour_the_telling_tokens() -> None:
    """Rare words of the vocabulary and rare ones among the candidates weigh more; punctuation next to
    nothing; the weights sum to 1."""
    the, rare, other, mark = 1996, 25_000, 25_001, 1029
    ids = np.array([the, rare, other, mark], np.int32)
    candidates = [np.array([the, other], np.int32)] * 3 + [np.array([rare], np.int32)]
    weights = token_weights(ids, [True, True, True, False], candidates)
    assert weights.sum() == pytest.approx(1)
    assert weights[1] > weights[2] > weights[0] > 0 and weights[3] < weights[2]
    assert token_weights(np.zeros(0, np.int32), [], candidates).shape == (0,)
    assert token_weights(ids, [True] * 4, []).sum() == pytest.approx(1)


def test_maxsim_of_a_hand_made_case() -> None:
    """The weighted mean of each question token's best cosine; nothing to compare counts 0."""
    eye = np.eye(3, dtype=np.float32)
    assert maxsim(eye[:2], np.array([0.75, 0.25]), eye[:1]) == pytest.approx(0.75)
    assert maxsim(eye[:2], np.array([0.5, 0.5]), eye[:0]) == 0.0
    assert maxsim(eye[:0], np.zeros(0), eye) == 0.0


@given(st.lists(st.none() | st.floats(-1e6, 1e6), max_size=20))
def test_standardised_scores(scores: list[float | None]) -> None:
    """Filled and standardised scores are finite, have mean 0 and spread 1 (or 0), and keep the order."""
    given_scores = [s for s in scores if s is not None]
    found = filled(scores)
    assert (found is None) == (not given_scores)
    if found is None:
        return
    assert (found >= min(given_scores)).all()
    z = standardised(found)
    assert np.isfinite(z).all() and abs(z.mean()) < 1e-6
    assert z.std() == pytest.approx(1, abs=1e-6) or not z.any()
    order = np.argsort(found, kind="stable")
    assert (np.diff(z[order]) >= 0).all()
