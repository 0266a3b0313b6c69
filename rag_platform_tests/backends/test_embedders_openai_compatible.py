"""The OpenAI-compatible embedder against a real, misbehaving server on loopback."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rag_platform import backends
from rag_platform.backends.embedders.base import Embedder
from rag_platform.backends.embedders.openai_compatible import _USD_PER_MILLION_TOKENS
from rag_platform.backends.embedders.tokenizers import TiktokenTokenizer
from rag_platform.errors import (
    ConfigurationError,
    DependencyError,
    DependencyTimeout,
    EmbeddingRefused,
    QuotaExhausted,
    RagError,
    RateLimited,
)
from rag_platform.settings import Settings
from rag_platform_tests.backends.misbehaving_openai import (
    FAULTS,
    NONSENSE_FAULTS,
    POISON,
    MisbehavingOpenAI,
    vector_of,
)
from rag_platform_tests.contracts.embedders import TEXTS, EmbedderContract, run

DIMENSIONS = 8
SECRET_TEXT = "a private sentence"


@pytest.fixture(scope="module", autouse=True)
def _sdk_is_loaded() -> None:
    """Importing the SDK takes seconds, which the first call would spend from its deadline."""
    import openai  # noqa: F401


@pytest.fixture
def server() -> Iterator[MisbehavingOpenAI]:
    with MisbehavingOpenAI(DIMENSIONS).running() as running:
        yield running


def embedder_of(server: MisbehavingOpenAI, **environ: str) -> Embedder:
    defaults = {
        "RAG_OPENAI_BASE_URL": server.base_url,
        "RAG_OPENAI_API_KEY": "sk-test-secret",
        "RAG_OPENAI_DIMENSIONS": str(DIMENSIONS),
    }
    embedder: Embedder = backends.load("embedders", "openai_compatible").build(
        Settings.from_env({**defaults, **environ})
    )
    return embedder


class TestContract(EmbedderContract):
    @pytest.fixture
    def embedder(self, server: MisbehavingOpenAI) -> Iterator[Embedder]:
        yield embedder_of(server)


def test_request_is_what_the_api_wants(server: MisbehavingOpenAI) -> None:
    """One request holds the texts in order, with prefix, model and dimensions; vectors come back normalised."""
    embedder = embedder_of(server, RAG_OPENAI_PASSAGE_PREFIX="passage: ", RAG_OPENAI_QUERY_PREFIX="query: ")
    batch = run(embedder, embedder.embed(TEXTS))
    assert server.inputs == [[f"passage: {t}" for t in TEXTS]]
    assert server.bodies[0]["model"] == "text-embedding-3-small" and server.bodies[0]["dimensions"] == DIMENSIONS
    np.testing.assert_allclose(batch.vectors[0], vector_of(server.inputs[0][0], DIMENSIONS) / 3, atol=1e-6)
    assert batch.tokens == sum(len(t.split()) for t in server.inputs[0])
    run(embedder, embedder.embed(["q"], kind="query"))
    assert server.inputs[1] == ["query: q"]


def test_dimensions_are_sent_only_where_supported(server: MisbehavingOpenAI) -> None:
    """Another model is not asked to shorten its vectors."""
    embedder = embedder_of(server, RAG_OPENAI_MODEL="nomic-embed-text")
    run(embedder, embedder.ping())
    assert "dimensions" not in server.bodies[0]
    assert embedder.spec.usd_per_million_tokens is None


def test_requests_respect_text_and_token_limits(server: MisbehavingOpenAI) -> None:
    """A call is split so that no request holds more texts or tokens than allowed, and comes back in order."""
    embedder = embedder_of(server, RAG_OPENAI_BATCH_SIZE="10", RAG_OPENAI_BATCH_TOKENS="40")
    texts = [f"one two three four five {i}" for i in range(25)]
    batch = run(embedder, embedder.embed(texts))
    assert max(len(r) for r in server.inputs) <= 10
    assert max(sum(embedder.tokenizer.count(r)) for r in server.inputs) <= 40
    assert sorted(t for r in server.inputs for t in r) == sorted(texts)
    for text, vector in zip(texts, batch.vectors, strict=True):
        np.testing.assert_allclose(vector, vector_of(text, DIMENSIONS) / 3, atol=1e-6)


def test_too_long_text_is_cut(server: MisbehavingOpenAI) -> None:
    """A text beyond the model's limit is cut to it instead of being refused."""
    embedder = embedder_of(server, RAG_OPENAI_MAX_TOKENS="16")
    run(embedder, embedder.embed(["many words " * 100]))
    (sent,) = server.inputs[0]
    assert embedder.tokenizer.count([sent]) == [16]


