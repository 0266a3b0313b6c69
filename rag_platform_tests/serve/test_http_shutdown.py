"""Stopping: a real process that gets real signals while questions are in flight."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from rag_platform.errors import ConfigurationError
from rag_platform.settings import Settings
from rag_platform_tests import harness
from rag_platform_tests.serve.api_server import ApiServer, eventually
from serve.server import make_server, run

ROOT = Path(__file__).parents[2]
Start = Callable[..., tuple["subprocess.Popen[str]", str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a serving process with these variables; returns it and its address."""
    with ExitStack() as stack:

        def begin(**environ: str) -> tuple[subprocess.Popen[str], str]:
            process = subprocess.Popen(
                [sys.executable, "-m", "rag_platform_tests.serve.serve_fake", str(tmp_path / "home")],
                cwd=ROOT,
                env=os.environ | environ,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(_end, process)
            assert process.stdout is not None
            return process, process.stdout.readline().strip()

        yield begin


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_in_flight_is_finished(start: Start, number: int) -> None:
    """After the signal the port is closed, the stream in flight gets its end, everything is closed, exit code 0."""
    process, url = start()
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        body = {"question": "hold", "stream": True, "deadline_ms": 3000}
        with client.stream("POST", "/v1/query", json=body) as response:
            lines = response.iter_lines()
            assert next(lines) == "event: stage"
            process.send_signal(number)
            eventually(lambda: not _connects(url), "the port is closed")
            assert "event: error" in list(lines)  # the deadline, not the shutdown, ended it
    assert process.wait(20) == 0
    assert process.stdout is not None and process.stdout.readline().strip() == "closed"


def test_not_ready_before_the_port_closes(start: Start) -> None:
    """For RAG_HTTP_SHUTDOWN_DELAY_S the server still answers questions, and says that it is not ready (P14)."""
    process, url = start(RAG_HTTP_SHUTDOWN_DELAY_S="2")
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        assert client.get("/health/ready").status_code == 200
        process.send_signal(signal.SIGTERM)
        eventually(lambda: client.get("/health/ready").status_code == 503, "it is not ready")
        assert client.get("/health/ready").json()["status"] == "stopping"
        assert client.get("/health/live").status_code == 200
        assert client.post("/v1/query", json={"question": "q"}).status_code == 200
    assert process.wait(20) == 0


def test_the_grace_has_an_end(start: Start) -> None:
    """Work that takes longer than RAG_HTTP_SHUTDOWN_GRACE_S is cut off."""
    process, url = start(RAG_HTTP_SHUTDOWN_GRACE_S="1")
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        body = {"question": "hold", "stream": True, "deadline_ms": 60_000}
        with client.stream("POST", "/v1/query", json=body) as response:
            lines = response.iter_lines()
            assert next(lines) == "event: stage"
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            with pytest.raises(httpx.RemoteProtocolError):
                list(lines)
    assert process.wait(20) == 0 and time.monotonic() - started < 20


def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    """Who presses Ctrl-C twice does not want to wait."""
    process, url = start()
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        body = {"question": "hold", "stream": True, "deadline_ms": 60_000}
        with client.stream("POST", "/v1/query", json=body) as response:
            assert next(response.iter_lines()) == "event: stage"
            process.send_signal(signal.SIGINT)
            eventually(lambda: not _connects(url), "the port is closed")
            process.send_signal(signal.SIGINT)
            process.wait(20)


def test_idle_connections_do_not_delay_the_end(start: Start) -> None:
    """Connections that are kept alive, or say nothing, are closed."""
    process, url = start()
    with httpx.Client(base_url=url, trust_env=False) as client:
        client.get("/health/live")
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0 and time.monotonic() - started < 15


def test_a_taken_port_is_an_error_with_a_cure(api: ApiServer, settings: Settings, tmp_path: Path) -> None:
    """The message names the port; nothing is left running."""
    with pytest.raises(ConfigurationError, match=str(api.port)):
        run(harness.settings(tmp_path / "other"), "127.0.0.1", api.port, quiet=True)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_it_does_not_listen_beyond_this_machine_unprotected(settings: Settings, host: str) -> None:
    """Without any key, an address that others can reach is refused before the port opens."""
    with pytest.raises(ConfigurationError, match="rag keys create"):
        make_server(settings, host, 0, lambda _: None)


def _connects(url: str) -> bool:
    try:
        httpx.get(f"{url}/health/live", timeout=5, trust_env=False)
    except httpx.TransportError:
        return False
    return True
