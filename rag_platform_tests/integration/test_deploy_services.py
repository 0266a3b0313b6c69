"""The services of deploy/compose.yaml, started here with exactly the command and environment that the file gives them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag_platform_tests.backends import redis_server
from rag_platform_tests.integration import deploy_files
from rag_platform_tests.integration.deploy_files import DEPLOY
from rag_platform_tests.integration.deploy_postgres import Databases, databases  # noqa: F401 - a fixture

WEAVIATE = "weaviate-v1.38.11"
START_S = 60.0
SECRETS = {name: f"{name.lower().replace('_', '')}0" for name in deploy_files.required_variables()}


def _service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = deploy_files.compose(SECRETS)["services"][name]
    return found


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextlib.contextmanager
def _running(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("wb") as log:
        # A session of its own: a shell's child would survive the shell.
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def test_redis_wants_the_password_and_shows_it_to_nobody(tmp_path: Path) -> None:
    """Redis answers only with the password, is bounded, writes nothing, and its process list holds no secret."""
    import redis

    binary = redis_server.plain_binary() or redis_server.vector_binary()
    if binary is None:
        pytest.skip("no Redis here: apt-get install redis-server")
    service = _service("redis")
    port = _free_port()
    [shell] = service["command"]
    assert "port 6379" in shell
    shell = shell.replace("port 6379", f"port {port}\\nbind 127.0.0.1")
    environment = {"PATH": f"{binary.parent}:{os.environ['PATH']}", **service["environment"]}
    with _running([*service["entrypoint"], shell], environment, tmp_path) as process:
        client = redis.Redis(port=port, password=SECRETS["REDIS_PASSWORD"], socket_timeout=5)
        _until(lambda: bool(client.ping()), redis.ConnectionError)
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        assert client.config_get("maxmemory")["maxmemory"] == str(512 * 1024**2)
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "allkeys-lru"
        assert client.config_get("save")["save"] == ""
        assert SECRETS["REDIS_PASSWORD"] not in Path(f"/proc/{process.pid}/cmdline").read_text()
        client.close()


def test_weaviate_lets_nobody_in_without_the_key() -> None:
    """Weaviate is ready without a key, and answers everything else only with it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rag-platform" / WEAVIATE
    binary = shutil.which("weaviate-server", path=f"{cache}:{os.environ['PATH']}")
    if binary is None:
        pytest.skip("no Weaviate here: docs/backends/weaviate.md says how to build it")
    service = _service("weaviate")
    assert service["image"].endswith(WEAVIATE.removeprefix("weaviate-v"))
    for attempt in range(5):  # one of its ports, free a moment ago, may be taken by another test
        # Its paths must be short: it puts sockets into them.
        with tempfile.TemporaryDirectory(prefix="wv-") as name:
            folder, port = Path(name), _free_port()
            environment = {"PATH": os.environ["PATH"], **service["environment"], **_weaviate_ports()}
            environment["PERSISTENCE_DATA_PATH"] = str(folder / "d")
            command = [binary, "--host", "127.0.0.1", "--port", str(port), *service["command"][4:]]
            base = f"http://127.0.0.1:{port}/v1"
            with _running(command, environment, folder) as process:
                try:
                    _until(
                        lambda base=base: _status(f"{base}/.well-known/ready") == 200, urllib.error.URLError, process
                    )
                except _Ended:
                    assert attempt < 4, (folder / "log").read_text()[-2000:]
                    continue
                key = SECRETS["WEAVIATE_API_KEY"]
                assert _status(f"{base}/schema") == 401
                assert _status(f"{base}/schema", "wrong") == 401
                assert _status(f"{base}/schema", key) == 200
                assert "rag-platform" in _body(f"{base}/users/own-info", key)
                assert _status(f"http://127.0.0.1:{environment['PROMETHEUS_MONITORING_PORT']}/metrics") == 200
                return


