"""``rag up``: the Dagster UI, its daemon (sensor and schedules) and the code server, on loopback."""

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
from rag_platform.commands.dagster_run import prepare_dagster_home

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0


@console.handles_errors
def up(
    port: Annotated[int, typer.Option(help="Port of the Dagster UI; 0 chooses a free one.")] = 3000,
    host: Annotated[
        str, typer.Option(help="Address to listen on. The Dagster UI has no login: keep it on loopback.")
    ] = "127.0.0.1",
) -> None:
    """Start the Dagster UI with sensor and schedules; stop with Ctrl-C."""
    settings = console.load_settings()
    home = prepare_dagster_home(settings)
    port = port or _free_port(host)
    if _in_use(host, port):
        console.fail(f"port {port} is in use: choose another with --port, or --port 0", console.EXIT_USAGE)
    workspace = console.project_root() / "workspace.yaml"
    code = ["--workspace", str(workspace)] if workspace.exists() else ["--module-name", "rag_platform.definitions"]
    options = ["--host", host, "--port", str(port), "--live-data-poll-rate", "2000", "--log-level", "warning"]
    command = [sys.executable, "-m", "dagster", "dev", *code, *options]
    environment = os.environ | {"DAGSTER_HOME": str(home), "PYTHONWARNINGS": "ignore"}
    # A session of its own: Ctrl-C reaches us alone, and the whole group can be stopped by its id.
    process = subprocess.Popen(command, cwd=home, env=environment, start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    try:
        _wait_until_up(process, f"http://{host}:{port}/server_info")
        console.out.print(
            f"Dagster UI: [bold]http://{host}:{port}[/bold]  (RAG_HOME {settings.root}); stop with Ctrl-C"
        )
        status = process.wait()
        if status:
            console.fail(f"Dagster ended with exit code {status}", console.EXIT_DEPENDENCY)
    except KeyboardInterrupt:
        console.out.print("stopping …")
    finally:
        _stop(process)


def _wait_until_up(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            console.fail("Dagster did not start; its messages are above", console.EXIT_DEPENDENCY)
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    console.fail(f"Dagster did not answer within {START_TIMEOUT_S:.0f} s", console.EXIT_DEPENDENCY)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop Dagster: politely first, so that it ends its own children; then the whole group."""
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


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