def test_shuffled_answer_is_put_in_order(server: MisbehavingOpenAI) -> None:
    """The index of an item decides, not its place."""
    server.fault = "shuffled"
    embedder = embedder_of(server)
    vectors = run(embedder, embedder.embed(TEXTS)).vectors
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(vector, vector_of(text, DIMENSIONS) / 3, atol=1e-6)


EXPECTED: dict[str, tuple[type[RagError], bool | None]] = {
    **{fault: (DependencyError, True) for fault in NONSENSE_FAULTS},
    "rate_limited": (RateLimited, True),
    "rate_limited_long": (RateLimited, True),
    "rate_limited_silent": (RateLimited, True),
    "unauthorized": (DependencyError, False),
    "forbidden": (DependencyError, False),
    "model_not_found": (DependencyError, False),
    "bad_dimensions": (DependencyError, False),
    "insufficient_quota": (QuotaExhausted, False),
    "server_error": (DependencyError, True),
    "overloaded": (DependencyError, True),
    "teapot": (DependencyError, False),
    "refuse_all": (EmbeddingRefused, None),
    "too_large": (EmbeddingRefused, None),
    "poison": (EmbeddingRefused, None),
    "frozen": (DependencyTimeout, True),
    "dripping": (DependencyTimeout, True),
    "slow": (DependencyTimeout, True),
    "closed": (DependencyError, True),
    "reset": (DependencyError, True),
}


@pytest.mark.parametrize("fault", [f for f in FAULTS if f != "shuffled"])
def test_every_fault_has_a_name_of_ours_in_time(server: MisbehavingOpenAI, fault: str) -> None:
    """Whatever the server does: an error of our tree, of the right kind, before the deadline, that leaks nothing;
    hopeless faults are tried once; afterwards a healthy server is used again."""
    embedder = embedder_of(server)
    kind, retryable = EXPECTED[fault]
    timeout_s = 0.3 if retryable else 5.0  # what is tried once says so as soon as the server has answered
    server.fault = fault
    if fault == "closed":
        server.close()
    texts = [SECRET_TEXT, f"{SECRET_TEXT} {POISON}", "third"]
    began = time.monotonic()
    with pytest.raises(RagError) as caught:
        run(embedder, embedder.embed(texts, timeout_s=timeout_s))
    took = time.monotonic() - began
    assert took < timeout_s + 1
    error = caught.value
    # Retried faults may end as the last failure, or as the pause or deadline that followed it.
    assert isinstance(error, kind) or (retryable and isinstance(error, DependencyError)), repr(error)
    shown = f"{error!r} {error}"
    assert "private" not in shown and "sk-test" not in shown
    if isinstance(error, DependencyError) and retryable is False:
        assert not error.retryable
    if retryable is not True:
        assert server.calls == 1
    server.fault = None
    if fault == "closed":
        server.open()
    if retryable is not False and fault != "rate_limited_long":
        run(embedder, embedder.embed(["again"], timeout_s=10))


@pytest.mark.parametrize("fault", ["server_error", "html", "too_few", "nan", "zero", "reset", "rate_limited_silent"])
def test_passing_faults_are_retried(server: MisbehavingOpenAI, fault: str) -> None:
    """Two bad answers and then a good one are a success."""
    server.fault, server.faulty_calls = fault, 2
    embedder = embedder_of(server)
    batch = run(embedder, embedder.embed(TEXTS, timeout_s=20))
    assert len(batch.vectors) == len(TEXTS) and server.calls == 3


def test_retry_after_is_honoured_within_the_deadline(server: MisbehavingOpenAI) -> None:
    """One second asked for is waited; ninety that do not fit are not, and the caller learns of them."""
    server.fault, server.faulty_calls = "rate_limited", 1
    embedder = embedder_of(server)
    began = time.monotonic()
    run(embedder, embedder.embed(["x"], timeout_s=20))
    assert time.monotonic() - began >= 1 and server.calls == 2

    server.fault, server.faulty_calls = "rate_limited_long", None
    embedder = embedder_of(server)
    began = time.monotonic()
    with pytest.raises(RateLimited) as caught:
        run(embedder, embedder.embed(["x"], timeout_s=20))
    assert time.monotonic() - began < 2 and caught.value.retry_after_s == 90


