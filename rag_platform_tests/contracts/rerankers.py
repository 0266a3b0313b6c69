"""What every reranker must do. A reranker inherits the suite by giving one fixture, ``reranker``."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Iterator
from typing import TypeVar

import pytest

from rag_platform.backends.rerankers.base import Candidate, Reranker
from rag_platform.errors import DependencyError, DependencyTimeout

T = TypeVar("T")

QUESTION = "How do I drain a node?"
TEXTS = [
    "A Service exposes an application that runs as a set of Pods.",
    "kubectl drain evicts all pods from a node before maintenance: do drain it first.",
    "Bake the apple pie for forty minutes with cinnamon.",
    "Müller straße, 漢字かな, עברית, \U0001f600\U0001f3fd!",
]
BEST = 1
"""Index of the text that answers the question."""


def candidate(
    text: str, *, vector: float | None = None, keyword: float | None = None, heading: str = "", title: str = ""
) -> Candidate:
    return Candidate(text, title, heading, vector, keyword, 0.5)


CANDIDATES = [candidate(t) for t in TEXTS]
PATIENCE_S = 60.0


def run(reranker: Reranker, work: Awaitable[T]) -> T:
    """Run in an event loop of its own and close what that loop opened."""

    async def main() -> T:
        try:
            return await work
        finally:
            await reranker.aclose()

    return asyncio.run(main())


class RerankerContract:
    """Inherit and give the fixture ``reranker``."""

    understands = True
    """Whether its model knows which of TEXTS answers QUESTION."""

    @pytest.fixture
    def reranker(self) -> Iterator[Reranker]:
        raise NotImplementedError

    def test_spec_is_sane_and_stable(self, reranker: Reranker) -> None:
        """The spec is plain data that does not change while the reranker works."""
        before = reranker.spec
        run(reranker, reranker.rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S))
        assert reranker.spec == before
        assert before.name and before.model and before.fingerprint and before.max_candidates > 0
        assert before.usd_per_call is None or before.usd_per_call >= 0

    def test_one_finite_score_a_candidate(self, reranker: Reranker) -> None:
        """Scores are finite floats, one a candidate."""
        scores = run(reranker, reranker.rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S))
        assert len(scores) == len(CANDIDATES)
        assert all(type(s) is float and math.isfinite(s) for s in scores)

    def test_the_answer_is_best(self, reranker: Reranker) -> None:
        """The passage that answers the question has the largest score."""
        if not self.understands:
            pytest.skip("its model is made of random weights")
        scores = run(reranker, reranker.rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S))
        assert scores.index(max(scores)) == BEST

    def test_scores_belong_to_their_candidates(self, reranker: Reranker) -> None:
        """In another order the candidates keep their scores, and asking again gives the same."""
        forwards = run(reranker, reranker.rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S))
        backwards = run(reranker, reranker.rerank(QUESTION, CANDIDATES[::-1], timeout_s=PATIENCE_S))
        assert backwards[::-1] == pytest.approx(forwards, abs=1e-6)

    def test_no_candidates_and_one(self, reranker: Reranker) -> None:
        """Nothing to judge gives no scores; a single candidate gets one."""
        assert run(reranker, reranker.rerank(QUESTION, [], timeout_s=PATIENCE_S)) == []
        assert len(run(reranker, reranker.rerank(QUESTION, CANDIDATES[:1], timeout_s=PATIENCE_S))) == 1

    def test_odd_texts(self, reranker: Reranker) -> None:
        """Empty, lone surrogates, NUL, special tokens' names, equal and endless texts are judged."""
        odd = ["", " ", "a \ud800 b", "\x00", "[CLS] <|endoftext|> [SEP]", "word " * 3000, "same", "same"]
        for question in (QUESTION, "?", "\ud800", "why " * 2000):
            scores = run(reranker, reranker.rerank(question, [candidate(t) for t in odd], timeout_s=PATIENCE_S))
            assert len(scores) == len(odd) and all(map(math.isfinite, scores))
            assert scores[-1] == pytest.approx(scores[-2], abs=1e-6)

    def test_scores_of_the_legs_may_be_missing(self, reranker: Reranker) -> None:
        """Candidates with both, one or none of the legs' scores are judged together."""
        mixed = [
            candidate(TEXTS[0], vector=0.3),
            candidate(TEXTS[1], vector=0.7, keyword=9.0),
            candidate(TEXTS[2], keyword=1.0),
            candidate(TEXTS[3]),
        ]
        scores = run(reranker, reranker.rerank(QUESTION, mixed, timeout_s=PATIENCE_S))
        assert len(scores) == 4 and all(map(math.isfinite, scores))

    def test_ping(self, reranker: Reranker) -> None:
        """A healthy reranker answers a ping."""
        run(reranker, reranker.ping())

    def test_deadline(self, reranker: Reranker) -> None:
        """A deadline that cannot be kept is a timeout, not a hang, and the next call works."""
        many = [candidate(f"{i} " + "word " * 200) for i in range(60)]
        with pytest.raises(DependencyTimeout) as caught:
            run(reranker, reranker.rerank(QUESTION, many, timeout_s=1e-4))
        assert isinstance(caught.value, DependencyError) and caught.value.retryable
        run(reranker, reranker.ping())

    def test_closing_twice_and_using_again(self, reranker: Reranker) -> None:
        """Closing is harmless before the first use and twice; a later call works."""

        async def main() -> list[float]:
            await reranker.aclose()
            await reranker.rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S)
            await reranker.aclose()
            await reranker.aclose()
            return await reranker.rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S)

        assert len(run(reranker, main())) == len(CANDIDATES)

    def test_concurrent_calls_and_loops(self, reranker: Reranker) -> None:
        """Calls may overlap, in one event loop and from several threads with loops of their own."""
        expected = run(reranker, reranker.rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S))
        found: list[list[float]] = []
        all_done = threading.Barrier(3)

        def loop_of_its_own() -> None:
            async def main() -> None:
                calls = (reranker.rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S) for _ in range(4))
                found.extend(await asyncio.gather(*calls))
                await asyncio.to_thread(all_done.wait, 60)
                await reranker.aclose()

            asyncio.run(main())

        threads = [threading.Thread(target=loop_of_its_own) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 12
        for scores in found:
            assert scores == pytest.approx(expected, abs=1e-6)
