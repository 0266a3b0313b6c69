"""The in-process cache: the contract, and its bounds."""

from __future__ import annotations

import time

import numpy as np
import pytest

from rag_platform import backends
from rag_platform.backends.caches.base import Cache
from rag_platform.backends.caches.in_process import InProcessCache
from rag_platform.backends.caches.table import VectorTable
from rag_platform.errors import ConfigurationError
from rag_platform.settings import Settings
from rag_platform_tests.contracts.caches import LONG_S, SMALL, CacheContract, run, unit


class TestContract(CacheContract):
    @pytest.fixture
    def cache(self) -> Cache:
        built: Cache = backends.load("caches", "in_process").build(Settings.from_env({}))
        return built

    @pytest.fixture
    def small(self) -> Cache:
        return InProcessCache(100, SMALL, 2**20)


def test_it_is_the_default_and_its_limits_are_checked() -> None:
    """``RAG_CACHE`` names a file; a bound of nothing is refused with the variable's name."""
    assert Settings.from_env({}).cache == "in_process"
    assert "in_process" in backends.vendors("caches") and "table" not in backends.vendors("caches")
    with pytest.raises(ConfigurationError, match="RAG_IN_PROCESS_MAX_MB"):
        backends.load("caches", "in_process").build(Settings.from_env({"RAG_IN_PROCESS_MAX_MB": "0"}))


def test_the_least_recently_used_makes_room() -> None:
    """Reading counts as use."""
    cache = InProcessCache(3, 3, 2**20)

    async def work() -> None:
        for key in "abc":
            await cache.set(key, b"v", ttl_s=LONG_S)
        await cache.get("a")
        await cache.set("d", b"v", ttl_s=LONG_S)
        assert [await cache.get(k) is not None for k in "abcd"] == [True, False, True, True]

    run(cache, work)


def test_bytes_are_bounded() -> None:
    """Values never take more than allowed, one that alone would is not kept, and all is given back."""
    cache = InProcessCache(1000, 10, 10_000)

    async def work() -> None:
        for n in range(50):
            await cache.set(f"k{n}", b"x" * 900, ttl_s=LONG_S)
            assert cache._value_bytes <= 10_000
        assert await cache.get("k49") is not None and await cache.get("k0") is None
        await cache.set("k49", b"x" * 20_000, ttl_s=LONG_S)
        assert await cache.get("k49") is None and await cache.get("k48") is not None
        await cache.delete(*(f"k{n}" for n in range(50)))
        assert cache._value_bytes == 0

    run(cache, work)


def test_bytes_of_spaces_are_bounded() -> None:
    """Many groups of readers, each with a space: the ones that nobody asks make room."""
    cache = InProcessCache(10, 100, 200_000)
    vectors = unit(300, 64)

    async def work() -> None:
        for n, vector in enumerate(vectors):
            await cache.remember(f"s{n}", "m", vector, ttl_s=LONG_S)
            assert await cache.nearest("s0", vectors[0]) != []
            assert cache._space_bytes == sum(t.nbytes for t in cache._spaces.values()) <= 200_000
        assert await cache.nearest("s1", vectors[1]) == [] and await cache.nearest("s299", vectors[299]) != []

    run(cache, work)


def test_a_table_is_like_a_plain_list(seed: int = 5) -> None:
    """Any sequence of puts, removals and expiries leaves what a list of live members would hold."""
    rng = np.random.default_rng(seed)
    table, model = VectorTable(8, 50), dict[str, tuple[np.ndarray, float]]()
    vectors = unit(2000, 8, seed)
    now = 0.0
    for n in range(2000):
        now += 1.0
        member = f"m{rng.integers(80)}"
        if rng.random() < 0.2:
            table.remove(member)
            model.pop(member, None)
        else:
            model.pop(member, None)
            expires_at = now + float(rng.integers(1, 400))
            if len(model) == 50:
                model.pop(next(iter(model)))
            table.put(member, vectors[n], expires_at)
            model[member] = (vectors[n], expires_at)
        if n % 10 == 0:
            model = {m: v for m, v in model.items() if v[1] > now}
            found = table.nearest(vectors[0], 100, now)
            assert {f.member: round(f.similarity, 4) for f in found} == pytest.approx(
                {m: round(float(v[0] @ vectors[0]), 4) for m, v in model.items()}, abs=2e-4
            )
            assert [f.similarity for f in found] == sorted((f.similarity for f in found), reverse=True)
            assert len(table) == len(model)


def test_ten_thousand_are_looked_up_fast() -> None:
    """No promise of this size is at stake here: only that nobody puts a loop over members back in."""
    cache = InProcessCache(10, 10_000, 2**28)
    vectors = unit(10_000, 384)

    async def work() -> None:
        for n, vector in enumerate(vectors):
            await cache.remember("s", f"m{n}", vector, ttl_s=LONG_S)
        best = 1.0
        for n in range(20):
            started = time.perf_counter()
            [found] = await cache.nearest("s", vectors[n])
            best = min(best, time.perf_counter() - started)
            assert found.member == f"m{n}"
        assert best < 0.02

    run(cache, work)
