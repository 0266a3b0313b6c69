"""What every embedder must do. An embedder inherits the suite by giving one fixture, ``embedder``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Iterator
from typing import TypeVar

import numpy as np
import pytest

from rag_platform.backends.embedders.base import Embedder
from rag_platform.errors import DependencyTimeout
from rag_platform.records import EmbeddingBatch

T = TypeVar("T")

TEXTS = [
    "kubectl drain evicts all pods from a node",
    "A Service exposes an application that runs as a set of Pods.",
    "x",
    "Müller straße, 漢字かな, עברית, \U0001f600\U0001f3fd!",
    "apple pie with cinnamon " * 40,
    "  leading and trailing white space  \n",
]


def run(embedder: Embedder, work: Awaitable[T]) -> T:
    """Run in an event loop of its own, as a stage of ingestion does, and close what that loop opened."""

    async def main() -> T:
        try:
            return await work
        finally:
            await embedder.aclose()

    return asyncio.run(main())


class EmbedderContract:
    """Inherit and give the fixture ``embedder``."""

    @pytest.fixture
    def embedder(self) -> Iterator[Embedder]:
        raise NotImplementedError

    def test_spec_is_sane_and_stable(self, embedder: Embedder) -> None:
        """The spec is plain data that does not change while the embedder works."""
        before = embedder.spec
        run(embedder, embedder.embed(TEXTS[:1]))
        assert embedder.spec == before
        assert before.dimensions > 0 and before.max_tokens > 0 and before.batch_size > 0 and before.concurrency > 0
        assert before.fingerprint and before.model and before.name

    def test_vectors_are_float32_unit_and_one_a_text(self, embedder: Embedder) -> None:
        """One finite unit vector a text, and tokens are counted."""
        batch = run(embedder, embedder.embed(TEXTS))
        assert batch.vectors.shape == (len(TEXTS), embedder.spec.dimensions)
        assert batch.vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(batch.vectors, axis=1), 1, atol=1e-5)
        assert batch.tokens >= len(TEXTS)

    def test_order_and_neighbours_do_not_matter(self, embedder: Embedder) -> None:
        """A text has the same vector alone, in any order and in any company, and again later."""

        async def one_by_one() -> list[EmbeddingBatch]:
            return [await embedder.embed([t]) for t in TEXTS]

        together = run(embedder, embedder.embed(TEXTS)).vectors
        backwards = run(embedder, embedder.embed(TEXTS[::-1])).vectors[::-1]
        alone = np.concatenate([b.vectors for b in run(embedder, one_by_one())])
        np.testing.assert_array_equal(together, backwards)
        np.testing.assert_array_equal(together, alone)

    def test_more_texts_than_a_batch(self, embedder: Embedder) -> None:
        """A call takes any number of texts."""
        texts = [f"text number {i}" for i in range(embedder.spec.batch_size + 7)]
        batch = run(embedder, embedder.embed(texts))
        assert len(batch.vectors) == len(texts)
        np.testing.assert_array_equal(batch.vectors[-1:], run(embedder, embedder.embed(texts[-1:])).vectors)

    def test_no_texts(self, embedder: Embedder) -> None:
        """No texts give no vectors."""
        batch = run(embedder, embedder.embed([]))
        assert batch.vectors.shape == (0, embedder.spec.dimensions) and batch.tokens == 0

    def test_odd_texts(self, embedder: Embedder) -> None:
        """Empty, lone surrogates, NUL, special tokens' names, and texts beyond ``max_tokens`` are embedded."""
        odd = ["", " ", "a \ud800 b", "\x00", "[CLS] <|endoftext|> [SEP]", "word " * (2 * embedder.spec.max_tokens)]
        batch = run(embedder, embedder.embed(odd))
        np.testing.assert_allclose(np.linalg.norm(batch.vectors, axis=1), 1, atol=1e-5)

    def test_query_kind(self, embedder: Embedder) -> None:
        """A question can be embedded."""
        assert len(run(embedder, embedder.embed(["How do I drain a node?"], kind="query")).vectors) == 1

    def test_ping(self, embedder: Embedder) -> None:
        """A healthy embedder answers a ping."""
        run(embedder, embedder.ping())

    def test_deadline(self, embedder: Embedder) -> None:
        """A deadline that cannot be kept is a timeout, not a hang and not another error."""
        with pytest.raises(DependencyTimeout):
            run(embedder, embedder.embed(TEXTS * 20, timeout_s=1e-4))
        run(embedder, embedder.ping())

    def test_concurrent_calls_and_loops(self, embedder: Embedder) -> None:
        """Calls may overlap, in one event loop and from several threads with loops of their own."""
        expected = run(embedder, embedder.embed(TEXTS)).vectors

        async def many() -> list[np.ndarray]:
            return [b.vectors for b in await asyncio.gather(*(embedder.embed(TEXTS) for _ in range(5)))]

        found: list[np.ndarray] = []
        all_done = threading.Barrier(3)

        def loop_of_its_own() -> None:
            async def main() -> None:
                found.extend(await many())
                await asyncio.to_thread(all_done.wait, 60)
                await embedder.aclose()

            asyncio.run(main())

        threads = [threading.Thread(target=loop_of_its_own) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 15
        for vectors in found:
            np.testing.assert_array_equal(vectors, expected)

    def test_tokenizer_offsets_agree_with_counts(self, embedder: Embedder) -> None:
        """Offsets are int32, ordered, inside the text, one pair a counted token."""
        for text, count in zip(TEXTS, embedder.tokenizer.count(TEXTS), strict=True):
            offsets = embedder.tokenizer.offsets(text)
            assert offsets.dtype == np.int32 and offsets.shape == (count, 2)
            assert (offsets[:, 0] < offsets[:, 1]).all()
            assert (np.diff(offsets[:, 0]) >= 0).all() and (np.diff(offsets[:, 1]) >= 0).all()
            assert offsets.size == 0 or (offsets.min() >= 0 and offsets.max() <= len(text))
        assert embedder.tokenizer.offsets("").shape == (0, 2)
