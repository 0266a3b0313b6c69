"""A real Weaviate server on loopback: given by RAG_TEST_WEAVIATE_URL, or a binary that is here or built once with Go.

python -m rag_platform_tests.backends.weaviate_server      # builds it where it is missing and can be built
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

VERSION = "v1.38.11"
PACKAGE = f"github.com/weaviate/weaviate/cmd/weaviate-server@{VERSION}"
CURE = (
    f"no Weaviate server: set RAG_TEST_WEAVIATE_URL (and RAG_TEST_WEAVIATE_GRPC), put weaviate-server on PATH, or "
    f"install Go 1.26 and run `CGO_ENABLED=0 go install -tags netgo {PACKAGE}`"
)
START_TIMEOUT_S = 60.0
BUILD_TIMEOUT_S = 1800.0
_STARTS = 5


def _cached() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "rag-platform" / f"weaviate-{VERSION}" / "weaviate-server"


def binary(*, build: bool = False) -> Path | None:
    """Return the server's program; None: it is not here, and cannot be built or shall not be (``build``)."""
    on_path = shutil.which("weaviate-server")
    if on_path is not None:
        return Path(on_path)
    cached = _cached()
    if not cached.exists() and build and _go_is_new_enough():
        cached.parent.mkdir(parents=True, exist_ok=True)
        with (cached.parent / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one build, however many ask
            if not cached.exists():
                print("building a Weaviate server with Go for the tests: some minutes, once …", flush=True)
                environment = os.environ | {"GOBIN": str(cached.parent), "CGO_ENABLED": "0"}
                with contextlib.suppress(subprocess.TimeoutExpired):
                    build_it = ["go", "install", "-tags", "netgo", PACKAGE]
                    subprocess.run(build_it, env=environment, check=False, timeout=BUILD_TIMEOUT_S)
    return cached if cached.exists() else None


def _go_is_new_enough() -> bool:
    go = shutil.which("go")
    if go is None:
        return False
    version = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, timeout=60, check=False).stdout
    found = re.match(r"go(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) >= (1, 26)


@dataclass
class WeaviateServer:
    """A running server, and the folder that keeps its data when it is killed."""

    program: Path
    folder: Path
    ports: tuple[int, ...]
    process: subprocess.Popen[bytes]

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def grpc_port(self) -> int:
        return self.ports[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def freeze(self) -> None:
        """It accepts connections (the kernel does) and says nothing."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """As kill -9 does it: its ports are closed afterwards, its data stay."""
        self.process.kill()
        self.process.wait(30)

    def restart(self) -> None:
        """Start it again on the same data and ports."""
        self.process = _process(self.program, self.folder, self.ports)
        _wait_until_ready(self.process, self.url)


@contextlib.contextmanager
def running(program: Path) -> Iterator[WeaviateServer]:
    """Run a server on free ports with a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="rag-weaviate-"))
    server: WeaviateServer | None = None
    try:
        for last in [False] * (_STARTS - 1) + [True]:  # a port that was free a moment ago may be taken by another
            ports = _free_ports(7)
            server = WeaviateServer(program, folder, ports, _process(program, folder, ports))
            try:
                _wait_until_ready(server.process, server.url)
                break
            except RuntimeError:
                server.kill()
                if last:
                    raise
        assert server is not None
        yield server
    finally:
        if server is not None:
            with contextlib.suppress(OSError):
                server.thaw()
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _process(program: Path, folder: Path, ports: tuple[int, ...]) -> subprocess.Popen[bytes]:
    port, grpc_port, gossip, data, raft, internal, profiling = ports
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(folder),
        "PERSISTENCE_DATA_PATH": str(folder / "data"),
        "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "true",
        "DEFAULT_VECTORIZER_MODULE": "none",
        "ENABLE_MODULES": "",
        "DISABLE_TELEMETRY": "true",
        "AUTOSCHEMA_ENABLED": "false",
        "CLUSTER_HOSTNAME": "node1",
        "CLUSTER_BIND_ADDR": "127.0.0.1",
        "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
        "CLUSTER_GOSSIP_BIND_PORT": str(gossip),
        "CLUSTER_DATA_BIND_PORT": str(data),
        "RAFT_PORT": str(raft),
        "RAFT_INTERNAL_RPC_PORT": str(internal),
        "RAFT_BOOTSTRAP_EXPECT": "1",
        "RAFT_TIMEOUTS_MULTIPLIER": "1",  # it waits for other nodes for five times as long otherwise: 9 s a start
        "GRPC_PORT": str(grpc_port),
        "GO_PROFILING_PORT": str(profiling),
        "GOMEMLIMIT": "512MiB",
        "LOG_LEVEL": "error",
    }
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [str(program), "--host", "127.0.0.1", "--port", str(port), "--scheme", "http"],
            env=environment,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )


def _wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/v1/.well-known/ready", timeout=1) as reply:
            if reply.status == 200:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the Weaviate server did not start")
        time.sleep(0.05)


def _free_ports(count: int) -> tuple[int, ...]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return tuple(int(s.getsockname()[1]) for s in sockets)


if __name__ == "__main__":
    found = binary(build=True)
    print(CURE if found is None else found)
    sys.exit(found is None)
