"""Evaluations, their scores, and what judges have spent, in the ledger."""

from __future__ import annotations

import threading
from typing import Any

from rag_platform.ledger import Ledger, schema
from rag_platform.ledger.evaluations import CaseRow, Evaluation, ScoreRow, Spend


def begin(ledger: Ledger, evaluation_id: str = "e1", **changes: Any) -> Evaluation:
    values: dict[str, Any] = {
        "release_id": "r-1",
        "golden_set": "docs",
        "set_fingerprint": "f1",
        "kind": "golden",
        "evaluator": "rag_platform",
        "judge": None,
        "settings_fingerprint": "s1",
        "at": 1000.5,
        "index_state": "i1",
    }
    return ledger.evaluations.begin(evaluation_id, **(values | changes))


def test_an_evaluation_comes_back_as_it_was_written(ledger: Ledger) -> None:
    """With every field; to begin it again changes nothing of it."""
    first = begin(ledger, judge="gpt@2026")
    assert ledger.evaluations.get("e1") == first
    assert (first.judge, first.index_state, first.started_at, first.finished_at) == ("gpt@2026", "i1", 1000.5, None)
    assert begin(ledger, at=5000.0, golden_set="other") == first
    assert ledger.evaluations.get("e2") is None
    ledger.evaluations.finish("e1", {"metrics": {"mrr": {"mean": 0.5}}}, 2000.25)
    done = ledger.evaluations.get("e1")
    assert done is not None and done.finished_at == 2000.25 and done.summary == {"metrics": {"mrr": {"mean": 0.5}}}
    assert begin(ledger) == done


def test_the_latest_is_the_newest_complete_one_of_its_kind(ledger: Ledger) -> None:
    """Of that release and set; of one content of the set, if that is asked for."""
    begin(ledger, "old", at=1.0)
    begin(ledger, "new", at=2.0, set_fingerprint="f2")
    begin(ledger, "unfinished", at=3.0)
    begin(ledger, "traffic", at=4.0, kind="traffic")
    begin(ledger, "elsewhere", at=5.0, release_id="r-2")
    for at, name in ((1.5, "old"), (2.5, "new"), (4.5, "traffic"), (5.5, "elsewhere")):
        ledger.evaluations.finish(name, {}, at)

    def latest(*where: str, **more: Any) -> str | None:
        found = ledger.evaluations.latest(*where, **more)
        return None if found is None else found.evaluation_id

    assert latest("r-1", "docs") == "new"
    assert latest("r-1", "docs", "f1") == "old"
    assert latest("r-1", "docs", finished=False) == "unfinished"
    assert latest("r-1", "docs", kind="traffic") == "traffic"
    assert latest("r-1", "another set") is None
    listed = ledger.evaluations.list(release_id="r-1", kind="golden")
    assert [e.evaluation_id for e in listed] == ["unfinished", "new", "old"]
    assert [e.evaluation_id for e in ledger.evaluations.list(limit=1)] == ["elsewhere"]
    ledger.evaluations.confirm("old", 6.0)
    assert latest("r-1", "docs") == "old", "asked for again, it is so again"
    assert ledger.evaluations.delete_before(3.5) == 2 and ledger.evaluations.get("old") is not None


def test_a_case_is_kept_with_all_its_scores_and_a_second_time_replaces_them(ledger: Ledger) -> None:
    """Values, states and what came of the case; other cases stay."""
    begin(ledger)
    failed = CaseRow("e1", "a", None, (), "NotAnswered", 1.5, None)
    ledger.evaluations.put(
        [ScoreRow("e1", "a", "mrr", None, "failed", "why"), ScoreRow("e1", "a", "f1", None, "nan")], failed
    )
    other = ScoreRow("e1", "b", "mrr", 0.25, "scored", "", 0.5, 0.001)
    ledger.evaluations.put([other], CaseRow("e1", "b", False, ("x.md", "ü.md"), None, 0.5, 0.002))
    ledger.evaluations.put([ScoreRow("other", "a", "mrr", 1.0, "scored")])
    assert ledger.evaluations.cases("e1") == [failed, CaseRow("e1", "b", False, ("x.md", "ü.md"), None, 0.5, 0.002)]
    mended = ScoreRow("e1", "a", "mrr", 1.0, "scored")
    ledger.evaluations.put([mended], CaseRow("e1", "a", True, (), None, 0.5, 0.0))
    scores = {(s.case_id, s.metric): s for s in ledger.evaluations.scores("e1")}
    assert scores["a", "mrr"] == mended and scores["b", "mrr"] == other and scores["a", "f1"].state == "nan"
    assert [(c.case_id, c.refused, c.failure) for c in ledger.evaluations.cases("e1")] == [
        ("a", True, None),
        ("b", False, None),
    ]


def test_what_judges_spend_adds_up_by_day(ledger: Ledger) -> None:
    """Over all judges, also when several processes spend at once."""
    assert ledger.evaluations.judge_spend("2026-11-23") == Spend(0.0, 0, 0)

    def spend() -> None:
        for _ in range(5):
            ledger.evaluations.add_spend("2026-11-23", "small", usd=0.25, tokens=10)

    threads = [threading.Thread(target=spend) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    ledger.evaluations.add_spend("2026-11-23", "large", usd=1.0, tokens=5, calls=2)
    ledger.evaluations.add_spend("2026-11-24", "large", usd=9.0, tokens=9)
    assert ledger.evaluations.judge_spend("2026-11-23") == Spend(4.75, 155, 17)


def test_the_state_of_an_index_is_what_it_holds(ledger: Ledger) -> None:
    """The order in which documents came, and other releases, do not matter; a version does, and none at all."""

    def entry(release: str, document: str, version: str | None) -> dict[str, Any]:
        return {
            "release_id": release, "document_id": document, "bucket": "0", "version_id": version, "content_hash": "c",
            "metadata_hash": "m", "chunk_count": 1, "indexed_at": 0.0, "run_id": "r",
        }  # fmt: skip

    def write(*rows: dict[str, Any]) -> None:
        with ledger.database.write("test") as c:
            for row in rows:
                ledger.database.upsert(c, schema.index_entries, [row], update=("version_id",))

    empty = ledger.releases.index_state("r-1")
    write(entry("r-1", "a", "v1"), entry("r-1", "b", "v1"), entry("r-2", "b", "v1"), entry("r-2", "a", "v1"))
    state = ledger.releases.index_state("r-1")
    assert state == ledger.releases.index_state("r-2") != empty
    write(entry("r-2", "b", "v2"))
    assert ledger.releases.index_state("r-2") != state == ledger.releases.index_state("r-1")
    write(entry("r-1", "b", None))
    assert ledger.releases.index_state("r-1") != state
    write(entry("r-1", "b", "v1"))
    assert ledger.releases.index_state("r-1") == state
