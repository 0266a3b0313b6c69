"""Promotion on a real corpus: what an exam compares with, what it demands before it begins, and what a rollback brings."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rag_platform.errors import ConfigurationError
from rag_platform.evaluation import promotion
from rag_platform.evaluation.golden import GoldenSet, save
from rag_platform.ingestion.stages.housekeeping import housekeeping
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.releases import Release
from rag_platform_tests import harness
from rag_platform_tests.evaluation.corpora import CASES, HANDBOOK, specs

DAY_S = 86_400.0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose first release serves the small corpus."""
    with Workbench(harness.settings(tmp_path / "home")) as bench:
        harness.ingest(bench, specs(tmp_path), "r1")
    return tmp_path


@pytest.fixture
def bench(home: Path) -> Iterator[Workbench]:
    """On that home, with settings that make another release: a complete candidate."""
    with Workbench(replace(harness.settings(home / "home"), chunk_tokens=60)) as opened:
        harness.ingest(opened, specs(home), "r2", gated=True)
        yield opened


def keep(bench: Workbench, cases: int = 3, **gate: Any) -> GoldenSet:
    golden = GoldenSet("small", CASES[:cases], gate=gate or None)
    save(bench.settings.resolved_golden_dir / "small.yaml", golden)
    return golden


def serving(bench: Workbench) -> Release:
    found = bench.ledger.releases.serving()
    assert found is not None
    return found


def cannot_be_asked(bench: Workbench, release: Release) -> None:
    """Let a release name an embedder that this installation does not have."""
    described = json.loads(json.dumps(dict(release.pipeline)))
    described["embedder"]["name"] = "gone"
    for settings in described.values():
        if isinstance(settings, dict) and "embedder" in settings:
            settings["embedder"] = "gone"
    with sqlite3.connect(bench.settings.root / "ledger.sqlite") as c:
        values = [json.dumps(described), release.release_id]
        c.execute("UPDATE releases SET pipeline = ? WHERE release_id = ?", values)
    c.close()


def test_a_candidate_is_compared_with_what_serves(bench: Workbench) -> None:
    """Both are asked; the one that is as good takes over, with the exam as its reason; nothing waits afterwards."""
    keep(bench)
    first = serving(bench)
    assert promotion.waits(bench)
    exam = promotion.hold_exam(bench)
    assert exam is not None and exam.passed and exam.notes == ()
    [paper] = exam.papers
    assert paper.serving is not None and paper.serving.release_id == first.release_id
    assert serving(bench).release_id == first.release_id, "an exam alone moves nothing"
    promotion.promote_if_passed(bench)
    assert serving(bench).release_id == bench.release_id and not promotion.waits(bench)
    assert bench.ledger.releases.decisions(bench.release_id)[0].reasons == ("passed small (3 questions)",)
    assert promotion.hold_exam(bench) is None


def test_without_golden_sets_or_gate_a_complete_candidate_takes_over(bench: Workbench) -> None:
    """RAG_GATE=off, or no golden set: complete is enough, and the reason says that nobody asked for more."""
    assert promotion.hold_exam(bench) is None
    exam = promotion.promote_if_passed(bench)
    assert exam is not None and exam.papers == () and serving(bench).release_id == bench.release_id
    assert bench.ledger.releases.decisions(bench.release_id)[0].reasons == ("complete; no gate asked for more",)


def test_what_cannot_be_asked_any_more_is_compared_by_its_last_evaluation(bench: Workbench) -> None:
    """The serving release's embedder is gone: what the ledger holds of its evaluation counts, and a note says so."""
    keep(bench)
    first = serving(bench)
    assert promotion.hold_exam(bench) is not None
    cannot_be_asked(bench, first)
    exam = promotion.hold_exam(bench)
    assert exam is not None and exam.passed
    assert exam.papers[0].serving is not None and exam.papers[0].serving.release_id == first.release_id
    assert "newest evaluation" in exam.notes[0] and "gone" in exam.notes[0]


