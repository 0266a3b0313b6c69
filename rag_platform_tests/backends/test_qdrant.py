"""Qdrant: the contract in the client's in-process mode, and on a real server where one is given; outages."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from rag_platform import backends
from rag_platform.backends.vector_stores.base import VectorStore
from rag_platform.backends.vector_stores.lancedb import LanceVectorStore
from rag_platform.backends.vector_stores.qdrant import Settings
from rag_platform.backends.vector_stores.qdrant_points.collections import is_manifest, payload_indexes
from rag_platform.backends.vector_stores.qdrant_points.rows import QdrantRows
from rag_platform.backends.vector_stores.qdrant_points.words import passage_weights, question_weights
from rag_platform.backends.vector_stores.two_phase import TwoPhaseStore
from rag_platform.errors import ConfigurationError, DependencyError, DependencyTimeout, RateLimited, RequestRefused
from rag_platform.settings import Settings as PlatformSettings
from rag_platform_tests.backends.frozen_port import frozen, refused
from rag_platform_tests.contracts.closing import ClosedAfterUse
from rag_platform_tests.contracts.vector_store_outages import CALLS, assert_fails
from rag_platform_tests.contracts.vector_stores import (
    DIMENSIONS,
    VectorStoreContract,
    contents,
    document,
    keyword,
    run,
    table,
)

SERVER = "RAG_TEST_QDRANT_URL"
PING = """
import asyncio, sys
from rag_platform.backends.vector_stores.qdrant import QdrantRows, Settings
from rag_platform.errors import DependencyError
try:
    asyncio.run(QdrantRows(Settings(url=sys.argv[1], timeout_s=60)).ping())
except DependencyError as e:
    print(e)
