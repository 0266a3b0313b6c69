"""The real ``rag serve`` and everything that it calls, each a process, each behind a proxy that can be told to fail."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import httpx
import pytest

from rag_platform.ingestion.workbench import Workbench
from rag_platform_tests import harness
from rag_platform_tests.backends import redis_server
from rag_platform_tests.faults import corpus, minilm_server
from rag_platform_tests.faults.processes import free_port, listening, printing_its_port
from rag_platform_tests.faults.unruly_proxy import UnrulyProxy, proxied

Dependency = Literal["vector_store", "embedder", "reranker", "llm", "redis"]
DEPENDENCIES: tuple[Dependency, ...] = ("vector_store", "embedder", "reranker", "llm", "redis")
GRACE_S = 0.25
"""P7: no response later than its deadline and this."""
RECOVERY_S = 30.0
BUCKET = "faults"


class Freezable(Protocol):
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Upstream:
    """One dependency: its process, and the proxy through which the platform reaches it."""

    process: Freezable
    proxy: UnrulyProxy


@dataclass(frozen=True, slots=True)
class Reply:
    """A response, how long it took, and how much of that this machine did not let us run."""

    status: int
    headers: Mapping[str, str]
    body: Any
    seconds: float
    stalled_s: float

    @property
    def degraded(self) -> dict[str, str]:
        """Reason by stage."""
        return {d["stage"]: d["reason"] for d in self.body["degraded"]}

    @property
    def is_full(self) -> bool:
        return self.status == 200 and self.body["mode"] == "full" and not self.body["degraded"]


class Api:
    """A client of one running server."""

    def __init__(self, url: str) -> None:
        self.url = url
        limits = httpx.Limits(max_connections=None)
        self._client = httpx.Client(base_url=url, timeout=60, trust_env=False, limits=limits)

    def authorize(self, key: str) -> None:
        """Ask with an API key from now on."""
        self._client.headers["Authorization"] = f"Bearer {key}"

    def ask(self, question: str, *, deadline_s: float, path: str = "/v1/query", **body: Any) -> Reply:
        """Ask, and hold the server to P7."""
        response, seconds, stalled_s = self._post(path, question, deadline_s, body)
        return Reply(response.status_code, response.headers, response.json(), seconds, stalled_s)

    def stream(self, question: str, *, deadline_s: float, **body: Any) -> list[tuple[str, Any]]:
        """Ask for a stream, and hold its end to P7; returns name and data of each event."""
        response, _, _ = self._post("/v1/query", question, deadline_s, body | {"stream": True})
        return [
            (found["name"], json.loads(found["data"]))
            for found in re.finditer(r"^event: (?P<name>\w+)\ndata: (?P<data>.*)$", response.text, re.M)
        ]

    def _post(
        self, path: str, question: str, deadline_s: float, body: Mapping[str, Any]
    ) -> tuple[httpx.Response, float, float]:
        sent = {**body, "question": question, "deadline_ms": round(1000 * deadline_s)}
        with _Stalls() as stalls:
            started = time.monotonic()
            response = self._client.post(path, json=sent)
            seconds = time.monotonic() - started
        late = f"late: {seconds:.2f} s of {deadline_s}, {stalls.seconds:.2f} s stalled"
        assert seconds <= deadline_s + GRACE_S + stalls.seconds, late
        return response, seconds, stalls.seconds

    def get(self, path: str) -> httpx.Response:
        return self._client.get(path)

    def until_full(self, question: str, *, deadline_s: float, **body: Any) -> list[Reply]:
        """Ask again until the answer is full again; returns all replies."""
        replies = []
        give_up = time.monotonic() + RECOVERY_S
        while True:
            replies.append(self.ask(question, deadline_s=deadline_s, **body))
            if replies[-1].is_full:
                return replies
            assert time.monotonic() < give_up, f"not full again: {replies[-1]}"
            time.sleep(0.1)

    def close(self) -> None:
        self._client.close()


class _Stalls:
    """Adds up how much later than asked a thread of this process woke up: what a starved machine costs everybody."""

    _STEP_S = 0.02

    def __init__(self) -> None:
        self.seconds = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while True:
            before = time.monotonic()
            over = self._over.wait(self._STEP_S)
            self.seconds += max(0.0, time.monotonic() - before - 1.5 * self._STEP_S)
            if over:
                return

    def __enter__(self) -> _Stalls:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@dataclass(frozen=True, slots=True)
class Platform:
    """Dependencies that run, a RAG_HOME whose corpus is indexed with them, and the environment that names both."""

    home: Path
    upstreams: Mapping[Dependency, Upstream]
    environment: Mapping[str, str]

    @contextlib.contextmanager
    def serving(self, **environment: str) -> Iterator[Api]:
        """Run ``rag serve``, with changes to its environment."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAG_", "OPENAI_", "AWS_", "DAGSTER_"))}
        log = self.home.parent / f"serve-{time.monotonic_ns()}.log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "rag_platform.cli", "serve", "--port", "0"],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**kept, **self.environment, **environment, "PYTHONUNBUFFERED": "1", "COLUMNS": "300"},
            )
        assert process.stdout is not None
        try:
            found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
            assert found, f"rag serve did not start: {log.read_text()[-2000:]}"
            api = Api(found.group())
            try:
                yield api
            finally:
                api.close()
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()
                process.wait(10)
                process.stdout.close()

    @contextlib.contextmanager
    def broken(self, dependency: Dependency, fault: str, seconds: float = 0.0) -> Iterator[None]:
        """Let a dependency misbehave in one of the proxy's modes, or be ``stopped`` (SIGSTOP), for the block."""
        upstream = self.upstreams[dependency]
        undo: Callable[[], None]
        if fault == "stopped":
            upstream.process.freeze()
            undo = upstream.process.thaw
        else:
            upstream.proxy.become(fault, seconds)  # type: ignore[arg-type]
            undo = lambda: upstream.proxy.become("ok")  # noqa: E731
        try:
            yield
        finally:
            undo()


