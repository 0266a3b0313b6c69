"""What every cache must do. A cache inherits the suite by giving the fixtures ``cache``, empty, and ``small``."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import numpy as np
import pytest

from rag_platform.backends.caches.base import Cache, Vector

T = TypeVar("T")

SMALL = 20
"""Members of one space that the fixture ``small`` keeps."""
LONG_S = 1000.0


def run(cache: Cache, work: Callable[[], Awaitable[T]]) -> T:
    """Run in an event loop of its own and close what that loop opened."""

    async def main() -> T:
        try:
            return await work()
        finally:
            await cache.aclose()

    return asyncio.run(main())


def unit(rows: int, dimensions: int, seed: int = 0) -> Vector:
    """Return float32 (rows, dimensions) random unit vectors."""
    vectors = np.random.default_rng(seed).normal(size=(rows, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


async def becomes(look: Callable[[], Awaitable[T]], wanted: T, timeout_s: float = 20.0) -> None:
    """Wait until ``look()`` returns ``wanted``."""
    deadline = time.monotonic() + timeout_s
    while (found := await look()) != wanted:
        assert time.monotonic() < deadline, f"still {found!r}"
        await asyncio.sleep(0.01)


class CacheContract:
    """Inherit and give the fixtures; ``small`` keeps ``SMALL`` members of a space."""

    @pytest.mark.parametrize("value", [b"", b"x", bytes(range(256)) * 400], ids=["empty", "one byte", "100 kB"])
    def test_bytes_come_back_as_they_were(self, cache: Cache, value: bytes) -> None:
        """Any bytes; an absent key is None; the last write wins."""

        async def work() -> None:
            assert await cache.get("k") is None
            await cache.set("k", b"older and longer", ttl_s=LONG_S)
            await cache.set("k", value, ttl_s=LONG_S)
            assert await cache.get("k") == value
            assert await cache.get("k2") is None

        run(cache, work)

    def test_delete(self, cache: Cache) -> None:
        """Takes several keys, absent ones and none."""

        async def work() -> None:
            for key in "abc":
                await cache.set(key, b"v", ttl_s=LONG_S)
            await cache.delete("a", "b", "never")
            await cache.delete("a")
            await cache.delete()
            assert [await cache.get(key) for key in "abc"] == [None, None, b"v"]

        run(cache, work)

    def test_values_expire(self, cache: Cache) -> None:
        """A value is gone after its time, and a later write has its own; no time is no value."""

        async def work() -> None:
            await cache.set("short", b"v", ttl_s=0.05)
            await cache.set("long", b"v", ttl_s=LONG_S)
            await cache.set("renewed", b"v", ttl_s=0.05)
            await cache.set("renewed", b"w", ttl_s=LONG_S)
            await cache.set("none", b"v", ttl_s=LONG_S)
            await cache.set("none", b"v", ttl_s=0)
            await becomes(lambda: cache.get("short"), None)
            assert [await cache.get(k) for k in ("long", "renewed", "none")] == [b"v", b"w", None]

        run(cache, work)

    @pytest.mark.parametrize("seed", range(3))
    def test_nearest_is_exact(self, cache: Cache, seed: int) -> None:
        """The k nearest are those of a full comparison, with their cosine, best first; an empty space has none."""
        vectors, asked = unit(300, 48, seed), unit(8, 48, seed + 100)

        async def work() -> None:
            assert await cache.nearest("s", asked[0], k=3) == []
            for n, vector in enumerate(vectors):
                await cache.remember("s", f"m{n}", vector, ttl_s=LONG_S)
            for question in [*asked, vectors[7]]:
                similarities = vectors @ question
                order = np.argsort(-similarities)
                for k in (1, 5, 299, 400):
                    found = await cache.nearest("s", question, k=k)
                    assert [f.member for f in found] == [f"m{n}" for n in order[:k]]
                    np.testing.assert_allclose(
                        [f.similarity for f in found], np.clip(similarities[order[:k]], -1, 1), atol=1e-5
                    )
                    assert all(-1 <= f.similarity <= 1 for f in found)

        run(cache, work)

    def test_members_are_replaced_and_forgotten(self, cache: Cache) -> None:
        """A member has one vector, the last one; forgetting an absent one changes nothing."""
        e = np.eye(4, dtype=np.float32)

        async def work() -> None:
            await cache.forget("s", "a")
            await cache.remember("s", "a", e[0], ttl_s=LONG_S)
            await cache.remember("s", "b", e[1], ttl_s=LONG_S)
            await cache.remember("s", "a", e[2], ttl_s=LONG_S)
            assert [(f.member, f.similarity) for f in await cache.nearest("s", e[2], k=9)] == [("a", 1), ("b", 0)]
            await cache.forget("s", "a")
            await cache.forget("s", "never")
            await cache.forget("elsewhere", "b")
            assert [f.member for f in await cache.nearest("s", e[2], k=9)] == ["b"]
            await cache.remember("s", "a", e[3], ttl_s=LONG_S)
            assert [f.member for f in await cache.nearest("s", e[3])] == ["a"]

        run(cache, work)

    def test_spaces_and_keys_are_apart(self, cache: Cache) -> None:
        """A space, another space and a key of one name have nothing to do with each other."""
        e = np.eye(3, dtype=np.float32)

        async def work() -> None:
            await cache.remember("x", "m", e[0], ttl_s=LONG_S)
            await cache.remember("y", "m", e[1], ttl_s=LONG_S)
            await cache.set("x", b"v", ttl_s=LONG_S)
            await cache.delete("y", "m")
            assert [f.similarity for f in await cache.nearest("x", e[0])] == [1]
            assert [f.similarity for f in await cache.nearest("y", e[0])] == [0]
            assert await cache.get("x") == b"v"

        run(cache, work)

    def test_members_expire(self, cache: Cache) -> None:
        """A member is not found after its time; others of its space are, whenever they came."""
        e = np.eye(4, dtype=np.float32)

        async def members() -> set[str]:
            return {f.member for f in await cache.nearest("s", e[0], k=9)}

        async def work() -> None:
            await cache.remember("s", "early", e[0], ttl_s=LONG_S)
            await cache.remember("s", "short", e[1], ttl_s=0.05)
            await cache.remember("s", "late", e[2], ttl_s=LONG_S)
            await becomes(members, {"early", "late"})
            await cache.remember("s", "short", e[1], ttl_s=LONG_S)
            assert await members() == {"early", "short", "late"}

        run(cache, work)

    def test_another_length_starts_the_space_anew(self, cache: Cache) -> None:
        """A new embedder's vectors replace the old one's; a question of another length has no neighbours."""

        async def work() -> None:
            await cache.remember("s", "old", unit(1, 8)[0], ttl_s=LONG_S)
            assert await cache.nearest("s", unit(1, 16)[0]) == []
            await cache.remember("s", "new", unit(1, 16)[0], ttl_s=LONG_S)
            assert [f.member for f in await cache.nearest("s", unit(1, 16)[0], k=9)] == ["new"]
            assert await cache.nearest("s", unit(1, 8)[0]) == []

        run(cache, work)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30, -2.0])
    def test_what_is_no_unit_vector_is_not_kept(self, cache: Cache, bad: float) -> None:
        """It would be nearest to everything, or hide the others; and nothing is near to it."""
        vectors = unit(2, 8)
        broken = vectors[0].copy()
        broken[3] = bad

        async def work() -> None:
            await cache.remember("s", "good", vectors[1], ttl_s=LONG_S)
            await cache.remember("s", "bad", broken, ttl_s=LONG_S)
            assert [f.member for f in await cache.nearest("s", vectors[0], k=9)] == ["good"]
            assert await cache.nearest("s", broken) == []

        run(cache, work)

    def test_a_space_keeps_the_newest(self, small: Cache) -> None:
        """However many come, the newest stay, each with its own vector."""
        vectors = unit(5 * SMALL, 16)

        async def work() -> None:
            for n, vector in enumerate(vectors):
                await small.remember("s", f"m{n}", vector, ttl_s=LONG_S)
                if n % 7 == 0:
                    assert (await small.nearest("s", vector))[0].member == f"m{n}"
            found = {f.member: f.similarity for f in await small.nearest("s", vectors[-1], k=1000)}
            assert set(found) == {f"m{n}" for n in range(4 * SMALL, 5 * SMALL)}
            for member, similarity in found.items():
                assert similarity == pytest.approx(float(vectors[int(member[1:])] @ vectors[-1]), abs=1e-5)

        run(small, work)

    def test_many_at_once_in_several_loops(self, cache: Cache) -> None:
        """Calls overlap, in one event loop and from threads with loops of their own, and none sees another's."""
        vectors = unit(40, 16)
        failures: list[BaseException] = []
        all_done = threading.Barrier(3)

        def one_loop(number: int) -> None:
            async def one(n: int) -> None:
                key, value = f"k{number}-{n}", bytes([number, n]) * 500
                await cache.set(key, value, ttl_s=LONG_S)
                await cache.remember(f"s{number}", key, vectors[n], ttl_s=LONG_S)
                assert await cache.get(key) == value
                assert (await cache.nearest(f"s{number}", vectors[n]))[0].member == key

            async def main() -> None:
                try:
                    # Not so many that waiting for a connection could take longer than the deadline.
                    for at in range(0, 40, 8):
                        await asyncio.gather(*(one(n) for n in range(at, at + 8)))
                    await asyncio.to_thread(all_done.wait, 60)
                finally:
                    await cache.aclose()

            try:
                asyncio.run(main())
            except BaseException as e:
                failures.append(e)

        threads = [threading.Thread(target=one_loop, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []

    def test_ping(self, cache: Cache) -> None:
        """A healthy cache answers a ping."""
        run(cache, cache.ping)
