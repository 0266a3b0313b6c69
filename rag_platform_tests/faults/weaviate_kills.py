"""One Weaviate server that is killed -9 at random moments of ingestions, and what must hold after each."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from rag_platform import telemetry
from rag_platform.backends.vector_stores.base import SearchRequest
from rag_platform.errors import DependencyError
from rag_platform.ingestion.workbench import Workbench
from rag_platform.records import LOCAL_OPERATOR, SourceSpec
from rag_platform_tests import harness
from rag_platform_tests.backends import weaviate_server
from rag_platform_tests.backends.weaviate_server import WeaviateServer
from rag_platform_tests.faults import version_reader
from rag_platform_tests.faults.editions import ACLS, EDITIONS, POISON, SMALL_CHUNKS, STAYING, by_uri, run

T = TypeVar("T")


def environment(server: WeaviateServer) -> dict[str, str]:
    return {
        "RAG_VECTOR_STORE": "weaviate",
        "RAG_WEAVIATE_URL": server.url,
        "RAG_WEAVIATE_GRPC": server.grpc,
        "RAG_WEAVIATE_TIMEOUT_S": "5",
    }


class Killer:
    """Kills the server once, a moment after the effect of the run that a seed chooses, and starts it again at once or
    after the run."""

    def __init__(self, server: WeaviateServer, seed: int, effects: int) -> None:
        rng = random.Random(seed)
        self._server = server
        self._at_once = rng.random() < 0.5
        self._at = 1 + rng.randrange(effects)
        self._after_s = rng.random() * 0.15
        self._timer = threading.Timer(self._after_s, self._kill)
        self.fired = False

    def __str__(self) -> str:
        return f"effect {self._at} + {self._after_s:.2f} s, {'back at once' if self._at_once else 'away'}"

    def _kill(self) -> None:
        self.fired = True
        self._server.kill()
        if self._at_once:
            self._server.restart()

    def __enter__(self) -> Killer:
        telemetry.arm(self._at, kill=self._timer.start)
        return self

    def __exit__(self, *_: object) -> None:
        telemetry.arm(None)
        if self._timer.ident is not None:
            self._timer.join()
        if self.fired and not self._at_once:
            self._server.restart()


def patiently(look: Callable[[], T]) -> T:
    """A server that says it is ready may refuse for another moment."""
    give_up = time.monotonic() + 60
    while True:
        try:
            return look()
        except DependencyError as e:
            assert time.monotonic() < give_up, str(e)
            time.sleep(0.1)


def found_by_searching(bench: Workbench) -> dict[str, Counter[str]]:
    """Return how many chunks of each document each leg finds."""
    release = bench.ledger.releases.serving()
    assert release is not None
    vector = np.full(bench.pipeline.embedder.dimensions, 0.05, np.float32)
    request = SearchRequest(LOCAL_OPERATOR, k=1000, legs=("vector", "keyword"), text="edition", vector=vector)
    legs = bench.run(bench.store.search(release.index_name, request)).legs
    for leg, hits in legs.items():
        faults = version_reader.faults_of(hits, set(STAYING))
        assert faults == [], f"{leg}: {faults}"
    return {leg: Counter(hit.uri for hit in hits) for leg, hits in legs.items()}


def killed_while_ingesting(program: Path, root: Path, seeds: range) -> tuple[int, int]:
    """One server's share, in a process of its own; returns how many runs were hit, and how many failed of it."""
    try:
        return _killed_while_ingesting(program, root, seeds)
    except DependencyError as e:  # cannot be sent to another process; the servers of the others would be left behind
        raise AssertionError(str(e)) from None


def _killed_while_ingesting(program: Path, root: Path, seeds: range) -> tuple[int, int]:
    tree = harness.Tree(root / "documents")
    wanted = []
    for number, (documents, acl) in enumerate(zip(EDITIONS, ACLS, strict=True)):
        tree.become(documents)
        wanted.append(harness.expected(root / f"fresh{number}", [tree.spec(acl=acl)], **SMALL_CHUNKS))
    editions = [by_uri(rows) for rows in wanted]
    failures, fired = 0, 0

    def turn(number: int) -> SourceSpec:
        tree.become(EDITIONS[number % 2])
        return tree.spec(acl=ACLS[number % 2])

    with weaviate_server.running(program) as server:
        settings = harness.settings(root / "home", **environment(server), **SMALL_CHUNKS)
        assert run(settings, turn(0), "first") is None
        assert run(settings, turn(1), "second") is None
        with telemetry.recording() as effects:  # from here on every text is parsed and embedded
            assert run(settings, turn(2), "undisturbed") is None
        for number, seed in enumerate(seeds, 1):
            spec = turn(number)
            old, new = editions[(number + 1) % 2], editions[number % 2]
            with Killer(server, seed, len(effects)) as killer:
                error = run(settings, spec, f"killed{seed}")
            where = f"seed {seed}: {killer}: {error}"
            fired += killer.fired
            failures += error is not None
            assert error is None or error.dependency == "vector_store:weaviate", where
            with Workbench(settings) as bench:
                found = by_uri(patiently(lambda bench=bench: harness.identified(bench)))
                for uri in old.keys() | new.keys():
                    assert found.get(uri, set()) in (old.get(uri, set()), new.get(uri, set())), where
                held = Counter({uri: len(rows) for uri, rows in found.items()})
                searched = patiently(lambda bench=bench: found_by_searching(bench))
                assert searched == {"vector": held, "keyword": held}, where
                assert {x.uri for x in bench.ledger.dead_letters.search(state="open")} <= {POISON}, where
            assert run(settings, spec, f"next{seed}") is None, where
            with Workbench(settings) as bench:
                assert harness.identified(bench) == wanted[number % 2], where
                held = Counter({uri: len(rows) for uri, rows in new.items()})
                assert found_by_searching(bench) == {"vector": held, "keyword": held}, where
                harness.check_invariants(bench)
                assert [x.uri for x in bench.ledger.dead_letters.search(state="open")] == [POISON], where
    return fired, failures