def _weaviate_ports() -> dict[str, str]:
    """Free ports of a node. It derives one of each of these pairs from the other: they must be neighbours."""
    gossip, raft = _two_free_ports(), _two_free_ports()
    ports = {
        "CLUSTER_GOSSIP_BIND_PORT": gossip,
        "CLUSTER_DATA_BIND_PORT": gossip + 1,
        "RAFT_PORT": raft,
        "RAFT_INTERNAL_RPC_PORT": raft + 1,
        "GRPC_PORT": _free_port(),
        "PROMETHEUS_MONITORING_PORT": _free_port(),
        "GO_PROFILING_PORT": _free_port(),
    }
    return {name: str(port) for name, port in ports.items()} | {"CLUSTER_ADVERTISE_ADDR": "127.0.0.1"}


def _two_free_ports() -> int:
    """Return a free port whose next one is free as well."""
    while True:
        port = _free_port()
        with socket.socket() as s:
            if port < 65535 and s.connect_ex(("127.0.0.1", port + 1)):
                return port


def test_each_database_belongs_to_its_own_account(databases: Databases) -> None:  # noqa: F811
    """The ledger works as its account, which may not enter Dagster's database."""
    import sqlalchemy as sa

    from rag_platform.ledger import open_ledger
    from rag_platform.settings import Settings

    ledger = open_ledger(Settings.from_env({"RAG_LEDGER_URL": databases.url("ledger")}))
    assert ledger.keys.exist() is False
    ledger.close()
    engine = sa.create_engine(sa.make_url(databases.url("ledger")).set(database="dagster"))
    with pytest.raises(sa.exc.OperationalError, match="permission denied"), engine.connect():
        pass
    engine.dispose()


def test_dagster_accepts_its_instance_file(
    databases: Databases,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dagster loads deploy/dagster.yaml, makes its tables in PostgreSQL as `dagster instance migrate` does, queues
    runs within the limits of the file, and keeps no password in what it passes on to runs."""
    import dagster as dg
    from dagster._core.run_coordinator import QueuedRunCoordinator

    monkeypatch.setenv("RAG_DAGSTER_POSTGRES_URL", databases.url("dagster"))
    (tmp_path / "dagster.yaml").write_bytes((DEPLOY / "dagster.yaml").read_bytes())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        instance.upgrade()
        assert instance.get_runs_count() == 0
        assert isinstance(instance.run_coordinator, QueuedRunCoordinator)
        runs = instance.get_concurrency_config().run_queue_config
        assert runs is not None and runs.max_concurrent_runs == 2
        assert [t["key"] for t in runs.tag_concurrency_limits] == ["dagster/asset_partition_range_start"]
        assert instance.run_monitoring_enabled and instance.telemetry_enabled is False
        assert "PostgresRunStorage" in type(instance.run_storage).__name__
        assert "da9ster" not in dg.serialize_value(instance.get_ref())


def test_dagster_accepts_the_workspace_file() -> None:
    """workspace.yaml names one code server, by the name and the port that compose.yaml gives it."""
    from dagster._core.workspace.load import location_origins_from_yaml_paths

    origins = location_origins_from_yaml_paths([str(DEPLOY / "workspace.yaml")])
    [origin] = origins
    assert (origin.host, origin.port) == ("code-server", 4000)  # type: ignore[attr-defined]
    assert "4000" in _service("code-server")["command"]


def test_the_source_file_is_one() -> None:
    """deploy/sources.yaml is read by the platform and names the folder that compose.yaml mounts."""
    from rag_platform.ingestion import source_catalog

    [spec] = source_catalog.load(DEPLOY / "sources.yaml")
    mounts = {m.split(":")[1] for m in _service("code-server")["volumes"]}
    assert spec.uri in mounts
    assert yaml.safe_load((DEPLOY / "sources.yaml").read_text("utf-8"))["sources"]


class _Ended(Exception):
    """The process is gone."""


def _until(condition: Any, retried: type[Exception], process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            if condition():
                return
        except retried:
            pass
        if process is not None and process.poll() is not None:
            raise _Ended
        assert time.monotonic() < deadline, "it did not start"
        time.sleep(0.05)


def _status(url: str, key: str | None = None) -> int:
    try:
        with _open(url, key) as response:
            return int(response.status)
    except urllib.error.HTTPError as e:
        with e:
            return int(e.code)


def _body(url: str, key: str) -> str:
    with _open(url, key) as response:
        return str(response.read().decode())


def _open(url: str, key: str | None) -> Any:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5)
