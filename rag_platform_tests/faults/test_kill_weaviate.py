"""Kill -9 of Weaviate, which holds the index, at random moments: of ingestions, and under query load."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from rag_platform_tests.backends import weaviate_server
from rag_platform_tests.faults.query_load import Library
from rag_platform_tests.faults.weaviate_kills import environment, killed_while_ingesting

pytestmark = [pytest.mark.slow]

SEEDS = range(20)
LANES = 4
"""Servers with a home each: most of a run waits for one to start."""


@pytest.fixture(scope="module")
def program() -> Path:
    found = weaviate_server.binary()
    if found is None:
        pytest.skip(weaviate_server.CURE)
    return found


def test_killed_while_ingesting_the_next_run_ends_right(program: Path, tmp_path: Path) -> None:
    """Twenty times Weaviate dies somewhere in a run, and comes back while the run goes on or after it. The run fails
    as a dependency or completes; no document is blamed for it (P6), each one is wholly its old or its new version in
    both legs (P2), and the next run makes the index and its replica what an undisturbed one makes them (P1)."""
    shares = [SEEDS[lane::LANES] for lane in range(LANES)]
    # Processes: gRPC shares one poller between all event loops of a process, and logs when they get in each other's way.
    with ProcessPoolExecutor(LANES, mp_context=multiprocessing.get_context("spawn")) as pool:
        roots = [tmp_path / str(lane) for lane in range(LANES)]
        for root in roots:
            root.mkdir()
        results = list(pool.map(killed_while_ingesting, [program] * LANES, roots, shares))
    fired, failures = (sum(column) for column in zip(*results, strict=True))
    assert fired >= len(SEEDS) * 0.8 and failures >= len(SEEDS) * 0.3, f"too few deaths to prove anything: {results}"


def test_killed_under_query_load_answers_go_on(program: Path, tmp_path: Path) -> None:
    """Twenty times Weaviate dies, away for a moment or for longer, while two tenants ask without pause: every answer is
    right, their own, and in time (P7, P10), by words alone while it is away; afterwards answers are full again and the
    same passages are found as before (P15)."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(weaviate_server.running(program))
        library = Library(tmp_path, environment(server))
        library.publish(1)
        load = stack.enter_context(library.serving())
        load.modes = frozenset({"full", "keyword_only"})
        before = load.recall()
        with load.asking():
            for seed in SEEDS:
                rng = random.Random(seed)
                time.sleep(rng.random() * 0.5)
                server.kill()
                load.more(1 + seed % 3)
                server.restart()
                load.until_full()
        assert load.recall() == before
    assert load.degraded.keys() == {"vector_store"}, load.degraded