def test_an_exam_without_comparison_is_not_passed(bench: Workbench) -> None:
    """Nothing was ever measured of the serving release: a demand on the difference cannot be met. The refusal names the
    cures and is kept once; demands without a difference can be met, and a person may force it."""
    keep(bench)
    first = serving(bench)
    cannot_be_asked(bench, first)
    exam = promotion.hold_exam(bench)
    assert exam is not None and not exam.passed and not exam.known
    assert "nothing to compare with" in exam.reasons[0] and "--force" in promotion.refusal(exam)
    again = promotion.hold_exam(bench)
    assert again is not None and not again.passed and again.known
    decisions = bench.ledger.releases.decisions(bench.release_id)
    assert [d.decision for d in decisions] == ["refused"]
    with pytest.raises(promotion.Refused, match="nothing to compare with"):
        promotion.promote(bench, bench.release, by="cli", run_id="p1")
    assert serving(bench).release_id == first.release_id

    done = promotion.promote(bench, bench.release, by="cli", run_id="p2", force=True)
    assert done.before is not None and done.before.release_id == first.release_id and done.exam is None
    newest = bench.ledger.releases.decisions(bench.release_id)[0]
    assert (newest.decision, newest.by, newest.reasons) == ("promoted", "cli", ("forced: no exam was held",))


def test_absolute_demands_need_no_comparison(bench: Workbench) -> None:
    """A policy of minima alone can be met although the serving release cannot be asked."""
    every = ("recall_at_10", "vector_recall_at_10", "keyword_recall_at_10", "ndcg_at_10", "contains_gold")
    none: dict[str, Any] = dict.fromkeys((*every, "citation_recall", "refusal_accuracy"))
    keep(bench, **(none | {"recall_at_10": {"min": 0.5}}))
    cannot_be_asked(bench, serving(bench))
    exam = promotion.hold_exam(bench)
    assert exam is not None and exam.passed and exam.papers[0].serving is None


@pytest.mark.parametrize("times", [1, 2])
def test_nothing_is_concluded_from_an_index_that_changed(bench: Workbench, times: int) -> None:
    """A document changes while questions are asked: the exam is held once more; when that one is overtaken, too, there is
    neither promotion nor refusal, and the next run decides."""
    keep(bench)
    first = serving(bench)
    [changed] = [d for d in bench.ledger.documents.of_source("docs").values() if d.uri == "pumps.md"]
    seen: list[int] = []

    def progress(done: int, cases: int) -> None:
        if done == 1 and len(seen) < times:
            seen.append(done)
            bench.ledger.documents.mark_dirty(bench.release_id, [changed], "other-run")
            entry = replace(
                bench.ledger.documents.entries(bench.release_id)[changed.document_id],
                version_id=f"v{len(seen)}",
                content_hash=changed.content_hash,
            )
            bench.ledger.documents.mark_indexed(bench.release_id, [(entry, changed.bucket)], "other-run")

    exam = promotion.hold_exam(bench, progress)
    assert exam is not None and len(seen) == times
    assert (exam.moved, exam.passed) == ((False, True) if times == 1 else (True, False))
    if exam.moved:
        assert "the next run examines it again" in promotion.refusal(exam)
    assert bench.ledger.releases.decisions(bench.release_id) == []
    assert serving(bench).release_id == first.release_id


def test_an_incomplete_release_is_not_promoted_by_mistake(home: Path) -> None:
    """It says how many documents wait and what to do; nothing is asked and nothing serves instead."""
    with Workbench(replace(harness.settings(home / "home"), chunk_tokens=60)) as bench:
        harness.ingest(bench, specs(home), "r2", gated=True, buckets=bench.bucket_names[:3])
        first = serving(bench)
        with pytest.raises(ConfigurationError, match=r"not complete: \d+ documents wait .* `rag ingest`"):
            promotion.promote(bench, bench.release, by="cli", run_id="p1")
        assert serving(bench).release_id == first.release_id


