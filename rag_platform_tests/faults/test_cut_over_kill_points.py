"""Kill -9 at every durable effect of a cut-over, of the way back, and of a rebuild: whatever a dead run leaves,
the next one ends where it should."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_platform_tests import harness
from rag_platform_tests.faults.crashes import CrashRunner

ONE, TWO = harness.uris_in("5", 2)
DOCUMENTS = {ONE: "The first.", TWO: "The second."}
FEWER = {ONE: "The first."}
SECOND = {"RAG_VECTOR_STORE": "second"}

SCENARIOS: dict[str, tuple[list[dict[str, Any]], dict[str, str], dict[str, Any]]] = {
    # what is done before, the documents then, and what is killed
    "cut-over": ([{}], FEWER, {"environ": SECOND}),
    "way back": ([{}, {"environ": SECOND}], FEWER, {}),
    "rebuild": ([{"environ": SECOND}], DOCUMENTS, {"environ": SECOND, "rebuild": True}),
}


@pytest.fixture(scope="module")
def runner() -> Iterator[CrashRunner]:
    with CrashRunner() as started:
        yield started


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_anywhere_the_next_run_ends_right(runner: CrashRunner, tmp_path: Path, scenario: str) -> None:
    """For every effect n, killed just before it (nothing durable happens between one effect and the next, so that is
    also just after the one before): the next run ends with the searchable set, the replica and the ledger of an
    undisturbed run (P1)."""
    before, documents, killed = SCENARIOS[scenario]
    tree = harness.Tree(tmp_path / "documents")
    tree.become(DOCUMENTS)
    prepared = tmp_path / "prepared"
    base = {"root": str(tree.root), "acl": ["staff"]}
    for n, order in enumerate(before):
        runner.run(**base, home=str(prepared), run_id=f"before{n}", **order)
    tree.become(documents)

    def copy(name: str) -> Path:
        home = tmp_path / name
        shutil.copytree(prepared, home)
        return home

    undisturbed = runner.run(**base, home=str(copy("undisturbed")), run_id="whole", **killed)
    assert {row[5] for row in undisturbed["state"]["rows"]} == set(documents)
    effects = undisturbed["effects"]
    assert any(name.startswith("store:") for name in effects)
    cases = range(1, len(effects) + 1)
    for pair in (cases[i : i + 2] for i in range(0, len(cases), 2)):  # two homes at a time, one for each core
        homes = [copy(str(n)) for n in pair]
        dead = runner.at_once(
            *(
                {**base, "home": str(home), "run_id": "killed", "kill_at": n, **killed}
                for home, n in zip(homes, pair, strict=True)
            )
        )
        resumed = runner.at_once(*({**base, "home": str(home), "run_id": "resumed", **killed} for home in homes))
        for n, corpse, answer in zip(pair, dead, resumed, strict=True):
            where = f"killed before effect {n}, {effects[n - 1]}"
            assert corpse["killed"], where
            assert answer["state"] == undisturbed["state"], where
        for home in homes:
            shutil.rmtree(home)