def test_frozen_request_is_tried_again(server: MisbehavingOpenAI) -> None:
    """A request that hangs costs its own deadline, not the whole one."""
    server.fault, server.faulty_calls = "frozen", 1
    embedder = embedder_of(server, RAG_OPENAI_REQUEST_TIMEOUT_S="0.3")
    run(embedder, embedder.embed(["x"], timeout_s=20))
    assert server.calls == 2


@pytest.mark.parametrize(
    "fault", ["server_error", "insufficient_quota", "unauthorized", "rate_limited_silent", "malformed_json"]
)
def test_calls_are_bounded_while_down(server: MisbehavingOpenAI, fault: str) -> None:
    """Two hundred requests to a service that is down cost far fewer calls than requests (P8)."""
    server.fault = fault
    embedder = embedder_of(server)

    async def storm() -> list[BaseException | object]:
        return await asyncio.gather(*(embedder.embed(["x"], timeout_s=0.5) for _ in range(200)), return_exceptions=True)

    results = run(embedder, storm())
    assert all(isinstance(r, DependencyError) for r in results), [
        r for r in results if not isinstance(r, DependencyError)
    ]
    assert server.calls <= 30


def test_ingestion_survives_a_short_outage(server: MisbehavingOpenAI) -> None:
    """Calls with a long deadline wait for the service to come back, and then all succeed."""
    server.fault, server.faulty_calls = "server_error", 8
    embedder = embedder_of(server)

    async def many() -> None:
        await asyncio.gather(*(embedder.embed([f"text {i}"], timeout_s=60) for i in range(20)))

    run(embedder, many())
    assert server.calls <= 20 * 1.1 + 10


def test_concurrency_is_bounded_and_halved_on_429(server: MisbehavingOpenAI) -> None:
    """Never more requests at a time than set; after 429 fewer, until it recovers."""
    server.hold_s = 0.02
    embedder = embedder_of(server, RAG_OPENAI_CONCURRENCY="4")

    async def many(count: int) -> None:
        await asyncio.gather(*(embedder.embed(["x"], timeout_s=60) for _ in range(count)))

    run(embedder, many(24))
    assert 2 <= server.most_concurrent <= 4
    server.fault, server.faulty_calls = "rate_limited_silent", 1
    run(embedder, embedder.ping())
    assert embedder.limiter.limit < 4  # type: ignore[attr-defined]
    run(embedder, many(40))
    assert embedder.limiter.limit == 4  # type: ignore[attr-defined]


def test_own_rate_limit(server: MisbehavingOpenAI) -> None:
    """Requests beyond the configured rate wait; those that cannot fit before the deadline are refused at once."""
    embedder = embedder_of(server, RAG_OPENAI_REQUESTS_PER_MINUTE="120")  # 20 at once, then 2 a second

    async def many(count: int, timeout_s: float) -> list[object]:
        return await asyncio.gather(
            *(embedder.embed(["x"], timeout_s=timeout_s) for _ in range(count)), return_exceptions=True
        )

    began = time.monotonic()
    assert not [r for r in run(embedder, many(22, 30)) if isinstance(r, Exception)]
    assert time.monotonic() - began > 0.5
    results = run(embedder, many(10, 1))
    assert any(isinstance(r, DependencyError) for r in results)
    assert all(isinstance(r, DependencyError) or hasattr(r, "vectors") for r in results)


def test_cancelled_calls_free_their_slots(server: MisbehavingOpenAI) -> None:
    """Callers that leave block nobody."""
    server.fault = "frozen"
    embedder = embedder_of(server, RAG_OPENAI_CONCURRENCY="2")

    async def main() -> None:
        calls = [asyncio.ensure_future(embedder.embed(["x"], timeout_s=30)) for _ in range(6)]
        while server.calls < 2:
            await asyncio.sleep(0.01)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        server.fault = None
        await asyncio.gather(*(embedder.embed(["x"], timeout_s=10) for _ in range(4)))

    run(embedder, main())