def test_a_rollback_brings_back_neither_deleted_documents_nor_old_permissions(bench: Workbench, home: Path) -> None:
    """The old index learns what happened since before it serves again; what it never read waits; and the release that was
    left does not come back by itself."""
    first = serving(bench)
    promotion.promote_if_passed(bench)
    docs, secret = harness.Tree(home / "docs"), harness.Tree(home / "secret")
    docs.delete("garden.txt")
    docs.write("new.md", "# New\n\nThe new crane lifts 40 tons.\n")
    docs.write("handbook.md", HANDBOOK.replace("47 minutes", "51 minutes"))
    changed = [docs.spec(acl=("staff",)), secret.spec("hr", acl=("board",))]
    harness.ingest(bench, changed, "r3", approve=True, gated=True)
    assert harness.uris(bench) == {"handbook.md", "pumps.md", "salaries.txt", "new.md"}

    done = promotion.roll_back(bench, by="cli", reason="worse answers", run_id="b1")
    assert (done.release.release_id, serving(bench).release_id) == (first.release_id, first.release_id)
    rows = harness.index_rows(bench, "uri", "acl", "text")
    assert {(r["uri"], *r["acl"]) for r in rows} == {
        ("handbook.md", "staff"), ("pumps.md", "staff"), ("salaries.txt", "board"),
    }  # fmt: skip
    assert any("47 minutes" in r["text"] for r in rows), "the changed text was never read by the old pipeline"
    assert done.standing.in_flight == 2
    assert not promotion.waits(bench)
    assert promotion.promote_if_passed(bench) is None and serving(bench).release_id == first.release_id
    newest = bench.ledger.releases.decisions(bench.release_id)[0]
    assert (newest.decision, newest.reasons) == ("rolled_back", (f"instead of {bench.release_id}: worse answers",))

    promotion.promote(bench, bench.release, by="cli", run_id="p3")
    assert serving(bench).release_id == bench.release_id
    assert harness.uris(bench) == {"handbook.md", "pumps.md", "salaries.txt", "new.md"}


def test_there_must_be_something_to_go_back_to(home: Path) -> None:
    """The first release has nothing before it."""
    with (
        Workbench(harness.settings(home / "home")) as bench,
        pytest.raises(ConfigurationError, match="no earlier release"),
    ):
        promotion.roll_back(bench, by="cli", reason="?", run_id="b1")


@pytest.fixture
def aged(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let days pass for the clean-up."""

    def pass_days(days: float) -> None:
        now = time.time() + days * DAY_S
        monkeypatch.setattr("rag_platform.ingestion.stages.housekeeping.time.time", lambda: now)

    return pass_days


def test_the_clean_up_ends_candidates_and_evaluations(home: Path, aged: Callable[[float], None]) -> None:
    """A candidate that nobody came back for is dropped with its index after RAG_CANDIDATE_RETENTION_DAYS, evaluations after
    RAG_EVALUATION_RETENTION_DAYS; what serves and what the settings make stays."""
    with Workbench(replace(harness.settings(home / "home"), chunk_tokens=60)) as tried:
        harness.ingest(tried, specs(home), "r2", gated=True)
        keep(tried)
        promotion.hold_exam(tried)
        abandoned = tried.release.index_name
    with Workbench(replace(harness.settings(home / "home"), chunk_tokens=80)) as bench:
        harness.ingest(bench, specs(home), "r3", gated=True)
        first = serving(bench)
        assert len(bench.ledger.evaluations.list()) == 2
        aged(13)
        assert housekeeping(bench)["candidates_dropped"] == 0
        aged(15)
        report = housekeeping(bench)
        assert (report["candidates_dropped"], report["evaluations_deleted"]) == (1, 0)
        assert {r.release_id for r in bench.ledger.releases.all()} == {first.release_id, bench.release_id}
        with pytest.raises(KeyError):
            list(bench.store.scan(abandoned, ("uri",)))
        aged(366)
        assert housekeeping(bench)["evaluations_deleted"] == 2 and bench.ledger.evaluations.list() == []
