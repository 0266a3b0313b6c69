"""What every vector store must do. A store inherits the suite by giving one fixture, ``store``; one without a
keyword leg declares that in its capabilities, and is asked by vectors alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rag_platform import identity
from rag_platform.backends.vector_stores.base import Leg, SearchRequest, VectorStore
from rag_platform.backends.vector_stores.filters import FIELDS, And, Compare, Filter, Not, Or
from rag_platform.errors import ConfigurationError
from rag_platform.records import LOCAL_OPERATOR, Hit, Principal, index_schema
from rag_platform_tests.backends.memory_store import matches

DIMENSIONS = 16
T = TypeVar("T")


def run(work: Awaitable[T]) -> T:
    """Run in an event loop of its own, as every stage of ingestion does."""

    async def main() -> T:
        return await work

    return asyncio.run(main())


def unit(seed: int, dimensions: int = DIMENSIONS) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A random unit vector."""
    v = np.random.default_rng(seed).standard_normal(dimensions).astype(np.float32)
    return v / np.linalg.norm(v)  # type: ignore[no-any-return]


def document(
    uri: str, texts: Sequence[str], *, version: str = "v1", seed: int = 0, **fields: Any
) -> list[dict[str, Any]]:
    """The rows of one version of a document; ``fields`` override any column."""
    document_id = identity.document_id("docs", uri)
    return [
        {
            "chunk_id": identity.chunk_id(document_id, version, ordinal),
            "document_id": document_id,
            "source": "docs",
            "uri": uri,
            "title": uri,
            "version_id": version,
            "content_hash": "c" * 64,
            "snapshot_id": "s",
            "run_id": "r",
            "ordinal": ordinal,
            "start": 0,
            "end": len(text),
            "page": None,
            "heading_path": "",
            "mime_type": "text/plain",
            "language": "en",
            "modified_at": None,
            "tags": [],
            "tenant": "default",
            "acl": ["public"],
            "text": text,
            "vector": unit(seed + ordinal),
        }
        | fields
        for ordinal, text in enumerate(texts)
    ]


def table(*documents: list[dict[str, Any]], dimensions: int = DIMENSIONS) -> pa.Table:
    return pa.Table.from_pylist([row for rows in documents for row in rows], schema=index_schema(dimensions))


def doc_id(uri: str) -> str:
    return identity.document_id("docs", uri)


async def keyword(store: VectorStore, text: str, principal: Principal = LOCAL_OPERATOR, **more: Any) -> list[Hit]:
    found = await store.search("i", SearchRequest(principal, more.pop("k", 50), ("keyword",), text=text, **more))
    return found.legs["keyword"]


async def vector(store: VectorStore, seed: int, principal: Principal = LOCAL_OPERATOR, **more: Any) -> list[Hit]:
    request = SearchRequest(principal, more.pop("k", 50), ("vector",), vector=unit(seed), **more)
    return (await store.search("i", request)).legs["vector"]


async def every_leg(
    store: VectorStore, text: str, seed: int, principal: Principal = LOCAL_OPERATOR, **more: Any
) -> list[list[Hit]]:
    """What each leg that the store has finds: by vector, and by words where it ranks by words."""
    found = [await vector(store, seed, principal, **more)]
    if store.capabilities.keyword:
        found.append(await keyword(store, text, principal, **more))
    return found


def needs_keyword(store: VectorStore) -> None:
    """Skip a test of the keyword leg where the store declares that it has none."""
    if not store.capabilities.keyword:
        pytest.skip("capabilities.keyword is false")


def contents(store: VectorStore) -> set[tuple[str, str, int, str]]:
    """(uri, version, ordinal, text) of everything in the index; duplicates fail."""
    rows = [r for b in store.scan("i", ["uri", "version_id", "ordinal", "text"]) for r in b.to_pylist()]
    found = {(r["uri"], r["version_id"], r["ordinal"], r["text"]) for r in rows}
    assert len(found) == len(rows)
    return found


TEXT = st.text(st.sampled_from("ab'\"\\%_;-* é集\n()😀"), max_size=6)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "source": TEXT,
            "title": TEXT,
            "heading_path": TEXT,
            "language": st.sampled_from(["en", "zh", ""]),
            "page": st.none() | st.integers(-3, 9),
            "modified_at": st.none() | st.floats(-1e9, 2e9),
            "tags": st.lists(TEXT, max_size=3),
        }
    ),
    min_size=1,
    max_size=8,
)


