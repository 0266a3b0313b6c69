"""Kill -9 of PostgreSQL, which holds the ledger, at random moments: of ingestions, and under query load."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_platform import telemetry
from rag_platform.ingestion.workbench import Workbench
from rag_platform.records import SourceSpec
from rag_platform_tests import harness
from rag_platform_tests.faults import version_reader
from rag_platform_tests.faults.editions import ACLS, EDITIONS, POISON, SMALL_CHUNKS, STAYING, by_uri, run
from rag_platform_tests.faults.query_load import Library
from rag_platform_tests.ledger import postgres_server
from rag_platform_tests.ledger.postgres_server import PostgresServer

pytestmark = [pytest.mark.slow]

SEEDS = range(20)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    pytest.importorskip("psycopg2")
    folder = postgres_server.binaries()
    if folder is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    with postgres_server.started(folder) as running:
        yield running


class Killer:
    """Kills the server once, at the moment that a seed chooses, and starts it again at once or later."""

    def __init__(self, server: PostgresServer, seed: int, effects: int, seconds: float) -> None:
        rng = random.Random(seed)
        self._server = server
        self._at_once = rng.random() < 0.5
        self._effect = rng.randint(1, effects) if seed % 2 else None
        self._when: Any = rng.choice(("before", "after"))
        self._after_s = rng.random() * seconds
        self._timer = threading.Timer(self._after_s, self.kill)
        self.fired = False

    def __str__(self) -> str:
        moment = f"{self._after_s:.2f} s" if self._effect is None else f"{self._when} effect {self._effect}"
        return f"{moment}, {'back at once' if self._at_once else 'away'}"

    def kill(self) -> None:
        self.fired = True
        self._server.kill()
        if self._at_once:
            self._server.start()

    def __enter__(self) -> Killer:
        if self._effect is None:
            self._timer.start()
        else:
            telemetry.arm(self._effect, self._when, self.kill)
        return self

    def __exit__(self, *_: object) -> None:
        telemetry.arm(None)
        self._timer.cancel()
        if self._effect is None:
            self._timer.join()
        if not self._server.is_up():
            self._server.start()


def test_killed_while_ingesting_the_next_run_ends_right(server: PostgresServer, tmp_path: Path) -> None:
    """Twenty times PostgreSQL dies somewhere in a run, and comes back while the run goes on or after it. The run
    fails as a dependency or completes; no document is blamed for it (P6), each one is wholly its old or its new
    version (P2, also for a reader who looks all the time), and the next run makes the index what an undisturbed
    one makes it (P1)."""
    tree = harness.Tree(tmp_path / "documents")
    wanted, editions = [], []
    for number, (documents, acl) in enumerate(zip(EDITIONS, ACLS, strict=True)):
        tree.become(documents)
        wanted.append(harness.expected(tmp_path / f"fresh{number}", [tree.spec(acl=acl)], **SMALL_CHUNKS))
        editions.append(by_uri(wanted[-1]))
    environment = {"RAG_LEDGER_URL": f"{server.url}postgres", **SMALL_CHUNKS}
    settings = harness.settings(tmp_path / "home", **environment)

    def turn(number: int) -> SourceSpec:
        tree.become(EDITIONS[number % 2])
        return tree.spec(acl=ACLS[number % 2])

    assert run(settings, turn(0), "first") is None
    with telemetry.recording() as effects:
        started = time.monotonic()
        assert run(settings, turn(1), "undisturbed") is None
        seconds, count = time.monotonic() - started, len(effects)
    failures, fired = 0, 0
    with version_reader.reading(settings.root, environment, STAYING, pause_s=0.05) as seen:
        for seed in SEEDS:
            spec = turn(seed)
            old, new = editions[(seed + 1) % 2], editions[seed % 2]
            with Killer(server, seed, count, seconds) as killer:
                error = run(settings, spec, f"killed{seed}")
            where = f"seed {seed}: {killer}: {error}"
            fired += killer.fired
            failures += error is not None
            assert error is None or error.dependency == "ledger", where
            with Workbench(settings) as bench:
                found = by_uri(harness.identified(bench))
                for uri in old.keys() | new.keys():
                    assert found.get(uri, set()) in (old.get(uri, set()), new.get(uri, set())), where
                assert {x.uri for x in bench.ledger.dead_letters.search(state="open")} <= {POISON}, where
            assert run(settings, spec, f"next{seed}") is None, where
            with Workbench(settings) as bench:
                assert harness.identified(bench) == wanted[seed % 2], where
                harness.check_invariants(bench)
                assert [x.uri for x in bench.ledger.dead_letters.search(state="open")] == [POISON], where
    assert seen["faults"] == [] and seen["searches"] > len(SEEDS)
    assert fired >= len(SEEDS) * 0.7 and failures >= len(SEEDS) * 0.3, "too few deaths to prove anything"


def test_killed_under_query_load_answers_go_on(server: PostgresServer, tmp_path: Path) -> None:
    """Twenty times PostgreSQL dies while two tenants ask without pause: every answer is full, right, their own and
    in time (P7, P10); afterwards the same passages are found as before (P15)."""
    url = postgres_server.create_database(server.url, "load")
    library = Library(tmp_path, {"RAG_LEDGER_URL": url})
    library.publish(1)
    with library.serving() as load:
        before = load.recall()
        with load.asking():
            for seed in SEEDS:
                rng = random.Random(seed)
                time.sleep(rng.random() * 0.5)
                server.kill()
                if seed % 2:
                    load.more(1)
                server.start()
                load.more(1)
        assert load.recall() == before
    assert load.degraded.keys() <= {"ledger"}, load.degraded
