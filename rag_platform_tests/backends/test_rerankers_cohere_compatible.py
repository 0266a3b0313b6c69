"""The Cohere-compatible reranker against a real, misbehaving server on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_platform import backends
from rag_platform.backends.rerankers.base import Reranker
from rag_platform.errors import (
    ConfigurationError,
    DependencyError,
    DependencyTimeout,
    QuotaExhausted,
    RagError,
    RateLimited,
)
from rag_platform.settings import Settings
from rag_platform_tests.backends import misbehaving_reranker
from rag_platform_tests.backends.misbehaving_reranker import (
    FAULTS,
    NONSENSE_FAULTS,
    SILENT_FAULTS,
    MisbehavingReranker,
    overlap,
)
from rag_platform_tests.contracts.rerankers import (
    CANDIDATES,
    PATIENCE_S,
    QUESTION,
    TEXTS,
    RerankerContract,
    candidate,
    run,
)

SECRET_TEXT = "a private sentence"


@pytest.fixture(scope="module", autouse=True)
def _library_is_loaded() -> None:
    """Its import takes a while, which the first call would spend from its deadline."""
    import httpx  # noqa: F401


@pytest.fixture
def server() -> Iterator[MisbehavingReranker]:
    with MisbehavingReranker().running() as running:
        yield running


def reranker_of(server: MisbehavingReranker | str, **environ: str) -> Reranker:
    base_url = server if isinstance(server, str) else server.base_url
    defaults = {"RAG_RERANK_BASE_URL": base_url, "RAG_RERANK_API_KEY": "co-test-secret"}
    built: Reranker = backends.load("rerankers", "cohere_compatible").build(Settings.from_env({**defaults, **environ}))
    return built


class TestContract(RerankerContract):
    @pytest.fixture
    def reranker(self, server: MisbehavingReranker) -> Iterator[Reranker]:
        yield reranker_of(server)


def test_request_is_what_the_interface_wants(server: MisbehavingReranker) -> None:
    """One request holds model, question, all passages in order below their headings, and asks for all back."""
    reranker = reranker_of(server, RAG_RERANK_PATH="/v1/rerank", RAG_RERANK_MODEL="jina-reranker-v2")
    passages = [candidate("text", heading="Nodes › Drain"), candidate("plain", title="plain.txt")]
    run(reranker, reranker.rerank(QUESTION, passages, timeout_s=PATIENCE_S))
    assert server.bodies == [
        {
            "model": "jina-reranker-v2",
            "query": QUESTION,
            "documents": ["Nodes › Drain\n\ntext", "plain"],
            "top_n": 2,
        }
    ]
    assert server.paths == ["/v1/rerank"] and server.headers[0]["authorization"] == "Bearer co-test-secret"


def test_text_embeddings_inference(server: MisbehavingReranker) -> None:
    """TEI's own shape of request and answer works, without a key too."""
    reranker = reranker_of(server, RAG_RERANK_PATH="/rerank", RAG_RERANK_REQUEST_FORMAT="tei", RAG_RERANK_API_KEY="")
    scores = run(reranker, reranker.rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S))
    assert scores == pytest.approx([overlap(QUESTION, t) for t in TEXTS])
    assert server.bodies[0].keys() == {"query", "texts", "truncate"} and "authorization" not in server.headers[0]


def test_scores_are_the_servers(server: MisbehavingReranker) -> None:
    """Scores come back in the order of the candidates, though the server sorts them."""
    reranker = reranker_of(server)
    scores = run(reranker, reranker.rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S))
    assert scores == pytest.approx([overlap(QUESTION, t) for t in TEXTS])


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_an_error_of_ours(server: MisbehavingReranker, fault: str) -> None:
    """Whatever the server does, one request is made, a DependencyError comes back before the deadline and a
    little, it quotes neither key nor texts, and the next call works."""
    reranker = reranker_of(server)
    server.fault = fault
    passages = [candidate(f"{SECRET_TEXT} {i}") for i in range(5)]

    async def main() -> None:
        started = time.monotonic()
        with pytest.raises(DependencyError) as caught:
            await reranker.rerank(SECRET_TEXT, passages, timeout_s=0.5 if fault in SILENT_FAULTS else PATIENCE_S)
        assert fault not in SILENT_FAULTS or time.monotonic() - started < 10
        shown: BaseException | None = caught.value
        while shown is not None:
            assert SECRET_TEXT not in str(shown) and "co-test-secret" not in str(shown)
            shown = shown.__cause__ if isinstance(shown.__cause__, RagError) else None
        assert server.calls == 1
        server.fault = None
        server.released.set()
        assert len(await reranker.rerank(SECRET_TEXT, passages, timeout_s=PATIENCE_S)) == 5

    run(reranker, main())


