"""``rag up``: the Dagster UI, its daemon (sensor and schedules), the code server and the query API, on loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Annotated

import typer

from rag_platform.commands import console
from rag_platform.commands.dagster_home import prepare_dagster_home

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0
API_HOST = "127.0.0.1"


@console.handles_errors
def up(
    port: Annotated[int, typer.Option(help="Port of the Dagster UI; 0 chooses a free one.")] = 3000,
    host: Annotated[
        str, typer.Option(help="Address to listen on. The Dagster UI has no login: keep it on loopback.")
    ] = "127.0.0.1",
    api_port: Annotated[
        int, typer.Option(help="Port of the query API and its playground; 0 chooses a free one.")
    ] = 8000,
) -> None:
    """Start the Dagster UI with sensor and schedules, and the query API beside it; stop with Ctrl-C."""
    settings = console.load_settings()
    home = prepare_dagster_home(settings)
    port = port or free_port(host)
    api_port = api_port or free_port(API_HOST)
    for where, number, option in ((host, port, "--port"), (API_HOST, api_port, "--api-port")):
        if _in_use(where, number):
            console.fail(f"port {number} is in use: choose another with {option}, or {option} 0", console.EXIT_USAGE)
    workspace = console.project_root() / "workspace.yaml"
    code = ["--workspace", str(workspace)] if workspace.exists() else ["--module-name", "rag_platform.definitions"]
    options = ["--host", host, "--port", str(port), "--live-data-poll-rate", "2000", "--log-level", "warning"]
    command = [sys.executable, "-m", "dagster", "dev", *code, *options]
    ui = f"http://{host}:{port}"
    environment = os.environ | {"DAGSTER_HOME": str(home), "PYTHONWARNINGS": "ignore"}
    # A session of its own: Ctrl-C reaches us alone, and the whole group can be stopped by its id.
    dagster = subprocess.Popen(command, cwd=home, env=environment, start_new_session=True)
    api = start_api(api_port, {"RAG_DAGSTER_URL": settings.dagster_url or ui})
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    try:
        wait_until_up("Dagster", dagster, f"{ui}/server_info")
        wait_until_up("the query API", api, f"http://{API_HOST}:{api_port}/health/live")
        console.out.print(
            f"Dagster UI: [bold]{ui}[/bold]  query API and playground: [bold]http://{API_HOST}:{api_port}[/bold]  "
            f"(RAG_HOME {settings.root}); stop with Ctrl-C"
        )
        while True:
            for name, process in (("Dagster", dagster), ("the query API", api)):
                if process.poll() is not None:
                    console.fail(f"{name} ended with exit code {process.returncode}", console.EXIT_DEPENDENCY)
            time.sleep(0.5)
    except KeyboardInterrupt:
        console.out.print("stopping …")
    finally:
        for process in (api, dagster):
            stop(process)


def start_api(port: int, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start the query API on loopback in a process (and a session) of its own."""
    command = [sys.executable, "-m", "rag_platform.cli", "serve", "--host", API_HOST, "--port", str(port), "--quiet"]
    return subprocess.Popen(command, env=os.environ | (environment or {}), start_new_session=True)


def wait_until_up(name: str, process: subprocess.Popen[bytes], url: str) -> None:
    """Return when ``url`` answers; end the command when ``process`` ends or nothing answers in time."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            console.fail(f"{name} did not start; its messages are above", console.EXIT_DEPENDENCY)
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    console.fail(f"{name} did not answer within {START_TIMEOUT_S:.0f} s", console.EXIT_DEPENDENCY)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a process: politely first, so that it ends its own children; then its whole group."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _in_use(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def free_port(host: str) -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
