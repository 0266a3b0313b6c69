"""Real Redis servers behind TLS, behind sentinels, and as a cluster."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from rag_platform_tests.backends import redis_server
from rag_platform_tests.backends.redis_server import RedisServer, free_port, running

READY_S = 60.0
DOWN_AFTER_MS = 300
"""Silence after which sentinels and cluster nodes call a server down."""
MASTER = "mymaster"


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition of servers that are just starting or failing over."""
    deadline = time.monotonic() + READY_S
    while True:
        with contextlib.suppress(redis.RedisError):
            if condition():
                return
        assert time.monotonic() < deadline, what
        time.sleep(0.03)


@dataclass(frozen=True)
class Certificates:
    """PEM files of an authority made for one test, and of a certificate of 127.0.0.1 and localhost signed by it."""

    authority: Path
    certificate: Path
    key: Path


def certificates(folder: Path) -> Certificates:
    """Make an authority and one certificate, for servers and clients."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def builder(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("test authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
        )

    own, authority = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    root = (
        builder("test authority", authority)
        .add_extension(x509.BasicConstraints(True, None), True)
        .add_extension(usage, True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), False)
        .sign(authority, hashes.SHA256())
    )
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        builder("redis", own)
        .add_extension(names, False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False)
        .sign(authority, hashes.SHA256())
    )
    made = Certificates(folder / "ca.pem", folder / "redis.pem", folder / "redis.key")
    made.authority.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    made.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


@dataclass
class TlsServer:
    """A server that also listens without TLS, for the test itself."""

    plain: RedisServer
    port: int
    files: Certificates

    @property
    def url(self) -> str:
        """It wants a certificate of its clients."""
        f = self.files
        options = f"ssl_ca_certs={f.authority}&ssl_certfile={f.certificate}&ssl_keyfile={f.key}"
        return f"rediss://127.0.0.1:{self.port}/0?{options}"


@contextlib.contextmanager
def running_tls(binary: Path, folder: Path) -> Iterator[TlsServer]:
    """Run a server with TLS."""
    files, port = certificates(folder), free_port()
    options = ("--tls-port", str(port), "--tls-cert-file", str(files.certificate), "--tls-key-file", str(files.key))
    with running(binary, *options, "--tls-ca-cert-file", str(files.authority)) as server:
        yield TlsServer(server, port, files)


@dataclass
class Watched:
    """A master and a replica, watched by three sentinels."""

    servers: list[RedisServer]
    sentinels: list[subprocess.Popen[bytes]]
    sentinel_ports: list[int]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{p}" for p in self.sentinel_ports)
        return f"redis+sentinel://cache:cachepass@{hosts}/{MASTER}/0?sentinel_password=watchpass"

    def client(self, server: RedisServer) -> redis.Redis:
        return redis.Redis(port=server.port, password="rootpass", socket_timeout=5)

    def master(self) -> RedisServer:
        """Return the server that is the master now, as all sentinels agree."""
        found: list[RedisServer] = []

        def agreed() -> bool:
            ports = set()
            for port in self.sentinel_ports:
                with redis.Redis(port=port, password="watchpass", socket_timeout=5) as c:
                    named = c.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
                    ports.add(int(named[1]))
            if len(ports) != 1:
                return False
            [server] = [s for s in self.servers if s.port in ports]
            with self.client(server) as c:
                if c.execute_command("ROLE")[0] != b"master":
                    return False
            found[:] = [server]
            return True

        until(agreed, "the sentinels do not agree")
        return found[0]

    def flush(self) -> None:
        with self.client(self.master()) as c:
            c.flushall()

    def in_step(self, master: RedisServer) -> None:
        """Wait until a replica follows ``master``."""

        def followed() -> bool:
            with self.client(master) as c:
                seen = c.info("replication")
            return any(v.get("state") == "online" for v in seen.values() if isinstance(v, dict))

        until(followed, "no replica is in step")


@contextlib.contextmanager
def running_sentinels(binary: Path, folder: Path) -> Iterator[Watched]:
    """Run a master, a replica and three sentinels; all want passwords."""
    with contextlib.ExitStack() as stack:
        shared = ("--masterauth", "rootpass", "--repl-diskless-sync-delay", "0")
        shared += ("--user", "cache", "on", ">cachepass", "~rag:*", "+@all", "-@admin")
        master = stack.enter_context(running(binary, *shared, password="rootpass"))
        follow = ("--replicaof", "127.0.0.1", str(master.port))
        replica = stack.enter_context(running(binary, *shared, *follow, password="rootpass"))
        ports = [free_port() for _ in range(3)]
        watched = Watched([master, replica], [], ports)
        watched.in_step(master)  # sentinels look for replicas at once and then every ten seconds
        for number, port in enumerate(ports):
            own = folder / f"sentinel{number}"
            own.mkdir()
            conf = own / "sentinel.conf"
            conf.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {own}\nrequirepass watchpass\nsentinel sentinel-pass watchpass\n"
                f"sentinel monitor {MASTER} 127.0.0.1 {master.port} 2\nsentinel auth-pass {MASTER} rootpass\n"
                f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}\n"
                f"sentinel failover-timeout {MASTER} 3000\nsentinel parallel-syncs {MASTER} 1\n"
            )
            command = [str(binary), str(conf), "--sentinel"]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            watched.sentinels.append(process)
            stack.callback(_end, process)

        def complete() -> bool:
            for port in ports:
                with redis.Redis(port=port, password="watchpass", socket_timeout=5) as c:
                    state = c.sentinel_master(MASTER)
                    if state["num-other-sentinels"] < 2 or state["num-slaves"] < 1 or state["flags"] != "master":
                        return False
            return True

        until(complete, "the sentinels did not find each other")
        yield watched


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait(30)


@dataclass
class Cluster:
    """Three masters, and a replica of the first."""

    nodes: list[RedisServer]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{n.port}" for n in self.nodes[1:3])
        return f"redis+cluster://{hosts}"

    def masters(self) -> list[RedisServer]:
        return [n for n in self.nodes if n.process.poll() is None and self.role(n) == "master"]

    def role(self, node: RedisServer) -> str:
        with redis.Redis(port=node.port, socket_timeout=5) as c:
            return str(c.execute_command("ROLE")[0].decode())

    def node_id(self, node: RedisServer) -> str:
        with redis.Redis(port=node.port) as c:
            return str(c.execute_command("CLUSTER", "MYID").decode())

    def owner(self, slot: int) -> RedisServer:
        """Return the node that has a slot, as the second node sees it."""
        with redis.Redis(port=self.nodes[1].port) as c:
            for start, end, master, *_ in c.cluster("SLOTS"):
                if start <= slot <= end:
                    [found] = [n for n in self.nodes if n.port == master[1]]
                    return found
        raise AssertionError(f"nobody has slot {slot}")

    def settled(self, nodes: Sequence[RedisServer] | None = None) -> None:
        """Wait until every living node says that all slots are served, and the replica follows its master."""
        alive = [n for n in nodes or self.nodes if n.process.poll() is None]

        def well() -> bool:
            for node in alive:
                with redis.Redis(port=node.port, socket_timeout=5) as c:
                    if c.cluster("INFO")["cluster_state"] != "ok":
                        return False
                    role = c.execute_command("ROLE")
                    if role[0] == b"slave" and role[3] != b"connected":
                        return False
            return True

        until(well, "the cluster does not settle")

    def flush(self) -> None:
        for node in self.masters():
            with redis.Redis(port=node.port) as c:
                c.flushall()


@contextlib.contextmanager
def running_cluster(binary: Path) -> Iterator[Cluster]:
    """Run a cluster, put together as ``redis-cli --cluster create`` does it."""
    with contextlib.ExitStack() as stack:
        nodes, buses = [], []
        for _ in range(4):
            buses.append(free_port())
            options = (
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                str(DOWN_AFTER_MS),
                "--cluster-port",
                str(buses[-1]),
            )
            nodes.append(stack.enter_context(running(binary, *options, "--repl-diskless-sync-delay", "0")))
        cluster = Cluster(nodes)
        ranges = ((0, 5461), (5462, 10922), (10923, 16383))
        for number, (node, (start, end)) in enumerate(zip(nodes, ranges, strict=False)):
            with redis.Redis(port=node.port) as c:
                c.execute_command("CLUSTER", "ADDSLOTSRANGE", start, end)
                c.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        with redis.Redis(port=nodes[0].port) as c:
            for node, bus in zip(nodes[1:], buses[1:], strict=True):
                c.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        master = cluster.node_id(nodes[0])
        with redis.Redis(port=nodes[3].port) as c:
            until(lambda: c.execute_command("CLUSTER", "REPLICATE", master) is not None, "no replica")
        cluster.settled()
        yield cluster


def binary() -> Path | None:
    """The plain server, or else the other one."""
    return redis_server.plain_binary() or redis_server.vector_binary()
