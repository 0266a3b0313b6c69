"""P10 and P11 over random worlds: nothing that a reader may not read comes out of retrieval, answers, citations or
caches, neither before nor after documents went or permissions changed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from rag_platform.ingestion.workbench import Workbench
from rag_platform.query.question import Question
from rag_platform.query.service import QueryService
from rag_platform.records import PUBLIC_GROUP, Principal, SearchMode, SourceSpec
from rag_platform_tests import harness
from rag_platform_tests.backends import redis_server

pytestmark = [pytest.mark.slow]

TENANTS = ("acme", "acme-eu", "globex")
GROUPS = ("staff", "Staff", "legal", "staff,legal", "o'brien")
"""Chosen to be taken for one another by anything that joins, folds or quotes carelessly."""
MODES: tuple[SearchMode, ...] = ("hybrid", "vector", "keyword")
WORDINGS = (
    "What is the access code of the vault?",
    "Please tell me the access code of the vault.",
    "What's the access code for the vault?",
)
KINDS = ("miss", "exact", "semantic", "retrieved", "shown")
"""Replies that the property is about: answers by cache state, passages, citations opened."""
SLOTS = 4
"""Sources of a world; each has its tenant and ACL."""
MAX_DOCUMENTS = 3
_serial = itertools.count(1000)
_requests = itertools.count()


@dataclass(frozen=True)
class Shelf:
    """One source: who may read it, and how many documents it has."""

    tenant: str
    acl: tuple[str, ...]
    documents: int

    def readable(self, principal: Principal) -> bool:
        return self.tenant == principal.tenant and bool(set(self.acl) & principal.effective_groups)


World = Sequence[Shelf]

shelves = st.builds(
    Shelf,
    st.sampled_from(TENANTS),
    st.lists(st.sampled_from((*GROUPS, PUBLIC_GROUP)), min_size=1, max_size=2, unique=True).map(tuple),
    st.integers(0, MAX_DOCUMENTS),
)
worlds = st.lists(shelves, min_size=SLOTS, max_size=SLOTS)
own_groups = st.lists(st.sampled_from(GROUPS), min_size=1, max_size=2, unique=True).map(frozenset)


@st.composite
def readers(draw: st.DrawFn) -> list[Principal]:
    """Two of one tenant in different groups, and a stranger in the same groups: whoever is most easily mistaken."""
    home, abroad = draw(st.permutations(TENANTS))[:2]
    first = draw(own_groups)
    second = draw(own_groups.filter(lambda groups: groups != first))
    return [Principal(home, first), Principal(home, second), Principal(abroad, first)]


@dataclass
class Library:
    """A service over documents that a test rearranges, and what it must not say."""

    root: Path
    bench: Workbench
    service: QueryService
    runner: asyncio.Runner
    owners: dict[str, Shelf] = field(default_factory=dict)
    """Shelf by secret word, of the documents that exist now."""
    chunks: dict[str, str] = field(default_factory=dict)
    """Secret word by chunk id, also of chunks long gone."""
    secrets: set[str] = field(default_factory=set)
    seen: Counter[str] = field(default_factory=Counter)
    """How often each kind of reply held something: a test that sees nothing proves nothing."""

    def arrange(self, world: World, *, keep_text: bool) -> None:
        """Index a world. With ``keep_text`` documents that stay keep their words, so that only permissions move."""
        words = {}
        specs = []
        for slot, shelf in enumerate(world):
            tree = harness.Tree(self.root / f"shelf{slot}")
            documents: dict[str, str | bytes] = {}
            for number in range(shelf.documents):
                path = tree.root / f"vault{number}.md"
                if keep_text and path.exists():
                    text = path.read_text()
                    word = text.split("is ")[1].split(".")[0]
                else:
                    word = f"ZX{next(_serial)}"
                    text = f"The access code of the vault is {word}. Keep the access code of the vault to yourself.\n"
                documents[path.name] = text
                words[word] = shelf
            tree.become(documents)
            specs.append(SourceSpec(f"shelf{slot}", str(tree.root), tenant=shelf.tenant, acl=shelf.acl))
        harness.ingest(self.bench, specs, f"run{next(_requests)}", approve=True)
        self.owners = words
        self.secrets |= words.keys()
        for row in harness.index_rows(self.bench, "chunk_id", "text"):
            self.chunks[row["chunk_id"]] = next(w for w in self.secrets if w in row["text"])

    def forbidden(self, principal: Principal) -> set[str]:
        """Secret words that this reader must not see: of others, and of documents that are gone."""
        return {w for w in self.secrets if w not in self.owners or not self.owners[w].readable(principal)}

    async def interrogate(self, readers: Sequence[Principal]) -> None:
        """Ask everything as each reader in turn, twice, so that caches fill and are hit, and check every reply."""
        for reader, mode, wording, _ in itertools.product(readers, MODES, WORDINGS, range(2)):
            await self.check_answer(reader, mode, wording)
        for reader in readers:
            await self.check_retrieval(reader)
            await self.check_citations(reader)

    async def check_answer(self, reader: Principal, mode: SearchMode, wording: str) -> None:
        answer = await self.service.answer(_question(wording, reader, mode))
        told = f"{answer.answer} {' '.join(c.quote for c in answer.citations)}"
        assert not [w for w in self.forbidden(reader) if w in told], (reader, mode, answer)
        for citation in answer.citations:
            assert citation.chunk_id in self.chunks
            assert self.owners[self.chunks[citation.chunk_id]].readable(reader)
        if answer.citations:
            self.seen[answer.cache] += 1

    async def check_retrieval(self, reader: Principal) -> None:
        for mode in MODES:
            found = await self.service.retrieve(_question(WORDINGS[0], reader, mode, k=50))
            told = {self.chunks[h.chunk_id] for h in found.hits}
            assert not told & self.forbidden(reader), (reader, mode)
            assert all(h.tenant == reader.tenant and set(h.acl) & reader.effective_groups for h in found.hits)
            assert told == {w for w, shelf in self.owners.items() if shelf.readable(reader)}, "and everything allowed"
            self.seen["retrieved"] += len(told)

    async def check_citations(self, reader: Principal) -> None:
        forbidden = self.forbidden(reader)
        for chunk_id, word in self.chunks.items():
            shown = await self.service.citation(chunk_id, reader)
            assert shown is None or word not in forbidden, (reader, chunk_id)
            self.seen["shown"] += shown is not None


def _question(text: str, reader: Principal, mode: SearchMode, k: int | None = None) -> Question:
    return Question(text, reader, f"q{next(_requests)}", mode=mode, k=k, deadline_s=30)


@pytest.fixture(scope="module", params=["in_process", "redis"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    root = tmp_path_factory.mktemp("library")
    with contextlib.ExitStack() as stack:
        environment = {"RAG_CACHE": request.param, "RAG_QUERY_LOG": "off"}
        if request.param == "redis":
            binary = redis_server.vector_binary() or redis_server.plain_binary()
            if binary is None:
                pytest.skip("no Redis server is installed")
            environment["RAG_REDIS_URL"] = stack.enter_context(redis_server.running(binary)).url
            environment["RAG_REDIS_TIMEOUT_S"] = "5"  # whether it is fast is another test's question
        settings = harness.settings(root / "home", **environment)
        bench = stack.enter_context(Workbench(settings))
        runner = stack.enter_context(asyncio.Runner())
        service = QueryService(settings)
        made = Library(root, bench, service, runner)
        made.arrange([Shelf("nobody", ("nobody",), 1)] * SLOTS, keep_text=False)
        runner.run(service.start())
        yield made
        runner.run(service.aclose())


@given(before=worlds, after=worlds, readers=readers())
@examples(
    max_examples=4,
    phases=(Phase.generate,),  # each example stands on the one before: nothing to replay or to shrink
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_nothing_crosses_permissions(library: Library, before: World, after: World, readers: list[Principal]) -> None:
    """Whatever the documents, tenants, groups and readers: each reader sees all that is theirs in retrieval and
    nothing else anywhere (P10); as soon as a deletion or a permission change is indexed, nothing of what they lost
    comes back, not even an answer that was cached while they had it (P11)."""
    # Random readers rarely match random documents: each has one of their own at first.
    theirs = [Shelf(reader.tenant, (min(reader.groups),), 1) for reader in readers]
    library.arrange([*theirs, *before[len(theirs) :]], keep_text=False)
    library.runner.run(library.interrogate(readers))
    assert all(library.seen[kind] for kind in KINDS), f"too little was said to prove anything: {library.seen}"
    library.arrange(after, keep_text=True)
    library.runner.run(library.interrogate(readers))
