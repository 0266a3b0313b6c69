"""Pinecone: the contract against a double of its public API, with lagging reads; what only Pinecone asks for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from rag_platform import backends
from rag_platform.backends.vector_stores.base import SearchRequest, VectorStore
from rag_platform.backends.vector_stores.filters import Compare, parse
from rag_platform.backends.vector_stores.pinecone import Settings
from rag_platform.backends.vector_stores.pinecone_api.rows import PineconeRows
from rag_platform.backends.vector_stores.two_phase import TwoPhaseStore
from rag_platform.errors import (
    ConfigurationError,
    DependencyError,
    DependencyTimeout,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
)
from rag_platform.records import Principal
from rag_platform.settings import Settings as PlatformSettings
from rag_platform_tests.backends.frozen_port import frozen, refused
from rag_platform_tests.backends.pinecone_server import API_KEY, PineconeDouble
from rag_platform_tests.contracts.closing import ClosedAfterUse
from rag_platform_tests.contracts.vector_store_outages import CALLS, assert_fails
from rag_platform_tests.contracts.vector_stores import (
    DIMENSIONS,
    VectorStoreContract,
    contents,
    doc_id,
    document,
    run,
    table,
    unit,
    vector,
)


def store_at(url: str, api_key: str = API_KEY, **own: object) -> VectorStore:
    """A store, as ``build`` makes it."""
    rows = PineconeRows(Settings(control_url=url, **own), api_key)  # type: ignore[arg-type]
    return ClosedAfterUse(TwoPhaseStore(rows, keyword=False))  # type: ignore[return-value]


class TestPineconeStore(VectorStoreContract):
    """Reads lag up to two requests behind writes; negations say as little as the documentation lets them."""

    documents_at_once = 1500

    @pytest.fixture
    def store(self) -> Iterator[VectorStore]:
        with PineconeDouble(seed=1, max_lag=2, negations="absent_fails").running() as double:
            yield store_at(double.url)


@pytest.fixture(scope="module")
def double() -> Iterator[PineconeDouble]:
    """A project that holds index ``i`` with two documents; tests put it back as they found it."""
    with PineconeDouble(seed=2).running() as running:
        store = store_at(running.url)
        run(store.ensure("i", DIMENSIONS))
        run(store.replace("i", table(document("a", ["one", "two"]), document("b", ["three"], seed=9)), stale=[]))
        yield running


@pytest.fixture
def broken(double: PineconeDouble) -> Iterator[PineconeDouble]:
    yield double
    double.fault = None


def test_built_from_settings() -> None:
    """``build`` reads RAG_PINECONE_… and PINECONE_API_KEY, names what is wrong, and does no I/O."""
    module = backends.load("vector_stores", "pinecone")
    made = module.build(PlatformSettings.from_env({"PINECONE_API_KEY": "k", "RAG_PINECONE_INDEX": "mine"}))
    assert not made.capabilities.keyword and not made.capabilities.survives_server_outage
    for environ, variable in (
        ({}, "RAG_PINECONE_API_KEY"),
        ({"RAG_PINECONE_API_KEY": "k\n"}, "RAG_PINECONE_API_KEY"),
        ({"RAG_PINECONE_API_KEY": "k", "RAG_PINECONE_INDEX": "Mine"}, "RAG_PINECONE_INDEX"),
        ({"RAG_PINECONE_API_KEY": "k", "RAG_PINECONE_TIMEOUT_S": "0"}, "RAG_PINECONE_TIMEOUT_S"),
    ):
        with pytest.raises(ConfigurationError, match=variable):
            module.build(PlatformSettings.from_env(environ))


@pytest.mark.parametrize("negations", ["absent_matches", "absent_fails"])
def test_filters_do_not_lean_on_open_questions(negations: str) -> None:
    """Whatever ``$ne`` and ``$nin`` say of missing fields and of lists, the same rows are found."""
    rows = [
        document("u0", ["x"], tags=["a"], page=1, language=""),
        document("u1", ["x"], tags=["a", "b"], page=None, title="t" * 300),
        document("u2", ["x"], tags=[], page=3, title="t" * 299 + "u", modified_at=5.5),
    ]
    expected = {
        'not tags has "a"': {"u2"},
        'not tags has "c"': {"u0", "u1", "u2"},
        "page != 1": {"u2"},
        "not page = 1": {"u1", "u2"},
        "not (page > 1 or page <= 1)": {"u1"},
        "not (modified_at > 1 and page = 3)": {"u0", "u1"},
        f'title = "{"t" * 300}"': {"u1"},
        f'title != "{"t" * 300}"': {"u0", "u2"},
        f'title ^= "{"t" * 299}"': {"u1", "u2"},
        f'not title ^= "{"t" * 299}t"': {"u0", "u2"},
        'not language = "en"': {"u0"},
    }
    with PineconeDouble(negations=negations).running() as running:
        store = store_at(running.url)
        run(store.ensure("i", DIMENSIONS))
        run(store.replace("i", table(*rows), stale=[]))
        for text, uris in expected.items():
            assert {h.uri for h in run(vector(store, 1, where=parse(text)))} == uris, text


def test_looks_further_down_when_pinecone_lets_too_much_through(double: PineconeDouble) -> None:
    """Where a filter cannot be sent exactly, as many hits are found as there are, nearest first."""
    store = store_at(double.url)
    many = [document(f"far/{n}", ["x"], seed=n, title="t" * 200 + str(n)) for n in range(300)]
    run(store.ensure("deep", DIMENSIONS))
    run(store.replace("deep", table(*many), stale=[]))
    wanted = {f"far/{n}" for n in range(300) if str(n).endswith("7")}
    tree = parse(" or ".join(f'title = "{"t" * 200}{n}"' for n in range(300) if str(n).endswith("7")))
    request = SearchRequest(Principal("default"), 10, ("vector",), vector=unit(500), where=tree)
    hits = run(store.search("deep", request)).legs["vector"]
    best = sorted(wanted, key=lambda u: -float(unit(500) @ unit(int(u[4:]))))[:10]
    assert [h.uri for h in hits] == best
    run(store.drop("deep"))


def test_a_chunk_that_does_not_fit(double: PineconeDouble) -> None:
    """Text compresses into the 40 KB of metadata; what does not fit is refused with the cure, and nothing changes."""
    store = store_at(double.url)
    long = "words that say the same again and again " * 5000
    run(store.replace("i", table(document("long", [long])), stale=[]))
    assert contents(store) >= {("long", "v1", 0, long)}
    noise = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNO", k=80_000))
    with pytest.raises(ConfigurationError, match="RAG_CHUNK_TOKENS") as caught:
        run(store.replace("i", table(document("noise", [noise])), stale=[]))
    assert noise[:20] not in str(caught.value)
    run(store.delete("i", [doc_id("long")]))
    assert run(store.count("i")) == 3


def test_one_address(double: PineconeDouble) -> None:
    """With RAG_PINECONE_HOST the index there is used, none is created, and other dimensions are refused."""
    store = store_at("http://127.0.0.1:9", host=f"{double.url}/at/rag-{DIMENSIONS}")
    assert run(store.indexes()) == ["i"] and run(store.count("i")) == 3
    with pytest.raises(ConfigurationError, match="RAG_PINECONE_HOST"):
        run(store.ensure("other", DIMENSIONS + 1))
    assert list(double.indexes) == [f"rag-{DIMENSIONS}"]


def test_namespaces_index_what_is_filtered_on(double: PineconeDouble) -> None:
    """Rows get a schema that leaves the text out of Pinecone's metadata index."""
    fields = double.indexes[f"rag-{DIMENSIONS}"].namespaces["i.rows"].schema["fields"]  # type: ignore[index]
    assert {"document_id", "write_id", "acl", "tenant", "prefixes", "page"} <= set(fields) and "row" not in fields


