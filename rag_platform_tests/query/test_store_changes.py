"""Questions while the vector store is away, cannot rank by words, or is exchanged for another."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rag_platform.backends.vector_stores.lancedb import LanceVectorStore
from rag_platform.commands.retrieve import open_retriever
from rag_platform.errors import DependencyError
from rag_platform.ingestion.stages.index import index
from rag_platform.ingestion.stages.snapshot import snapshot
from rag_platform.ingestion.workbench import Workbench
from rag_platform.query.question import Question
from rag_platform.query.readiness import answerable
from rag_platform.query.service import QueryService, Unanswerable
from rag_platform.records import LOCAL_OPERATOR, Principal
from rag_platform_tests import harness
from rag_platform_tests.backends.memory_store import MemoryVectorStore
from rag_platform_tests.backends.server_store import ServerStore

T = TypeVar("T")
STAFF, EVERYBODY = Principal("default", frozenset({"staff"})), Principal("default")
_ids = itertools.count()

OPEN = {"keys.md": "The signing key is rotated every 90 days.", "garden.md": "Bees live in the roof garden."}
SECRET = {"salaries.md": "The salary band of an engineer starts at 91,000 euros."}


def asked(text: str, principal: Principal = EVERYBODY, **more: Any) -> Question:
    return Question(text, principal, f"request-{next(_ids)}", use_cache=False, **more)


class Home:
    """One RAG_HOME with a public and a staff source, indexed in a server store."""

    def __init__(self, root: Path, *, keyword: bool = True) -> None:
        self.settings = dataclasses.replace(
            harness.settings(root / "home"), vector_store="second", reranker="none", release_poll_s=0.02
        )
        self.inner = LanceVectorStore(str(root / "second"))
        self.keyword = keyword
        self.open, self.secret = harness.Tree(root / "open"), harness.Tree(root / "secret")
        self.open.become(OPEN)
        self.secret.become(SECRET)

    @property
    def specs(self) -> list[Any]:
        return [self.open.spec(), self.secret.spec("hr", acl=("staff",))]

    def store(self) -> ServerStore:
        """A client of the server: one for each process, as it were."""
        return ServerStore(LanceVectorStore(str(self.inner._url)), keyword=self.keyword)

    def bench(self, **changes: Any) -> Workbench:
        return Workbench(dataclasses.replace(self.settings, **changes), {"second": self.store()})

    def ingest(self, run_id: str, **changes: Any) -> None:
        with self.bench(**changes) as bench:
            harness.ingest(bench, self.specs, run_id)

    def using(self, work: Callable[[QueryService, ServerStore], Awaitable[T]], **changes: Any) -> T:
        async def run() -> T:
            store = self.store()
            settings = dataclasses.replace(self.settings, **changes)
            service = QueryService(settings, stores={"second": store})
            try:
                return await work(service, store)
            finally:
                await service.aclose()
                await store.aclose()

        return asyncio.run(run())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("server"))
    made.ingest("r1")
    return made


@pytest.fixture(scope="module")
def wordless(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Its store has no keyword leg."""
    made = Home(tmp_path_factory.mktemp("wordless"), keyword=False)
    made.ingest("r1")
    return made


def test_words_are_found_while_the_store_is_away(home: Home) -> None:
    """The answer is by words alone, says so and why, leads to its citation, and is full again afterwards."""

    async def work(service: QueryService, store: ServerStore) -> None:
        store.away = True
        answer = await service.answer(asked("How often is the signing key rotated?"))
        assert "90 days" in answer.answer and answer.mode == "keyword_only"
        assert [(d.stage, d.reason) for d in answer.degraded] == [("vector_store", "DependencyError")]
        found = await service.retrieve(asked("signing key"))
        assert found.mode == "keyword" and found.hits[0].uri == "keys.md"
        span = await service.citation(answer.citations[0].chunk_id, EVERYBODY)
        assert span is not None and "90 days" in span.hit.text
        states = await service.ready()
        assert (states["vector_store"], states["keyword_replica"]) == ("DependencyError", "ok") and answerable(states)
        store.away = False
        for _ in range(50):
            if (await service.answer(asked("How often is the signing key rotated?"))).mode == "full":
                break
            await asyncio.sleep(0.1)  # the breaker's pause
        else:
            pytest.fail("not full again")

    home.using(work)


def test_the_replica_keeps_the_permissions(home: Home) -> None:
    """In the outage, too, nobody finds what is not theirs (P10)."""

    async def work(service: QueryService, store: ServerStore) -> None:
        store.away = True
        question = "Where does the salary band of an engineer start?"
        assert "91,000" in (await service.answer(asked(question, STAFF))).answer
        denied = await service.retrieve(asked(question))
        assert "hr" not in {h.source for h in denied.hits}
        [hit] = [h for h in (await service.retrieve(asked(question, STAFF))).hits if h.source == "hr"]
        assert await service.citation(hit.chunk_id, EVERYBODY) is None

    home.using(work)


def test_what_was_taken_back_is_not_found_in_a_replica_that_is_behind(tmp_path: Path) -> None:
    """The index has lost a document and narrowed another's readers, the replica does not know yet (P11)."""
    home = Home(tmp_path)
    home.ingest("r1")
    home.open.delete("garden.md")
    with home.bench() as bench:
        specs = [home.open.spec(acl=("staff",)), home.specs[1]]
        snapshot(bench, specs, bench.bucket_names, run_id="r2", approve_mass_change=True)
        index(bench, bench.bucket_names, run_id="r2")

    async def work(service: QueryService, store: ServerStore) -> None:
        store.away = True
        for text in ("bees in the roof garden", "signing key rotated"):
            assert (await service.retrieve(asked(text, STAFF))).hits == []
            assert (await service.retrieve(asked(text))).hits == []

    home.using(work)