"""


def store_at(url: str, **own: object) -> VectorStore:
    """A store, as ``build`` makes it."""
    rows = QdrantRows(Settings(url=url, **own))  # type: ignore[arg-type]
    return ClosedAfterUse(TwoPhaseStore(rows, keyword=True))  # type: ignore[return-value]


class TestQdrantInProcess(VectorStoreContract):
    documents_at_once = 500

    @pytest.fixture
    def store(self) -> VectorStore:
        return TwoPhaseStore(QdrantRows(Settings(url=":memory:")), keyword=True)


@pytest.mark.skipif(SERVER not in os.environ, reason=f"set {SERVER} to the address of an empty Qdrant server")
@pytest.mark.parametrize("grpc", [False, True])
class TestQdrantServer(VectorStoreContract):
    """On a server whose collections may be deleted: ``docker run -p 6333:6333 -p 6334:6334 qdrant/qdrant``."""

    @pytest.fixture
    def store(self, grpc: bool) -> Iterator[VectorStore]:
        store = store_at(os.environ[SERVER], prefer_grpc=grpc)
        for index in run(store.indexes()):
            run(store.drop(index))
        yield store


def test_built_from_settings() -> None:
    """``build`` reads RAG_QDRANT_…, names what is wrong, and does no I/O."""
    module = backends.load("vector_stores", "qdrant")
    made = module.build(PlatformSettings.from_env({"RAG_QDRANT_URL": "http://nowhere:1", "RAG_QDRANT_SHARDS": "3"}))
    assert made.capabilities.keyword and not made.capabilities.survives_server_outage
    for name, value in (("URL", "ftp://x"), ("API_KEY", "k\n"), ("QUANTIZATION", "some"), ("TIMEOUT_S", "0")):
        with pytest.raises(ConfigurationError, match=f"RAG_QDRANT_{name}"):
            module.build(PlatformSettings.from_env({f"RAG_QDRANT_{name}": value}))


def test_without_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the client is not installed, ``build`` says the install line."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="pip install qdrant-client"):
        backends.load("vector_stores", "qdrant").build(PlatformSettings.from_env({}))


def test_a_folder_keeps_its_rows(tmp_path: Path) -> None:
    """In process over a folder: rows are there again after closing, and a second user of the folder is refused."""
    first = TwoPhaseStore(QdrantRows(Settings(url=str(tmp_path / "q"))), keyword=True)
    run(first.ensure("i", DIMENSIONS))
    run(first.replace("i", table(document("a", ["kept words"])), stale=[]))
    # In a process of its own: the refused client leaves its lock file to the collector, which is a warning.
    refusal = subprocess.run(
        [sys.executable, "-c", PING, str(tmp_path / "q")], capture_output=True, text=True, timeout=60, check=True
    )
    assert "another process" in refusal.stdout
    run(first.aclose())
    second = TwoPhaseStore(QdrantRows(Settings(url=str(tmp_path / "q"))), keyword=True)
    assert contents(second) == {("a", "v1", 0, "kept words")} and run(second.indexes()) == ["i"]
    assert [h.uri for h in run(keyword(second, "word"))] == ["a"]
    run(second.aclose())


def test_everything_filtered_on_is_indexed() -> None:
    """Qdrant gets an index for every field that a filter, an ACL or the write protocol names."""
    from rag_platform.backends.vector_stores.filters import FIELDS

    made = payload_indexes()
    assert set(made) >= {*FIELDS, "tenant", "acl", "chunk_id", "write_id"}
    assert {n for n, i in made.items() if getattr(i, "prefix", None)} == {
        n for n, (_, o) in FIELDS.items() if "^=" in o
    }
    assert is_manifest("i--manifest") and not is_manifest("i")


def test_weights_are_bm25() -> None:
    """A question's and a passage's weights meet at BM25 without its idf: 2.2·tf / (tf + 1.2·(0.25 + 0.75·length/average))."""
    text = passage_weights("", "", "wolves run; a wolf runs far", average_words=10)
    asked = question_weights("Wolf running?")
    product = sum(weight * text.get(at, 0.0) for at, weight in asked.items())
    norm = 1.2 * (0.25 + 0.75 * 5 / 10)
    # Porter2 keeps ``wolv`` and ``wolf`` apart.
    assert product == pytest.approx(2.2 * 1 / (1 + norm) + 2.2 * 2 / (2 + norm))
    assert question_weights("the of and ? !") == {} and set(asked.values()) == {1.0}


def test_words_rank_as_in_lancedb(tmp_path: Path) -> None:
    """On the same seeded documents both stores find the same chunks by words, and agree on the best ones."""
    rng = np.random.default_rng(7)
    vocabulary = [
        f"{a}{b}" for a in ("river", "stone", "cloud", "engine", "garden") for b in ("bank", "wall", "s", "ing")
    ]
    weights = 1 / np.arange(1, len(vocabulary) + 1)
    documents = [
        document(
            f"d{n}", [" ".join(rng.choice(vocabulary, size=rng.integers(20, 60), p=weights / weights.sum()))], seed=n
        )
        for n in range(150)
    ]
    qdrant = TwoPhaseStore(QdrantRows(Settings(url=":memory:", average_words=40)), keyword=True)
    lance = LanceVectorStore(str(tmp_path / "index"))
    for store in (qdrant, lance):
        run(store.ensure("i", DIMENSIONS))
        run(store.replace("i", table(*documents), stale=[]))
    shared = []
    for n in range(12):
        question = " ".join(rng.choice(vocabulary, size=2, replace=False))
        ours, theirs = (run(keyword(store, question, k=150)) for store in (qdrant, lance))
        assert {h.chunk_id for h in ours} == {h.chunk_id for h in theirs}, f"question {n} of seed 7"
        shared.append(len({h.chunk_id for h in ours[:10]} & {h.chunk_id for h in theirs[:10]}))
    assert np.mean(shared) > 8.5


# ── outages ──


@pytest.mark.parametrize("grpc", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_qdrant_refused(call: str, grpc: bool) -> None:
    """Nobody listens: every call fails soon, with the class that stops a stage and is retried."""
    with refused() as port:
        store = store_at(f"http://127.0.0.1:{port}", prefer_grpc=grpc, grpc_port=port, timeout_s=5, write_timeout_s=30)
        assert assert_fails(store, call, within_s=8).retryable


@pytest.mark.parametrize("grpc", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_qdrant_frozen(call: str, grpc: bool) -> None:
    """A server that accepts and stays silent costs one deadline."""
    with frozen() as port:
        store = store_at(
            f"http://127.0.0.1:{port}", prefer_grpc=grpc, grpc_port=port, timeout_s=0.2, write_timeout_s=0.3
        )
        assert_fails(store, call, within_s=5, kind=DependencyTimeout)


@pytest.mark.parametrize(
    ("status", "kind", "retryable", "after"),
    [
        (400, RequestRefused, False, None),
        (401, DependencyError, False, None),
        (403, DependencyError, False, None),
        (429, RateLimited, True, 7.0),
        (500, DependencyError, True, None),
        (503, DependencyError, True, 7.0),
        (200, DependencyError, True, None),
    ],
)
def test_every_status_has_a_class(
    status: int, kind: type[DependencyError], retryable: bool, after: float | None
) -> None:
    """A search raises at once what the answer means, with the wait that was asked for, and quotes nothing."""
    with answering(status, {"Retry-After": "7"} if status in (429, 503) else {}) as url:
        store = store_at(url, api_key="q-secret-key")
        error = assert_fails(store, "search", within_s=8, kind=kind, secret="secret")
    assert (error.retryable, error.retry_after_s) == (retryable, after)
    assert status not in (401, 403) or "RAG_QDRANT_API_KEY" in str(error)


class answering:
    """A server that answers everything with one status and a body that must not be quoted."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = b'{"status": {"error": "secret words"}}'
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_PUT = do_DELETE = do_GET

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
