"""Two tenants who ask the real ``rag serve`` about the same machines without pause, each with facts of their own."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rag_platform.ingestion.workbench import Workbench
from rag_platform.records import PUBLIC_GROUP, SourceSpec
from rag_platform_tests import harness
from rag_platform_tests.faults import corpus
from rag_platform_tests.faults.background import Background
from rag_platform_tests.faults.corpus import Asked
from rag_platform_tests.faults.platform_process import Api, Platform

TENANTS = ("acme", "globex")
DEADLINE_S = 5.0
PAUSE_S = 0.08
"""Between two questions: a steady rate that leaves the machine to others."""
QUESTIONS = 12
PATIENCE_S = 60.0


@dataclass
class Library:
    """A RAG_HOME with the corpus of each tenant, and a key of each.

    Args:
        root: an empty folder.
        environment: settings beside the defaults of the local models.
    """

    root: Path
    environment: Mapping[str, str]
    keys: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with self._bench() as bench:
            for tenant in TENANTS:
                _, self.keys[tenant] = bench.ledger.keys.create(name=tenant, tenant=tenant, groups=(PUBLIC_GROUP,))

    def publish(self, edition: int) -> None:
        """Index an edition of everybody's documents: all their numbers differ from those of any other."""
        specs = []
        for tenant in TENANTS:
            tree = harness.Tree(self.root / tenant)
            tree.become({uri: renumber(text, tenant, edition) for uri, text in corpus.documents().items()})
            specs.append(SourceSpec(tenant, str(tree.root), tenant=tenant, acl=(PUBLIC_GROUP,)))
        with self._bench() as bench:
            harness.ingest(bench, specs, f"edition{edition}")

    @contextlib.contextmanager
    def serving(self) -> Iterator[Load]:
        """Run ``rag serve`` on it, once it answers in full."""
        environment = {"RAG_HOME": str(self.root / "home"), "RAG_RERANKER": "none", **self.environment}
        with Platform(self.root / "home", {}, environment).serving() as api:
            load = Load(api, self.keys)
            api.authorize(self.keys[TENANTS[0]])
            api.until_full("How heavy is the Larch pump?", deadline_s=20, use_cache=False)
            yield load

    def _bench(self) -> Workbench:
        return Workbench(harness.settings(self.root / "home", **self.environment))


class Load:
    """Asks one server.

    Attributes:
        editions: of the documents, of which an answer may be right now.
        modes: in which answers may come.
        asked: number of answers that were checked.
        full: number of answers of them with nothing missing.
        degraded: how often each stage was declared to be missing.
        caches: how often an answer came from each cache, or from none.
    """

    def __init__(self, api: Api, keys: Mapping[str, str]) -> None:
        self._api, self._keys = api, keys
        self._questions = list(itertools.islice(corpus.questions(), 0, None, 72 // QUESTIONS))
        self.editions: frozenset[int] = frozenset({1})
        self.modes: frozenset[str] = frozenset({"full"})
        self.full = 0
        self.asked = 0
        self.degraded: Counter[str] = Counter()
        self.caches: Counter[str] = Counter()
        self._background = Background(self._ask_next, PAUSE_S)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Ask during the block; fails with the first answer that is not right, not theirs, or late."""
        with self._background.running():
            yield

    def _ask_next(self, number: int) -> None:
        asked = self._questions[number // len(TENANTS) % len(self._questions)]
        self.ask(TENANTS[number % len(TENANTS)], asked, fresh=number % 3 == 0)

    def ask(self, tenant: str, asked: Asked, *, fresh: bool = False) -> None:
        """Ask one question as somebody of a tenant, and check the answer; ``api`` checks that it comes in time."""
        before = self.editions
        self._api.authorize(self._keys[tenant])
        reply = self._api.ask(asked.text, deadline_s=DEADLINE_S, use_cache=not fresh)
        allowed = before | self.editions
        assert reply.status == 200, reply
        body = reply.body
        told = " ".join([body["answer"], *(c["quote"] for c in body["citations"])])
        right = {renumber(asked.fact, tenant, e) for e in allowed}
        assert any(c["uri"] == asked.uri and fact in c["quote"] for c in body["citations"] for fact in right), (
            tenant,
            reply,
        )
        leads = tuple(f"{TENANTS.index(tenant) + 1}{e}" for e in allowed)
        assert all(n.startswith(leads) for n in re.findall(r"\d{6,}", told)), (tenant, reply)
        assert body["mode"] in self.modes, reply
        self.asked += 1
        self.full += reply.is_full
        self.degraded.update(reply.degraded.keys())
        self.caches[body["cache"]] += 1

    def more(self, count: int) -> None:
        """Wait for answers to ``count`` questions that are asked from now on."""
        self._until(lambda before=self.asked: self.asked > before + count, "no more answers come")

    def until_full(self) -> None:
        """Wait until one more answer comes with nothing missing."""
        self._until(lambda before=self.full: self.full > before, "answers are not full again")

    def until_cached(self) -> None:
        """Wait until one more answer comes from the cache: it is used again."""
        self._until(lambda before=self.caches["exact"]: self.caches["exact"] > before, "the cache is not used again")

    def _until(self, condition: Callable[[], bool], problem: str) -> None:
        give_up = time.monotonic() + PATIENCE_S
        while not condition():
            self._background.check()
            assert time.monotonic() < give_up, f"{problem}: {self.caches}"
            time.sleep(0.02)

    def recall(self) -> list[tuple[str, str, bool]]:
        """Whether the right document is the first that is found, for each question of each tenant."""
        found = []
        for tenant, asked in itertools.product(TENANTS, self._questions):
            self._api.authorize(self._keys[tenant])
            reply = self._api.ask(asked.text, deadline_s=DEADLINE_S, path="/v1/retrieve", k=3)
            assert reply.status == 200, reply
            found.append((tenant, asked.text, reply.body["results"][0]["uri"] == asked.uri))
        return found


def renumber(text: str, tenant: str, edition: int) -> str:
    """Make every number of a text one of this tenant and edition: 84 becomes 110084 or 210084, and so on."""
    lead = f"{TENANTS.index(tenant) + 1}{edition}"
    return re.sub(r"\d+", lambda m: f"{lead}{int(m[0]):04d}", text)