@pytest.mark.parametrize(
    ("fault", "kind", "retryable"),
    [
        ("401", DependencyError, False),
        ("403", DependencyError, False),
        ("404", DependencyError, False),
        ("redirect", DependencyError, False),
        ("402", QuotaExhausted, False),
        ("429", RateLimited, True),
        ("400", DependencyError, True),
        ("422", DependencyError, True),
        ("500", DependencyError, True),
        ("503", DependencyError, True),
        ("frozen", DependencyTimeout, True),
        ("dripping", DependencyTimeout, True),
        *((fault, DependencyError, True) for fault in NONSENSE_FAULTS),
    ],
)
def test_kind_of_error(server: MisbehavingReranker, fault: str, kind: type[DependencyError], retryable: bool) -> None:
    """Errors say whether trying again can help, and how long the server asked us to wait."""
    reranker = reranker_of(server)
    server.fault = fault
    with pytest.raises(kind) as caught:
        run(reranker, reranker.rerank(QUESTION, CANDIDATES, timeout_s=0.5 if kind is DependencyTimeout else PATIENCE_S))
    assert type(caught.value) is kind and caught.value.retryable == retryable
    assert caught.value.dependency == "reranker:cohere_compatible"
    assert caught.value.retry_after_s == (1.0 if fault in ("429", "503") else None)


def test_nobody_listens(server: MisbehavingReranker) -> None:
    """A closed port is an error at once, and the server is found again when it is back."""
    reranker = reranker_of(server)
    server.close()
    with pytest.raises(DependencyError, match="cannot be reached"):
        run(reranker, reranker.ping())
    server.open()
    run(reranker, reranker.ping())


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({"RAG_RERANK_BASE_URL": "ftp://x"}, "RAG_RERANK_BASE_URL"),
        ({"RAG_RERANK_BASE_URL": "http://[bad"}, "RAG_RERANK_BASE_URL"),
        ({"RAG_RERANK_BASE_URL": "http://h:99999"}, "RAG_RERANK_BASE_URL"),
        ({"RAG_RERANK_PATH": "rerank"}, "RAG_RERANK_PATH"),
        ({"RAG_RERANK_REQUEST_FORMAT": "xml"}, "RAG_RERANK_REQUEST_FORMAT"),
        ({"RAG_RERANK_MAX_CANDIDATES": "0"}, "RAG_RERANK_MAX_CANDIDATES"),
        ({"RAG_RERANK_USD_PER_1000_CALLS": "nan"}, "RAG_RERANK_USD_PER_1000_CALLS"),
        ({"RAG_RERANK_API_KEY": "schlüssel"}, "RAG_RERANK_API_KEY"),
        ({"RAG_RERANK_BASE_URL": "https://api.cohere.com", "RAG_RERANK_API_KEY": ""}, "RAG_RERANK_API_KEY"),
    ],
)
def test_nonsense_settings(environ: dict[str, str], variable: str) -> None:
    """A value that makes no sense names its variable and never shows the key."""
    with pytest.raises(ConfigurationError, match=variable) as caught:
        reranker_of("http://127.0.0.1:1", **environ)
    assert "schlüssel" not in str(caught.value)


def test_price_fingerprint_and_second_prefix(server: MisbehavingReranker) -> None:
    """The price is per call and unknown unless set; another model or server has another fingerprint; a
    fallback has variables of its own."""
    assert reranker_of(server).spec.usd_per_call is None
    assert reranker_of(server, RAG_RERANK_USD_PER_1000_CALLS="2").spec.usd_per_call == pytest.approx(0.002)
    prints = {
        reranker_of(server, **environ).spec.fingerprint
        for environ in ({}, {"RAG_RERANK_MODEL": "other"}, {"RAG_RERANK_BASE_URL": "http://127.0.0.1:1"})
    }
    assert len(prints) == 3
    settings = Settings.from_env(
        {"RAG_RERANK_FALLBACK_BASE_URL": server.base_url, "RAG_RERANK_FALLBACK_MODEL": "second"}
    )
    second = backends.load("rerankers", "cohere_compatible").build(settings, "RAG_RERANK_FALLBACK_")
    assert second.spec.model == "second"


def test_no_io_and_no_library_before_the_first_call() -> None:
    """Building the reranker loads no HTTP library."""
    code = (
        "import sys; from rag_platform import backends; from rag_platform.settings import Settings;"
        "backends.load('rerankers', 'cohere_compatible').build(Settings.from_env()).spec;"
        "assert not {'httpx', 'onnxruntime'} & set(sys.modules)"
    )
    environ = {"RAG_RERANK_API_KEY": "x", "PATH": os.defpath}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_server_as_a_process_of_its_own() -> None:
    """The misbehaving server runs by itself, tells its port, changes its fault and counts its calls."""
    process = subprocess.Popen(
        [sys.executable, str(Path(misbehaving_reranker.__file__)), "--port", "0", "--fault", "500"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        base_url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        reranker = reranker_of(base_url)
        with pytest.raises(DependencyError, match="HTTP 500"):
            run(reranker, reranker.ping())
        fault = urllib.request.Request(f"{base_url}/fault", json.dumps({"fault": None}).encode(), method="POST")
        urllib.request.urlopen(fault, timeout=30).close()
        run(reranker, reranker.ping())
        with urllib.request.urlopen(f"{base_url}/calls", timeout=30) as answer:
            assert json.load(answer) == {"calls": 2}
    finally:
        process.kill()
        process.communicate()


def test_cancelled_call_leaves_nothing_behind(server: MisbehavingReranker) -> None:
    """A call that the caller gives up ends at once, and the connection pool works on."""
    reranker = reranker_of(server)

    async def main() -> None:
        server.fault = "frozen"
        task = asyncio.ensure_future(reranker.rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S))
        while not server.calls:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        server.fault = None
        server.released.set()
        assert len(await reranker.rerank(QUESTION, CANDIDATES, timeout_s=PATIENCE_S)) == len(CANDIDATES)

    run(reranker, main())
