"""Kill -9 of Redis, which holds the cache, at random moments of query load and of an ingestion."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_platform_tests.backends import redis_server
from rag_platform_tests.backends.redis_server import RedisServer
from rag_platform_tests.faults.query_load import Library

pytestmark = [pytest.mark.slow]

SEEDS = range(20)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """One that comes back with what it knew, the worst that a cache can do."""
    binary = redis_server.vector_binary() or redis_server.plain_binary()
    if binary is None:
        pytest.skip("no Redis server is installed")
    with redis_server.running(binary, "--appendonly", "yes", "--appendfsync", "always") as running:
        yield running


def test_killed_under_query_load_answers_go_on(server: RedisServer, tmp_path: Path) -> None:
    """Twenty times Redis dies, away for a moment or for longer, while two tenants ask without pause, and half-way
    through an ingestion changes every document: every answer is full, right for the documents of its moment, their
    own, and in time (P2, P7, P10), whatever the cache remembers of older ones (P11); nothing but the cache is ever
    missing, and the same passages are found afterwards (P15)."""
    library = Library(tmp_path, {"RAG_CACHE": "redis", "RAG_REDIS_URL": server.url})
    library.publish(1)
    with library.serving() as load:
        before = load.recall()
        with load.asking():
            for seed in SEEDS:
                rng = random.Random(seed)
                if seed == len(SEEDS) // 2:
                    load.editions = frozenset({1, 2})
                    server.kill()
                    library.publish(2)
                    load.editions = frozenset({2})
                else:
                    time.sleep(rng.random() * 0.8)
                    server.kill()
                if seed % 2:
                    load.more(1)
                server.start()
                load.more(1)
            load.until_cached()
        assert load.recall() == before
    assert load.degraded.keys() <= {"cache"}, load.degraded
    assert load.caches["exact"] and load.caches["miss"], load.caches