@st.composite
def comparisons(draw: st.DrawFn) -> Compare:
    name = draw(st.sampled_from(sorted(FIELDS)))
    kind, ops = FIELDS[name]
    value = draw(TEXT if kind is str else st.integers(-(2**70), 2**70) | st.integers(-3, 9) | st.floats(-1e30, 1e30))
    return Compare(name, draw(st.sampled_from(sorted(ops))), value)  # type: ignore[arg-type]


FILTERS: st.SearchStrategy[Filter] = st.recursive(
    comparisons(),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda p: And(tuple(p)))
        | st.lists(inner, min_size=1, max_size=3).map(lambda p: Or(tuple(p)))
        | inner.map(Not)
    ),
    max_leaves=5,
)


class VectorStoreContract:
    """Inherit and give a fixture ``store`` that returns an empty store.

    Attributes:
        documents_at_once: of the largest call. Fewer for doubles that look at every row in Python.
    """

    documents_at_once = 5000

    @pytest.fixture
    def filled(self, store: VectorStore) -> VectorStore:
        run(store.ensure("i", DIMENSIONS))
        rows = table(
            document("a.md", ["alpha wolves", "beta rivers", "gamma hills"], seed=10),
            document("b.md", ["delta wolves wolves"], seed=20),
        )
        run(store.replace("i", rows, stale=[]))
        return store

    def test_unknown_index(self, store: VectorStore) -> None:
        """Reading an index that does not exist raises KeyError; dropping it is a no-op."""
        for work in (store.count("i"), store.stats("i"), store.get("i", ["x"], LOCAL_OPERATOR), vector(store, 1)):
            with pytest.raises(KeyError):
                run(work)
        if store.capabilities.keyword:
            with pytest.raises(KeyError):
                run(keyword(store, "x"))
        with pytest.raises(KeyError):
            list(store.scan("i", ["chunk_id"]))
        run(store.drop("i"))
        assert run(store.indexes()) == []

    def test_ensure_and_drop(self, store: VectorStore) -> None:
        """Ensuring twice keeps the rows, another dimension is refused, dropping removes everything."""
        run(store.ensure("i", DIMENSIONS))
        assert not any(run(every_leg(store, "alpha", 1)))
        run(store.replace("i", table(document("a", ["alpha"])), stale=[]))
        run(store.ensure("i", DIMENSIONS))
        assert (run(store.count("i")), run(store.indexes())) == (1, ["i"])
        with pytest.raises(ConfigurationError):
            run(store.ensure("i", DIMENSIONS + 1))
        run(store.drop("i"))
        run(store.ensure("i", DIMENSIONS + 1))
        assert run(store.count("i")) == 0
        run(store.ping())

    def test_vector_leg(self, filled: VectorStore) -> None:
        """Cosine similarity, best first, with everything a citation needs."""
        hits = run(vector(filled, 11))
        assert hits[0].text == "beta rivers"
        assert hits[0].score == pytest.approx(1, abs=1e-5)
        assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
        for h, seed in [(h, 20 if h.uri == "b.md" else 10 + h.ordinal) for h in hits]:
            assert h.score == pytest.approx(float(unit(11) @ unit(seed)), abs=1e-5)
        assert (hits[0].document_id, hits[0].acl, hits[0].page) == (doc_id("a.md"), ("public",), None)
        assert len(run(vector(filled, 11, k=2))) == 2

    def test_keyword_leg(self, filled: VectorStore) -> None:
        """Words rank, in any case; a text without known words finds nothing."""
        needs_keyword(filled)
        assert [h.uri for h in run(keyword(filled, "Wolves"))] == ["b.md", "a.md"]
        assert [h.text for h in run(keyword(filled, "rivers?"))] == ["beta rivers"]
        assert run(keyword(filled, "zebra")) == []

    @pytest.mark.parametrize(
        "text",
        [
            '"',
            "'",
            "title:alpha AND (",
            "+alpha -wolves",
            "alpha~2 OR *",
            "\\",
            "the of and",
            "?",
            "\n\t",
            "x" * 20_000,
            "wo*",
            "{}[]^",
            "a' OR 1=1 --",
            "\x00",
            "😀",
            " ".join(["wolves"] * 3000),
        ],
    )
    def test_text_is_words(self, filled: VectorStore, text: str) -> None:
        """The user's text is never a query language: nothing fails, nothing matches by operators."""
        needs_keyword(filled)
        hits = run(keyword(filled, text))
        words = set("".join(c if c.isalnum() else " " for c in text.lower()).split())
        assert all(words & {*h.text.split(), *h.title.split(".")} for h in hits)

    def test_a_leg_that_is_not_there(self, filled: VectorStore) -> None:
        """A store without a keyword leg says so to who asks for it, alone or beside the other."""
        if filled.capabilities.keyword:
            return
        for legs in (("keyword",), ("vector", "keyword")):
            request = SearchRequest(LOCAL_OPERATOR, 5, legs, text="wolves", vector=unit(1))  # type: ignore[arg-type]
            with pytest.raises(ValueError):
                run(filled.search("i", request))

    def test_chinese_is_found(self, filled: VectorStore) -> None:
        """A word inside a Chinese sentence is found, and ranks the text that holds it."""
        needs_keyword(filled)
        texts = ["集群中的容器编排与部署", "节点上的存储卷", "Pod 的生命周期"]
        run(filled.replace("i", table(document("zh.md", texts, language="zh")), stale=[]))
        assert [h.text for h in run(keyword(filled, "容器"))] == [texts[0]]
        assert run(keyword(filled, "什么是存储卷？"))[0].text == texts[1]

    def test_replace_is_the_whole_document(self, filled: VectorStore) -> None:
        """A shorter version leaves no tail; other documents stay; the old words are gone."""
        new = table(document("a.md", ["alpha lakes"], version="v2"), document("c.md", ["new one"]))
        run(filled.replace("i", new, stale=[doc_id("a.md")]))
        assert contents(filled) == {
            ("a.md", "v2", 0, "alpha lakes"),
            ("b.md", "v1", 0, "delta wolves wolves"),
            ("c.md", "v1", 0, "new one"),
        }
        if filled.capabilities.keyword:
            assert [h.uri for h in run(keyword(filled, "wolves"))] == ["b.md"]
            assert [h.text for h in run(keyword(filled, "lakes"))] == ["alpha lakes"]
        assert {h.version_id for h in run(vector(filled, 11)) if h.uri == "a.md"} == {"v2"}

    def test_replace_by_nothing_removes(self, filled: VectorStore) -> None:
        """A stale document without new rows vanishes, alone or beside others."""
        run(filled.replace("i", table(), stale=[doc_id("b.md"), doc_id("never there")]))
        assert {uri for uri, *_ in contents(filled)} == {"a.md"}
        run(filled.replace("i", table(document("d.md", ["x"])), stale=[doc_id("a.md")]))
        assert {uri for uri, *_ in contents(filled)} == {"d.md"}
        run(filled.replace("i", table(), stale=[]))
        assert run(filled.count("i")) == 1

    def test_replace_twice_equals_once(self, filled: VectorStore) -> None:
        """A caller that does not know how the first call ended repeats it, with or without ``stale``."""
        before = contents(filled)
        again = table(
            document("a.md", ["alpha wolves", "beta rivers", "gamma hills"], seed=10),
            document("b.md", ["delta wolves wolves"], seed=20),
        )
        run(filled.replace("i", again, stale=[]))
        assert contents(filled) == before
        run(filled.replace("i", again, stale=[doc_id("a.md"), doc_id("b.md")]))
        assert contents(filled) == before
        changed = table(document("a.md", ["alpha"], version="v2"))
        for _ in range(2):
            run(filled.replace("i", changed, stale=[]))
            assert run(filled.count("i", [doc_id("a.md")])) == 1

    def test_many_documents_at_once(self, filled: VectorStore) -> None:
        """Thousands of documents in one call, of which half exist and some vanish."""
        fifth = self.documents_at_once // 5
        names = [f"d{n}" for n in range(5 * fifth)]
        run(filled.replace("i", table(*(document(n, ["one", "two"]) for n in names[: 3 * fifth])), stale=[]))
        later = table(*(document(n, ["three"], version="v2") for n in names[fifth:]))
        run(filled.replace("i", later, stale=[doc_id(n) for n in names[: 3 * fifth]]))
        assert run(filled.count("i")) == 4 * fifth + 4
        assert run(filled.count("i", [doc_id(n) for n in names])) == 4 * fifth
        assert run(filled.count("i", [doc_id(n) for n in names[:fifth]])) == 0

    def test_bad_rows(self, filled: VectorStore) -> None:
        """A chunk id twice is a bug of the caller and changes nothing."""
        before = contents(filled)
        rows = document("e.md", ["x"])
        with pytest.raises(ValueError):
            run(filled.replace("i", table(rows, rows), stale=[]))
        assert contents(filled) == before

    def test_delete(self, filled: VectorStore) -> None:
        """Every chunk goes, from both legs; absent documents are a no-op."""
        run(filled.delete("i", [doc_id("a.md"), doc_id("nowhere")]))
        run(filled.delete("i", []))
        assert {uri for uri, *_ in contents(filled)} == {"b.md"}
        for hits in run(every_leg(filled, "alpha wolves", 10)):
            assert {h.uri for h in hits} == {"b.md"}

    def test_get(self, filled: VectorStore) -> None:
        """Chunks come in the order asked; unknown ones are left out."""
        ids = [h.chunk_id for h in run(vector(filled, 11))]
        assert [h.chunk_id for h in run(filled.get("i", [*ids, "unknown"], LOCAL_OPERATOR))] == ids
        assert [h.chunk_id for h in run(filled.get("i", ids[::-1], LOCAL_OPERATOR))] == ids[::-1]
        assert run(filled.get("i", [], LOCAL_OPERATOR)) == []

    def test_scan(self, filled: VectorStore) -> None:
        """The columns asked for, of every row, with vectors when asked."""
        batches = list(filled.scan("i", ["chunk_id", "vector"]))
        assert sum(b.num_rows for b in batches) == 4
        assert all(b.schema.names == ["chunk_id", "vector"] for b in batches)

    def test_nobody_reads_across_tenant_or_acl(self, store: VectorStore) -> None:
        """In every way of reading, a principal sees exactly the rows of its tenant and groups (P10)."""
        run(store.ensure("i", DIMENSIONS))
        acls = [["public"], ["staff"], ["staff", "legal"], ["legal"], [], ["pub"], ["o'neil"]]
        rows = [
            document(f"{tenant}-{n}", ["secret wolves"], seed=n, tenant=tenant, acl=acl)
            for tenant in ("red", "blue", "")
            for n, acl in enumerate(acls)
        ]
        run(store.replace("i", table(*rows), stale=[]))
        ids = [r[0]["chunk_id"] for r in rows]
        groups = [(), ("staff",), ("legal", "other"), ("o'neil",), ("') OR true --",)]
        for tenant in ("red", "blue", "", "green", "red' OR 'a'='a"):
            for group in groups:
                principal = Principal(tenant, frozenset(group))
                allowed = {
                    r[0]["chunk_id"]
                    for r in rows
                    if r[0]["tenant"] == tenant and set(r[0]["acl"]) & ({"public"} | set(group))
                }
                everything = Or((Compare("source", "=", "docs"), Compare("uri", "=", "")))
                for hits in (
                    run(store.get("i", ids, principal)),
                    *run(every_leg(store, "wolves", 3, principal)),
                    *run(every_leg(store, "wolves", 3, principal, where=Not(Compare("source", "=", "none")))),
                    *run(every_leg(store, "wolves", 3, principal, where=everything)),
                ):
                    assert {h.chunk_id for h in hits} == allowed
        for hits in run(every_leg(store, "wolves", 3)):
            assert {h.chunk_id for h in hits} == set(ids)

    def test_permission_change(self, filled: VectorStore) -> None:
        """After a narrower ACL is indexed, nothing returns the chunk to those who lost it (P11)."""
        reader = Principal("default", frozenset({"staff"}))
        old = [h.chunk_id for h in run(vector(filled, 10, reader))]
        assert len(old) == 4
        narrow = document("a.md", ["alpha wolves"], version="v2", acl=["board"])
        run(filled.replace("i", table(narrow), stale=[doc_id("a.md")]))
        for hits in (
            *run(every_leg(filled, "alpha wolves", 10, reader)),
            run(filled.get("i", [*old, narrow[0]["chunk_id"]], reader)),
        ):
            assert {h.uri for h in hits} == {"b.md"}

    def test_filters_agree_with_python(self, store: VectorStore) -> None:
        """Any filter tree over any values selects what a plain evaluation selects, in both legs."""

        @given(ROWS, st.lists(FILTERS, min_size=1, max_size=4))
        @hypothesis_settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        def check(rows: list[dict[str, Any]], trees: list[Filter]) -> None:
            asyncio.run(one(rows, trees))

        async def one(rows: list[dict[str, Any]], trees: list[Filter]) -> None:
            documents = [document(f"u{n}", ["wolves"], **row) for n, row in enumerate(rows)]
            await store.delete("i", [doc_id(f"u{n}") for n in range(8)])
            await store.replace("i", table(*documents), stale=[])
            for tree in trees:
                expected = {d[0]["uri"] for d in documents if matches(tree, d[0])}
                for hits in await every_leg(store, "wolves", 1, where=tree):
                    assert {h.uri for h in hits} == expected

        run(store.ensure("i", DIMENSIONS))
        check()

    def test_maintenance_changes_nothing_visible(self, filled: VectorStore) -> None:
        """Maintaining, forced or not, changes no answer; rows written afterwards are found in both legs."""
        before = contents(filled)
        for force in (False, True, True):
            assert isinstance(run(filled.maintain("i", force=force)), dict)
        assert contents(filled) == before
        if filled.capabilities.keyword:
            assert [h.uri for h in run(keyword(filled, "wolves"))] == ["b.md", "a.md"]
        run(filled.replace("i", table(document("late.md", ["late wolves"], seed=90)), stale=[]))
        for hits in run(every_leg(filled, "wolves", 90)):
            assert "late.md" in {h.uri for h in hits}
        assert run(vector(filled, 90))[0].uri == "late.md"
        assert run(filled.stats("i")).rows == 5

    def test_state_token_moves_with_every_change(self, filled: VectorStore) -> None:
        """Where a store has a token, it is steady while nothing changes and new after each change."""
        seen = [filled.state_token("i")]
        assert filled.state_token("i") == seen[0] and filled.state_token("unknown") is None
        if seen[0] is None:
            return
        for work in (
            filled.replace("i", table(document("a.md", ["x"], version="v2")), stale=[doc_id("a.md")]),
            filled.replace("i", table(document("new.md", ["x"])), stale=[]),
            filled.delete("i", [doc_id("b.md")]),
        ):
            run(work)
            run(vector(filled, 1))
            seen.append(filled.state_token("i"))
        assert len(set(seen)) == len(seen)

    def test_no_gap_and_no_mix(self, filled: VectorStore) -> None:
        """While a document is replaced, each search sees all of one version, the same in both legs (P2)."""
        versions = [document("live.md", ["tide " * (1 + v % 3)] * (3 + v % 2), version=f"v{v}") for v in range(40)]
        sizes = {f"v{n}": len(rows) for n, rows in enumerate(versions)}
        run(filled.replace("i", table(versions[0]), stale=[]))
        only = Compare("uri", "=", "live.md")
        asked: tuple[Leg, ...] = ("vector", "keyword") if filled.capabilities.keyword else ("vector",)

        async def main() -> int:
            done = asyncio.Event()
            seen: set[str] = set()

            async def write() -> None:
                try:
                    for rows in versions[1:]:
                        await filled.replace("i", table(rows), stale=[doc_id("live.md")])
                finally:
                    done.set()

            async def read() -> None:
                while not seen or not done.is_set():
                    request = SearchRequest(LOCAL_OPERATOR, 50, asked, "tide", unit(1), only)
                    legs = (await filled.search("i", request)).legs
                    ids = [sorted(h.chunk_id for h in legs[leg]) for leg in asked]
                    found = {h.version_id for leg in legs.values() for h in leg}
                    assert len(found) == 1 and ids[0] == ids[-1]
                    assert len(ids[0]) == sizes[found.copy().pop()]
                    seen.update(found)
                    await asyncio.sleep(0)

            await asyncio.gather(write(), read(), read())
            return len(seen)

        assert run(main()) >= 1
        assert run(filled.count("i", [doc_id("live.md")])) == sizes["v39"]

    def test_close_and_use_again(self, filled: VectorStore) -> None:
        """Closing twice is harmless, and the store opens again when it is used."""
        run(filled.aclose())
        run(filled.aclose())
        assert run(filled.count("i")) == 4