def test_the_vendors_client_reads_the_double_as_we_do(double: PineconeDouble) -> None:
    """Pinecone's own SDK, asked of the same double, finds what the adapter wrote: neither speaks a dialect."""
    from pinecone import AsyncPinecone

    async def asked() -> tuple[list[str], int, list[str]]:
        async with AsyncPinecone(api_key=API_KEY, host=double.url) as client:
            names = [i.name async for i in client.indexes.list()]
            async with await client.index(name=names[0]) as index:
                spaces = [n.name async for page in index.list_namespaces() for n in page.namespaces]
                answer = await index.query(
                    vector=[float(v) for v in unit(9)],
                    top_k=1,
                    namespace="i.rows",
                    include_metadata=True,
                    filter={"tenant": {"$eq": "=default"}},
                )
                [match] = answer.matches
                listed = [
                    v.id
                    async for page in index.list(prefix=match.metadata["write_id"], namespace="i.rows")
                    for v in page.vectors
                ]
                fetched = await index.fetch(ids=listed, namespace="i.rows")
                return spaces, len(fetched.vectors), [match.metadata["document_id"]]

    spaces, rows, documents = asyncio.run(asked())
    assert {"i.rows", "i.manifest"} <= set(spaces) and rows == 3 and documents == ["=" + doc_id("b")]


