"""Kill -9 at every durable effect of a run: whatever a dead run leaves, the next run ends where it should."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_platform_tests import harness
from rag_platform_tests.faults.crashes import CrashRunner

ONE, TWO, THREE = harness.uris_in("5", 3)
FOUR, FIVE, SIX = harness.uris_in("e", 3)
SECTIONS = "\n\n".join(f"## Part {n}\n\n" + f"Words about subject {n}. " * 30 for n in range(4))

FIRST: dict[str, str] = {ONE: SECTIONS, TWO: "The second.", FOUR: "The fourth.", FIVE: "The second.\n"}
"""Two and five share a text but not their bytes: two fetchers that store the same bytes at once would make the
number of effects a matter of chance."""

UPDATED = {
    ONE: SECTIONS.replace("subject 2", "matter 2"),
    THREE: "The fourth.",
    FIVE: "The second.\n",
    SIX: "Brand new.",
}
"""One changed, two deleted, four renamed to three, six new; all under another ACL."""
POISONED = FIRST | {TWO: "", SIX: " \n"}
"""Two served before and now unreadable (parse), six never readable (chunk)."""

SCENARIOS: dict[str, tuple[dict[str, str] | None, dict[str, str], list[str]]] = {
    "first": (None, FIRST, []),
    "update": (FIRST, UPDATED, []),
    "dead letter": (FIRST, POISONED, [TWO, SIX]),
}


@pytest.fixture(scope="module")
def runner() -> Iterator[CrashRunner]:
    with CrashRunner() as started:
        yield started


def _texts(answer: dict[str, Any]) -> set[str]:
    return {row[-1] for row in answer["state"]["rows"]}


def _embedded_texts(home: Path) -> int:
    """Count the committed vectors of a home, without opening (and so migrating) its ledger."""
    with contextlib.closing(sqlite3.connect(home / "ledger.sqlite")) as connection:
        try:
            return int(connection.execute("SELECT COUNT(*) FROM artifacts WHERE stage = 'embed'").fetchone()[0])
        except sqlite3.OperationalError:
            return 0  # no table yet


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_anywhere_the_next_run_ends_right(runner: CrashRunner, tmp_path: Path, scenario: str) -> None:
    """For every effect n, killed just before it, and just after it where it lies outside the ledger (after a ledger
    commit nothing durable happens until the next effect, so that is the same death): the next run makes the searchable set what an
    undisturbed run makes it, no ghost, nothing missing, ledger and index equal, every document accounted for,
    and no text embedded that was already committed (P1)."""
    before, after, poison = SCENARIOS[scenario]
    tree = harness.Tree(tmp_path / "documents")
    prepared = tmp_path / "prepared"
    acl = ["staff"]
    known: set[str] = set()
    if before is not None:
        tree.become(before)
        known = _texts(runner.run(home=str(prepared), root=str(tree.root), acl=acl, run_id="first"))
        acl = ["legal"]
    else:
        prepared.mkdir()
    tree.become(after)

    def order(home: Path, run_id: str, **kill: Any) -> dict[str, Any]:
        return {"home": str(home), "root": str(tree.root), "acl": acl, "run_id": run_id, **kill}

    def copy(name: str) -> Path:
        home = tmp_path / name
        shutil.copytree(prepared, home)
        return home

    undisturbed = runner.run(**order(copy("undisturbed"), "whole"))
    assert undisturbed["state"]["letters"] == sorted(poison)
    assert undisturbed["state"]["standing"] == [len(after), len(after) - len(poison), len(poison), 0]
    assert {uri for row in undisturbed["state"]["rows"] for uri in [row[5]]} == set(after) - (
        {SIX} if poison else set()
    )
    assert undisturbed["counters"]["embedded"] == len(_texts(undisturbed) - known)
    effects = undisturbed["effects"]
    cases = [(n, "before") for n in range(1, len(effects) + 1)]
    cases += [(n, "after") for n, name in enumerate(effects, 1) if not name.startswith("ledger:")]
    cases.append((len(effects), "after"))
    # Two homes at a time, one for each core.
    for pair in (cases[i : i + 2] for i in range(0, len(cases), 2)):
        homes = [copy(f"{n}-{when}") for n, when in pair]
        killed = runner.at_once(
            *(order(home, "killed", kill_at=n, when=when) for home, (n, when) in zip(homes, pair, strict=True))
        )
        kept = {case: _embedded_texts(home) for case, home in zip(pair, homes, strict=True)}
        resumed = runner.at_once(*(order(home, "resumed") for home in homes))
        for (n, when), dead, answer in zip(pair, killed, resumed, strict=True):
            where = f"killed {when} effect {n}, {effects[n - 1]}"
            assert dead["killed"], where
            assert answer["state"] == undisturbed["state"], where
            assert answer["counters"]["embedded"] == _embedded_texts(tmp_path / "undisturbed") - kept[n, when], where
        for home in homes:
            shutil.rmtree(home)


@pytest.mark.slow
def test_two_processes_at_once_and_one_dies(runner: CrashRunner, tmp_path: Path) -> None:
    """Two processes ingest the same tree at once, one of them is killed somewhere: the other ends right."""
    tree = harness.Tree(tmp_path / "documents")
    home = tmp_path / "home"
    for round_, kill_at in enumerate((None, 8, 20)):
        tree.become({uri: f"Edition {round_} of {uri}." for uri in (ONE, TWO, FOUR, FIVE)})
        base = {"home": str(home), "root": str(tree.root), "acl": ["public"]}
        one, two = runner.at_once(
            base | {"run_id": f"one{round_}", "kill_at": kill_at}, base | {"run_id": f"two{round_}"}
        )
        # The first may have been left too little to do to reach the effect at which it would die.
        assert not two["killed"] and (kill_at is not None or not one["killed"])
        last = runner.run(**base, run_id=f"check{round_}")
        assert {name: last["counters"][name] for name in harness.WORK} == dict.fromkeys(harness.WORK, 0)
        assert _texts(last) == {f"Edition {round_} of {uri}." for uri in (ONE, TWO, FOUR, FIVE)}