def test_configuration_is_checked(server: MisbehavingOpenAI) -> None:
    """A missing key or a senseless number is refused at the start, naming the variable."""
    build = backends.load("embedders", "openai_compatible").build
    with pytest.raises(ConfigurationError, match="RAG_OPENAI_API_KEY"):
        build(Settings.from_env({}))
    with pytest.raises(ConfigurationError, match="RAG_OPENAI_DIMENSIONS"):
        build(Settings.from_env({"OPENAI_API_KEY": "k", "RAG_OPENAI_DIMENSIONS": "4000"}))
    with pytest.raises(ConfigurationError, match="RAG_OPENAI_BASE_URL"):
        embedder_of(server, RAG_OPENAI_BASE_URL="localhost:8000")
    with pytest.raises(ConfigurationError, match="RAG_OPENAI_TOKENIZER"):
        _ = embedder_of(server, RAG_OPENAI_TOKENIZER="nowhere.json").tokenizer
    embedder = build(Settings.from_env({"OPENAI_API_KEY": "k"}))
    assert embedder.spec.usd_per_million_tokens == 0.02
    local: Any = build(Settings.from_env({"OPENAI_API_KEY": "k", "RAG_OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}))
    assert local._inner._clients._api_key == "none", "another server is not sent OpenAI's key"
    run(embedder_of(server, RAG_OPENAI_API_KEY=""), embedder_of(server, RAG_OPENAI_API_KEY="").ping())


def test_first_call_leaves_the_event_loop_free(server: MisbehavingOpenAI) -> None:
    """In a fresh process the deadline holds also while the SDK, which takes seconds, is being imported."""
    code = (
        "import asyncio, sys, time; from rag_platform import backends; from rag_platform.settings import Settings\n"
        "from rag_platform.errors import DependencyTimeout\n"
        "e = backends.load('embedders', 'openai_compatible').build(Settings.from_env()); e.spec; e.tokenizer.count(['x'])\n"
        "assert 'openai' not in sys.modules\n"
        "async def main():\n"
        "    began = time.monotonic()\n"
        "    try: await e.embed(['x'], timeout_s=0.05)\n"
        "    except DependencyTimeout: pass\n"
        "    print(time.monotonic() - began)\n"
        "    await e.ping()\n"
        "    await e.aclose()\n"
        "asyncio.run(main())\n"
    )
    environ = {"RAG_OPENAI_BASE_URL": server.base_url, "RAG_OPENAI_DIMENSIONS": str(DIMENSIONS), "PATH": os.defpath}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environ, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert float(done.stdout) < 0.05 + 1


def test_fingerprint_follows_what_changes_vectors(server: MisbehavingOpenAI) -> None:
    """Model, dimensions and prefixes move the fingerprint; rates and timeouts do not."""
    base = embedder_of(server).spec.fingerprint
    assert embedder_of(server, RAG_OPENAI_CONCURRENCY="3", RAG_OPENAI_REQUEST_TIMEOUT_S="9").spec.fingerprint == base
    for change in ({"MODEL": "other"}, {"DIMENSIONS": "9"}, {"QUERY_PREFIX": "q: "}):
        assert embedder_of(server, **{f"RAG_OPENAI_{k}": v for k, v in change.items()}).spec.fingerprint != base


def test_prices_agree_with_genai_prices() -> None:
    """The price table is that of the public price list, where it is installed."""
    snapshot = pytest.importorskip("genai_prices.data_snapshot").get_snapshot()
    openai = next(p for p in snapshot.providers if p.id == "openai")
    listed = {m.id: m.prices for m in openai.models if m.id in _USD_PER_MILLION_TOKENS}
    assert {k: float(v.input_mtok) for k, v in listed.items()} == _USD_PER_MILLION_TOKENS


def test_tiktoken_offsets_rebuild_the_text() -> None:
    """Tokens cover the whole text, also where one character needs several of them."""
    tokenizer = TiktokenTokenizer()
    for text in [*TEXTS, "\U0001f9d1\u200d\U0001f680 ok 漢字\ufeff"]:
        offsets = tokenizer.offsets(text)
        covered = set()
        for start, end in offsets:
            covered.update(range(start, end))
        assert covered == set(range(len(text)))