# ── outages ──


@pytest.mark.parametrize("call", CALLS)
def test_refused(call: str) -> None:
    """Nobody listens: every call fails at once, with the class that stops a stage and is retried."""
    with refused() as port:
        store = store_at(f"http://127.0.0.1:{port}", timeout_s=5, write_timeout_s=30)
        assert assert_fails(store, call, within_s=8).retryable


@pytest.mark.parametrize("call", CALLS)
def test_frozen(call: str) -> None:
    """A server that accepts and stays silent costs one deadline."""
    with frozen() as port:
        store = store_at(f"http://127.0.0.1:{port}", timeout_s=0.2, write_timeout_s=0.3)
        assert_fails(store, call, within_s=5, kind=DependencyTimeout)


@pytest.mark.parametrize("call", ["search", "replace", "count"])
def test_frozen_in_the_middle(broken: PineconeDouble, call: str) -> None:
    """The same when it freezes after the index was found."""
    rows = PineconeRows(Settings(control_url=broken.url), API_KEY)
    store: VectorStore = ClosedAfterUse(TwoPhaseStore(rows, keyword=False))  # type: ignore[assignment]
    run(store.count("i"))
    rows._own = Settings(control_url=broken.url, timeout_s=0.3, write_timeout_s=0.4)
    broken.fault = "frozen"
    assert_fails(store, call, within_s=5, kind=DependencyTimeout)


@pytest.mark.parametrize(
    ("fault", "kind", "retryable", "after"),
    [
        ("400", RequestRefused, False, None),
        ("401", DependencyError, False, None),
        ("402", QuotaExhausted, False, None),
        ("403", DependencyError, False, None),
        ("429", RateLimited, True, 7.0),
        ("500", DependencyError, True, None),
        ("503", DependencyError, True, 3.0),
        ("html", DependencyError, True, None),
        ("cut", DependencyError, True, None),
    ],
)
def test_every_answer_has_a_class(
    broken: PineconeDouble, fault: str, kind: type[DependencyError], retryable: bool, after: float | None
) -> None:
    """A search raises at once what the answer means, with the wait that was asked for, and quotes nothing."""
    store = store_at(broken.url)
    run(store.count("i"))
    broken.fault = fault
    error = assert_fails(store, "search", within_s=5, kind=kind, secret="secret words")
    assert (error.retryable, error.retry_after_s) == (retryable, after)


def test_wrong_key(double: PineconeDouble) -> None:
    """A refused key names the variable and not the key."""
    store = store_at(double.url, "pc-wrong-key")
    error = assert_fails(store, "search", within_s=5, secret="pc-wrong-key")
    assert not error.retryable and "RAG_PINECONE_API_KEY" in str(error)


def test_writing_waits_out_a_throttle(broken: PineconeDouble) -> None:
    """A write that is throttled or hits a failing server goes on when that passes, within its deadline; a wait that
    does not fit into it is handed to the caller."""
    store = store_at(broken.url)
    run(store.count("i"))
    broken.fault_times = 3
    broken.fault = "500"
    run(store.replace("i", table(document("c", ["x"])), stale=[]))
    assert run(store.count("i", [doc_id("c")])) == 1
    run(store.delete("i", [doc_id("c")]))
    broken.fault = "429"
    hasty = store_at(broken.url, timeout_s=2, write_timeout_s=2)
    assert assert_fails(hasty, "replace", within_s=5, kind=RateLimited).retry_after_s == 7


def test_a_crash_between_the_steps_shows_nothing(broken: PineconeDouble) -> None:
    """Rows that were written and never published are neither found nor counted, and the next write removes them."""
    store = store_at(broken.url)
    rows = table(document("b", ["never seen"], version="v2", seed=9))
    orphaned = "0" * 32
    inner = ClosedAfterUse(store.rows)  # type: ignore[attr-defined]
    run(inner.put_rows("i", rows.to_pylist(), orphaned))
    only = Compare("uri", "=", "b")
    assert [h.text for h in run(vector(store, 9, where=only))] == ["three"] and run(store.count("i")) == 3
    run(store.replace("i", table(document("b", ["three"], seed=9)), stale=[doc_id("b")]))
    assert orphaned not in run(inner.writes("i"))
