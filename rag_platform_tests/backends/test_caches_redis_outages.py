"""A Redis that is closed, frozen, slow, dripping or no Redis: an error of ours, inside the deadline."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rag_platform.backends.caches.patience import LONGEST, answered_within
from rag_platform.backends.caches.redis import RedisCache, Settings
from rag_platform.errors import DependencyError, DependencyTimeout
from rag_platform_tests.backends import redis_server, redis_topologies
from rag_platform_tests.contracts.caches import LONG_S, run, unit

TIMEOUT_S = 0.15
ALLOWED_S = TIMEOUT_S * LONGEST + 0.25
"""The deadline, and P7's tolerance."""

VECTOR = unit(1, 8)[0]
OPERATIONS: dict[str, Callable[[RedisCache], Awaitable[object]]] = {
    "get": lambda c: c.get("k"),
    "set": lambda c: c.set("k", b"v" * 2000, ttl_s=LONG_S),
    "delete": lambda c: c.delete("k"),
    "remember": lambda c: c.remember("s", "m", VECTOR, ttl_s=LONG_S),
    "nearest": lambda c: c.nearest("s", VECTOR),
    "ping": lambda c: c.ping(),
}

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


def saying(reply: bytes) -> Handler:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(reply)
            await writer.drain()

    return speak


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(65536)
    writer.write(b"$100000\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    rng = random.Random(17)
    while await reader.read(65536):
        writer.write(rng.randbytes(rng.randrange(1, 500)) + b"\r\n")
        await writer.drain()


NO_REDIS: dict[str, Handler] = {
    "silent": silent,
    "hangs up": hang_up,
    "drips": drip,
    "noise": noise,
    "http": saying(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "unknown type": saying(b"?what\r\n"),
    "huge bulk": saying(b"$99999999999\r\nabc\r\n"),
    "no length": saying(b"$abc\r\n"),
    "nested": saying(b"*1\r\n" * 20_000),
    "huge array": saying(b"*2000000000\r\n"),
    "error": saying(b"-ERR k v\r\n"),
}
WRONG_KIND: dict[str, Handler] = {
    "array": saying(b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
    "status": saying(b"+FINE\r\n"),
}


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[str]:
    """Serve ``handler`` on a free port of loopback; yields a URL. All of it ends with the block."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def fails_in_time(cache: RedisCache, operation: str) -> DependencyError:
    """Three tries: another process may have had the processor when the deadline came."""
    taken = []
    for _ in range(3):
        started = time.monotonic()
        with pytest.raises(DependencyError) as caught:
            async with asyncio.timeout(20):
                await OPERATIONS[operation](cache)
        taken.append(time.monotonic() - started)
        if taken[-1] < ALLOWED_S:
            return caught.value
    raise AssertionError(f"took {taken} s")


async def _recovered(cache: RedisCache) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            return await cache.ping()
        except DependencyError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", NO_REDIS)
def test_no_redis(kind: str, operation: str) -> None:
    """Whatever speaks there instead, each operation fails in time, the second time too, and says no value."""

    async def work() -> None:
        async with listening(NO_REDIS[kind]) as url:
            cache = RedisCache(Settings(url=url, timeout_s=TIMEOUT_S))
            for _ in range(2):
                error = await fails_in_time(cache, operation)
                assert "vvv" not in str(error) and " k" not in str(error)
            await cache.aclose()

    asyncio.run(work())


@pytest.mark.parametrize("operation", ["get", "set", "delete", "ping", "nearest"])
@pytest.mark.parametrize("kind", WRONG_KIND)
def test_a_reply_of_another_kind(kind: str, operation: str) -> None:
    """Redis protocol, but nothing that this command can answer."""

    async def work() -> None:
        async with listening(WRONG_KIND[kind]) as url:
            cache = RedisCache(Settings(url=url, timeout_s=TIMEOUT_S))
            try:
                found = await OPERATIONS[operation](cache)
                assert operation == "get" and found is None and kind == "status"  # a text that is no value of ours
            except DependencyError:
                pass
            await cache.aclose()

    asyncio.run(work())


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_closed_port(operation: str) -> None:
    """Refused at once."""

    async def work() -> None:
        async with listening(silent) as url:
            pass
        cache = RedisCache(Settings(url=url, timeout_s=TIMEOUT_S))
        await fails_in_time(cache, operation)
        await cache.aclose()

    asyncio.run(work())


@pytest.mark.parametrize("kind", ["plain", "with vectors"])
@pytest.mark.parametrize("warm", [True, False], ids=["connected", "not yet connected"])
def test_a_frozen_server(kind: str, warm: bool) -> None:
    """Each operation gives up in time; once the server goes on, the same cache works again."""
    binary = redis_server.plain_binary() if kind == "plain" else redis_server.vector_binary()
    if binary is None:
        pytest.skip("no such server here")

    async def work(server: redis_server.RedisServer) -> None:
        cache = RedisCache(Settings(url=server.url, timeout_s=TIMEOUT_S))
        if warm:
            await _recovered(cache)
        server.freeze()
        try:
            for operation in OPERATIONS:
                assert isinstance(await fails_in_time(cache, operation), DependencyTimeout)
            for _ in range(3):  # many more than connections: those that wait for one are freed as well
                async with asyncio.timeout(20):
                    results = await asyncio.gather(*(cache.get(f"k{n}") for n in range(100)), return_exceptions=True)
                assert all(isinstance(r, DependencyError) for r in results)
        finally:
            server.thaw()
        await _recovered(cache)
        assert await cache.get("never") is None
        await cache.aclose()

    with redis_server.running(binary) as server:
        asyncio.run(work(server))


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
def test_everybody_is_frozen(kind: str, tmp_path: Path) -> None:
    """Where neither sentinels nor nodes answer, each operation gives up in the same time, also one that would have
    to look for a master first, and many at once; when they go on, so does the cache."""
    binary = redis_topologies.binary()
    if binary is None:
        pytest.skip("no redis-server here")

    async def work(url: str, processes: list[subprocess.Popen[bytes]]) -> None:
        warm, cold = (RedisCache(Settings(url=url, timeout_s=TIMEOUT_S)) for _ in range(2))
        await _recovered(warm)
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        try:
            for cache in (warm, cold):
                for operation in OPERATIONS:
                    assert isinstance(await fails_in_time(cache, operation), DependencyTimeout)
            async with asyncio.timeout(20):
                results = await asyncio.gather(*(warm.get(f"k{n}") for n in range(100)), return_exceptions=True)
            assert all(isinstance(r, DependencyError) for r in results)
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)
        for cache in (warm, cold):
            await _recovered(cache)
            await cache.aclose()

    if kind == "sentinel":
        with redis_topologies.running_sentinels(binary, tmp_path) as watched:
            asyncio.run(work(watched.url, [*watched.sentinels, *(s.process for s in watched.servers)]))
    else:
        with redis_topologies.running_cluster(binary) as cluster:
            asyncio.run(work(cluster.url, [n.process for n in cluster.nodes]))


def test_a_slow_server_is_waited_for_once_an_operation() -> None:
    """Several round trips share one deadline."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            await asyncio.sleep(0.1)
            writer.write(b"-ERR unknown command\r\n")
            await writer.drain()

    async def work() -> None:
        async with listening(slow) as url:
            cache = RedisCache(Settings(url=url, timeout_s=TIMEOUT_S))
            await fails_in_time(cache, "nearest")
            await cache.aclose()

    asyncio.run(work())


def test_a_busy_event_loop_is_no_frozen_server() -> None:
    """Data that came while the loop was held up counts, although the deadline has passed meanwhile."""

    async def work() -> None:
        async def answer() -> str:
            reader, writer = await asyncio.open_connection(host, port)
            try:
                async with answered_within(TIMEOUT_S):
                    writer.write(b"x")
                    asyncio.get_running_loop().call_later(0.02, time.sleep, 2 * TIMEOUT_S)
                    return (await reader.readexactly(4)).decode()
            finally:
                writer.close()
                await writer.wait_closed()

        async with listening(saying(b"late")) as url:
            host, port = url.removeprefix("redis://").split(":")
            assert await answer() == "late"
        with pytest.raises(TimeoutError):
            async with answered_within(0.01):
                await asyncio.sleep(60)

    asyncio.run(work())


def test_nothing_is_left_open_by_a_loop_that_ends() -> None:
    """Each event loop closes what it opened, and the cache goes on in the next."""
    binary = redis_server.plain_binary()
    if binary is None:
        pytest.skip("no redis-server here")
    with redis_server.running(binary) as server:
        cache = RedisCache(Settings(url=server.url, timeout_s=5.0))
        for _ in range(3):
            run(cache, cache.ping)