def test_without_a_replica_an_outage_is_said(home: Home, tmp_path: Path) -> None:
    """No answer is invented when none is kept, or when it is not there."""

    async def work(service: QueryService, store: ServerStore) -> None:
        store.away = True
        with pytest.raises(Unanswerable):
            await service.answer(asked("How often is the signing key rotated?"))

    home.using(work, keyword_replica_url="none")
    home.using(work, keyword_replica_url=str(tmp_path / "nowhere"))


def test_a_store_without_words_takes_them_from_the_replica(wordless: Home) -> None:
    """Hybrid and keyword questions are whole and no degradation; without the replica hybrid goes on by meaning."""

    async def work(service: QueryService, store: ServerStore) -> None:
        hybrid = await service.answer(asked("How often is the signing key rotated?"))
        assert (hybrid.mode, hybrid.degraded) == ("full", []) and "90 days" in hybrid.answer
        found = await service.retrieve(asked("signing key rotated"))
        assert set(found.legs) == {"vector", "keyword"}
        assert [h.uri for h in found.legs["keyword"]] == ["keys.md"] and found.mode == "hybrid"
        by_words = await service.retrieve(asked("signing key rotated", mode="keyword"))
        assert (by_words.mode, by_words.degraded) == ("keyword", ())
        assert "hr" not in {h.source for h in (await service.retrieve(asked("salary band"))).hits}
        store.away = True
        answer = await service.answer(asked("How often is the signing key rotated?"))
        assert (answer.mode, [d.stage for d in answer.degraded]) == ("keyword_only", ["vector_store"])

    wordless.using(work)

    async def lame(service: QueryService, _: ServerStore) -> None:
        found = await service.retrieve(asked("signing key rotated"))
        assert (found.mode, [d.stage for d in found.degraded]) == ("vector", ["keyword_replica"]) and found.hits

    wordless.using(lame, keyword_replica_url="none")


def test_the_command_line_does_the_same(wordless: Home) -> None:
    """rag retrieve asks the store of the serving release, whatever the setting, and the replica for words."""
    with wordless.bench(vector_store="lancedb") as bench:
        name, retriever = open_retriever(bench)
        found = bench.run(retriever.retrieve(name, "signing key rotated", LOCAL_OPERATOR, 5))
        assert set(found.legs) == {"vector", "keyword"} and found.hits[0].uri == "keys.md"
    with wordless.bench(keyword_replica_url="none") as bench:
        name, retriever = open_retriever(bench)
        with pytest.raises(DependencyError, match="by vector"):
            bench.run(retriever.retrieve(name, "signing key", LOCAL_OPERATOR, 5))
        assert bench.run(retriever.retrieve(name, "signing key", LOCAL_OPERATOR, 5, "vector")).hits


def test_a_running_service_follows_the_release_from_store_to_store(tmp_path: Path) -> None:
    """There and back twice under questions: every one is answered in full by the release of its moment, none
    fails (P14); the store that is left is closed, and opened again when it comes back."""
    home = Home(tmp_path)
    shared = MemoryVectorStore()
    settings = dataclasses.replace(home.settings, vector_store="lancedb")
    rounds = ("lancedb", "third", "lancedb", "third")

    def ingest(store: str, run_id: str) -> str:
        with Workbench(dataclasses.replace(settings, vector_store=store), {"third": shared}) as bench:
            counters = harness.ingest(bench, home.specs, run_id)
            assert run_id == "r0" or (counters["parsed"], counters["embedded"]) == (0, 0)
            return bench.release_id

    ids = [ingest(rounds[0], "r0")]
    done = threading.Event()

    given_up = threading.Event()
    answered: list[str] = []

    def move() -> None:
        try:
            for n, store in enumerate(rounds[1:], 1):
                while answered[-1:] != ids[-1:] and not given_up.wait(0.01):
                    pass  # until the release of the last round has answered
                ids.append(ingest(store, f"r{n}"))
        finally:
            done.set()

    async def main() -> None:
        service = QueryService(settings, stores={"third": shared})
        await service.start()
        mover = threading.Thread(target=move)
        mover.start()
        try:
            while not done.is_set() or answered[-1:] != ids[-1:]:
                answer = await service.answer(asked("How often is the signing key rotated?", deadline_s=30.0))
                assert "90 days" in answer.answer
                assert (answer.mode, answer.degraded) == ("full", []), answer
                answered.append(answer.release_id)
                await asyncio.sleep(0.01)
            assert set(service._stores._opened) == {"third"}
        finally:
            given_up.set()
            await asyncio.to_thread(mover.join)
            await service.aclose()

    asyncio.run(asyncio.wait_for(main(), 120))
    assert ids == [ids[0], ids[1]] * 2 and ids[0] != ids[1]
    assert [k for k, _ in itertools.groupby(answered)] == ids


def test_a_store_that_cannot_be_opened_here_is_an_outage(home: Home) -> None:
    """A release in a store that this process does not know: words answer, and readiness names the cause."""

    async def main() -> None:
        service = QueryService(dataclasses.replace(home.settings, vector_store="lancedb"))
        try:
            answer = await service.answer(asked("How often is the signing key rotated?"))
            assert answer.mode == "keyword_only" and "90 days" in answer.answer
            assert (await service.ready())["vector_store"] == "DependencyError"
        finally:
            await service.aclose()

    asyncio.run(main())