@contextlib.contextmanager
def running_platform(root: Path) -> Iterator[Platform]:
    """Start every dependency and index the corpus; nothing is left running afterwards."""
    binary = redis_server.vector_binary() or redis_server.plain_binary()
    if binary is None:
        pytest.skip("no Redis server is installed")
    s3_port = free_port()
    with contextlib.ExitStack() as stack:
        moto = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(s3_port)]
        servers: dict[Dependency, Any] = {
            "vector_store": stack.enter_context(listening(moto, s3_port)),
            "embedder": stack.enter_context(printing_its_port("rag_platform_tests.faults.minilm_server")),
            "reranker": stack.enter_context(printing_its_port("rag_platform_tests.backends.misbehaving_reranker")),
            "llm": stack.enter_context(printing_its_port("rag_platform_tests.faults.quoting_llm")),
            "redis": stack.enter_context(redis_server.running(binary)),
        }
        upstreams = {n: Upstream(s, stack.enter_context(proxied(s.port))) for n, s in servers.items()}
        ports = {name: upstream.proxy.port for name, upstream in upstreams.items()}
        platform = Platform(root / "home", upstreams, _environment(root / "home", ports))
        make_bucket(platform.environment)
        index_corpus(platform.environment)
        yield platform


def _environment(home: Path, ports: Mapping[Dependency, int]) -> dict[str, str]:
    address = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    return {
        "RAG_HOME": str(home),
        "RAG_INDEX_URL": f"s3://{BUCKET}/index",
        "AWS_ENDPOINT_URL": address["vector_store"],
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "RAG_EMBEDDER": "openai_compatible",
        "RAG_OPENAI_BASE_URL": f"{address['embedder']}/v1",
        "RAG_OPENAI_MODEL": minilm_server.MODEL,
        "RAG_OPENAI_DIMENSIONS": str(minilm_server.DIMENSIONS),
        "RAG_RERANKER": "cohere_compatible",
        "RAG_RERANK_BASE_URL": address["reranker"],
        "RAG_LLM": "openai_compatible",
        "RAG_LLM_BASE_URL": f"{address['llm']}/v1",
        "RAG_LLM_MODEL": "test-model",
        "RAG_CACHE": "redis",
        "RAG_REDIS_URL": f"redis://127.0.0.1:{ports['redis']}/0",
        "RAG_HTTP_MAX_IN_FLIGHT": "256",
    }


def make_bucket(environment: Mapping[str, str]) -> None:
    """Create the bucket of the vector store."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)
    client.close()


def index_corpus(environment: Mapping[str, str]) -> None:
    """Index the corpus as ``rag ingest`` does, the keyword replica included."""
    home = Path(environment["RAG_HOME"])
    tree = harness.Tree(home.parent / "documents")
    tree.become(corpus.documents())
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            if name.startswith("AWS_"):  # LanceDB reads these itself
                patch.setenv(name, value)
        rest = {k: v for k, v in environment.items() if k != "RAG_HOME"}
        with Workbench(harness.settings(home, **rest)) as bench:
            harness.ingest(bench, [tree.spec()], "corpus")
