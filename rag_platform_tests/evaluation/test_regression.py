"""What serves has become worse: found in the ledger, and told by a run that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from rag_platform.evaluation.golden import GoldenSet, save
from rag_platform.evaluation.regression import regressions
from rag_platform.evaluation.report import EvaluationReport
from rag_platform.evaluation.run import evaluate
from rag_platform.ingestion.workbench import Workbench
from rag_platform_tests import harness
from rag_platform_tests.evaluation.corpora import CASES, HANDBOOK, specs

GOLDEN = GoldenSet("small", CASES[:4])


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    with Workbench(harness.settings(tmp_path / "home")) as opened:
        harness.ingest(opened, specs(tmp_path), "r1")
        save(opened.settings.resolved_golden_dir / "small.yaml", GOLDEN)
        yield opened


def evaluated(bench: Workbench) -> EvaluationReport:
    release = bench.ledger.releases.serving()
    assert release is not None
    return asyncio.run(evaluate(bench.settings, bench.ledger, release, GOLDEN))


def lose_the_handbook(bench: Workbench, folder: Path, run_id: str) -> None:
    """Documents change as they do: what answers three of the four questions is rewritten."""
    docs = harness.Tree(folder / "docs")
    docs.write("handbook.md", "# Operations handbook\n\nSee the new wiki.\n")
    harness.ingest(bench, [docs.spec()], run_id, approve=True)


def test_what_was_better_before_is_named(bench: Workbench, tmp_path: Path) -> None:
    """One evaluation alone is no regression; a later one of the same release, after its documents changed, that falls by
    more than the demands allow is, with metric, values and questions; when it is as good again, it is none any more."""
    assert regressions(bench.settings, bench.ledger) == []
    evaluated(bench)
    assert regressions(bench.settings, bench.ledger) == []
    lose_the_handbook(bench, tmp_path, "r2")
    worse = evaluated(bench)
    [found] = regressions(bench.settings, bench.ledger)
    assert found.newest.evaluation_id == worse.evaluation_id and found.before is not None
    for words in ("small of", "recall_at_10 is 0.250", "has 1.000", CASES[0].question):
        assert words in str(found), str(found)
    harness.Tree(tmp_path / "docs").write("handbook.md", HANDBOOK)
    harness.ingest(bench, [harness.Tree(tmp_path / "docs").spec()], "r3", approve=True)
    evaluated(bench)
    assert regressions(bench.settings, bench.ledger) == []


def test_only_equal_ways_of_measuring_are_compared(bench: Workbench, tmp_path: Path) -> None:
    """An evaluation of another content of the set, or by other evaluators, is nothing to compare with."""
    evaluated(bench)
    lose_the_handbook(bench, tmp_path, "r2")
    other = GoldenSet("small", CASES[:3])
    save(bench.settings.resolved_golden_dir / "small.yaml", other)
    release = bench.ledger.releases.serving()
    assert release is not None
    asyncio.run(evaluate(bench.settings, bench.ledger, release, other))
    assert regressions(bench.settings, bench.ledger) == []


def test_the_sensor_asks_for_one_failed_run(bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While what serves is as good as it was the sensor skips; when it is worse it requests a run, always with the same key,
    so that one is made; that run fails with the reasons."""
    for name, value in {"RAG_HOME": str(bench.settings.root), "RAG_OCR": "off", "RAG_EMBED_WORKERS": "1"}.items():
        monkeypatch.setenv(name, value)
    from rag_platform.definitions import defs
    from rag_platform.sensors.quality_regression import quality_regression

    def look() -> dg.RunRequest | dg.SkipReason:
        with (
            dg.DagsterInstance.ephemeral() as instance,
            dg.build_sensor_context(instance=instance, resources={"platform": defs.resources["platform"]}) as context,
        ):
            found = quality_regression(context)
        assert isinstance(found, dg.RunRequest | dg.SkipReason)
        return found

    evaluated(bench)
    assert isinstance(look(), dg.SkipReason)
    lose_the_handbook(bench, tmp_path, "r2")
    evaluated(bench)
    requested = look()
    assert isinstance(requested, dg.RunRequest) and requested.run_key == getattr(look(), "run_key", None)
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("report_regression").execute_in_process(instance=instance, raise_on_error=False)
        assert not result.success
        [failure] = [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_FAILURE]
    assert "recall_at_10 is 0.250" in str(failure.step_failure_data.error)


def test_a_golden_set_that_cannot_be_read_says_so(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sensor skips with the file and the mistake: nothing is concluded from half of the sets."""
    monkeypatch.setenv("RAG_HOME", str(bench.settings.root))
    (bench.settings.resolved_golden_dir / "broken.yaml").write_text("cases: 3")
    from rag_platform.definitions import defs
    from rag_platform.sensors.quality_regression import quality_regression

    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(instance=instance, resources={"platform": defs.resources["platform"]}) as context,
    ):
        found = quality_regression(context)
    assert isinstance(found, dg.SkipReason) and "broken.yaml" in (found.skip_message or "")
