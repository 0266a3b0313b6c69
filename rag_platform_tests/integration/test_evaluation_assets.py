"""The assets of evaluation, as Dagster runs and shows them: the gate, and the weekly job with and without a model."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
import pytest

from rag_platform.commands.dagster_home import prepare_dagster_home
from rag_platform.commands.dagster_run import JobResult, run_job
from rag_platform.evaluation.golden import GoldenSet, save
from rag_platform.evaluation.serving import DAY_S
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.feedback import FeedbackRow
from rag_platform.query.log import logged
from rag_platform.query.offline import OfflineQueries
from rag_platform.records import Principal
from rag_platform.settings import Settings
from rag_platform_tests.backends import real_llm
from rag_platform_tests.evaluation.corpora import CASES, specs
from rag_platform_tests.evaluation.judge_server import judge_process
from rag_platform_tests.serve.api_server import ApiServer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("dagster")]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A RAG_HOME with the sources of the small corpus; its variables are those of this process."""
    for name, value in {
        "RAG_HOME": str(tmp_path / "home"),
        "DAGSTER_HOME": str(tmp_path / "home" / "dagster"),
        "RAG_EMBED_WORKERS": "1",
        "RAG_PARSE_WORKERS": "1",
        "RAG_OCR": "off",
    }.items():
        monkeypatch.setenv(name, value)
    with Workbench(Settings.from_env()) as bench:
        for spec in specs(tmp_path):
            bench.ledger.sources.register(spec, "command")
    yield monkeypatch


def keep(cases: int, **gate: Any) -> None:
    """Let the golden set be the first cases of the small corpus."""
    golden = GoldenSet("small", CASES[:cases], gate=gate or None)
    save(Settings.from_env().resolved_golden_dir / "small.yaml", golden)


def run(job: str) -> JobResult:
    return run_job(Settings.from_env(), job)


@contextlib.contextmanager
def instance() -> Iterator[dg.DagsterInstance]:
    prepare_dagster_home(Settings.from_env())
    with dg.DagsterInstance.get() as opened:
        yield opened


def materialized(asset: str) -> dict[str, Any] | None:
    """Return the metadata of the newest materialization, as the UI shows it."""
    with instance() as opened:
        event = opened.get_latest_materialization_event(dg.AssetKey(asset))
    if event is None or event.asset_materialization is None:
        return None
    found = event.asset_materialization.metadata
    return {n: v.records if isinstance(v, dg.TableMetadataValue) else v.value for n, v in found.items()}


def checked(run_id: str) -> list[tuple[str, bool, str]]:
    """Return name, outcome and severity of the asset checks of a run."""
    with instance() as opened:
        records = opened.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    found = [r.event_log_entry.dagster_event.asset_check_evaluation_data for r in records]
    return [(c.check_name, c.passed, c.severity.value) for c in found]


def serving() -> str:
    with Workbench(Settings.from_env()) as bench:
        release = bench.ledger.releases.serving()
        assert release is not None
        return release.release_id


def test_a_failed_gate_blocks_the_promotion(home: pytest.MonkeyPatch) -> None:
    """The run that examines a candidate for the first time fails at the blocking check, and index_release is not
    materialized; the next run warns; with demands that it meets, it is promoted, and the assets say why."""
    assert run("ingest_sources").success
    first = serving()
    assert materialized("evaluation_report") is None and materialized("index_release") is None, "nothing to decide"

    keep(4, recall_at_10={"min": 1.1})
    home.setenv("RAG_CHUNK_TOKENS", "60")
    refused = run("ingest_sources")
    assert not refused.success and refused.failure is not None and "evaluation_report" in refused.failure
    assert ("gate", False, "ERROR") in checked(refused.run_id) and serving() == first
    report = materialized("evaluation_report")
    assert report is not None and report["questions"] == 4 and report["release"] != first
    assert report["candidate/small/recall_at_10"] == report["small/recall_at_10"] == 1.0
    assert materialized("index_release") is None

    again = run("ingest_sources")
    assert again.success and ("gate", False, "WARN") in checked(again.run_id) and serving() == first
    shown = materialized("index_release")
    assert shown is not None and shown["serving_release"] == first and "recall_at_10 is 1.000" in shown["waits"]

    keep(4, recall_at_10={"min": 1.0})
    promoted = run("ingest_sources")
    assert promoted.success and ("gate", True, "ERROR") in checked(promoted.run_id)
    second = serving()
    shown = materialized("index_release")
    assert second != first and shown is not None
    assert (shown["serving_release"], shown["waits"]) == (second, "nothing")
    assert [r.data["decision"] for r in shown["decisions"]] == ["promoted", "refused", "promoted"]


def test_a_golden_set_that_cannot_be_read_stops_the_promotion_alone(home: pytest.MonkeyPatch) -> None:
    """Documents are indexed all the same; the step that needs the set fails and says where the mistake is."""
    assert run("ingest_sources").success
    first = serving()
    keep(2)
    path = Settings.from_env().resolved_golden_dir / "small.yaml"
    path.write_text(path.read_text() + "\ngates: {}\n")
    home.setenv("RAG_CHUNK_TOKENS", "60")
    result = run("ingest_sources")
    assert not result.success and result.failure is not None and "small.yaml" in result.failure
    assert serving() == first
    with Workbench(Settings.from_env()) as bench:
        assert bench.ledger.documents.totals(bench.release_id)["indexed"] == 4


def test_the_weekly_job_without_a_model(home: pytest.MonkeyPatch) -> None:
    """Golden set and RAGAS' offline metrics: as metadata of the assets, as rows, and as gauges of the query API."""
    assert run("ingest_sources").success
    keep(3)
    result = run("evaluate_serving")
    assert result.success, result.failure
    report, samples = materialized("evaluation_report"), materialized("evaluation_samples")
    assert report is not None and samples is not None
    for metric in ("recall_at_10", "vector_recall_at_10", "ragas_non_llm_context_recall", "ragas_semantic_similarity"):
        assert 0.3 < report[f"small/{metric}"] <= 1.0, report
    assert {r.data["metric"] for r in report["metrics"]} > {"latency_ms_p95", "ragas_string_similarity"}
    assert "without a judge" in samples["notes"] and samples["sampled"] == 0
    gauges, rows = shown_and_stored()
    for metric in ("recall_at_10", "ragas_non_llm_context_recall"):
        assert gauges[metric, "small"] == pytest.approx(report[f"small/{metric}"], abs=1e-3)
    assert rows["ragas_semantic_similarity"] == 3 and not any("faithfulness" in m for m in rows)


def test_the_weekly_job_with_a_judge(home: pytest.MonkeyPatch) -> None:
    """Beside that the metrics of a judge, on the golden set and on last week's traffic: an answer with a thumb down is
    judged although the sample is empty, and no question of a reader stands in the metadata."""
    home.setenv("RAG_QUERY_LOG", "full")
    home.setenv("RAG_EVAL_SAMPLE_RATE", "0")
    assert run("ingest_sources").success
    keep(2)
    log_yesterday(thumb_down="keys")
    with judge_process() as judge:
        home.setenv("RAG_JUDGE", "openai_compatible")
        home.setenv("RAG_JUDGE_BASE_URL", judge.base_url)
        home.setenv("RAG_JUDGE_MODEL", "judge-1")
        result = run("evaluate_serving")
        assert result.success, result.failure
    report, samples = materialized("evaluation_report"), materialized("evaluation_samples")
    assert report is not None and samples is not None
    assert report["small/ragas_faithfulness"] > 0.5 and report["small/ragas_context_recall"] > 0.5
    assert (samples["chosen"], samples["sampled"], samples["thumbs_down"]) == (1, 1, 1)
    assert samples["traffic/ragas_faithfulness"] > 0.5 and "signing key" not in str(samples)
    gauges, rows = shown_and_stored()
    assert gauges["ragas_faithfulness", "small"] == pytest.approx(report["small/ragas_faithfulness"], abs=1e-3)
    assert ("ragas_faithfulness", "traffic") in gauges and rows["ragas_faithfulness"] == 3


@pytest.mark.skipif(real_llm.missing() is not None, reason=str(real_llm.missing()))
def test_the_weekly_job_with_a_real_model(home: pytest.MonkeyPatch) -> None:
    """SmolLM2 behind llama.cpp's server is far too weak to judge; the job ends all the same, every metric of it is
    counted in one state, and what the model used is on the account."""
    assert run("ingest_sources").success
    keep(1)
    with real_llm.real_llm() as server:
        for name, value in {
            "RAG_JUDGE": "openai_compatible",
            "RAG_JUDGE_BASE_URL": server.base_url,
            "RAG_JUDGE_MODEL": server.model,
            "RAG_JUDGE_MAX_CONTEXT_TOKENS": str(real_llm.CONTEXT_TOKENS),
            "RAG_JUDGE_CONCURRENCY": "1",
            "RAG_JUDGE_TIMEOUT_S": "60",
        }.items():
            home.setenv(name, value)
        result = run("evaluate_serving")
    assert result.success, result.failure
    report = materialized("evaluation_report")
    assert report is not None
    judged = {r.data["metric"]: r.data for r in report["metrics"] if "faithfulness" in r.data["metric"]}
    assert judged.keys() == {"ragas_faithfulness"}
    [of] = judged.values()
    assert of["scored"] == 1 or of["not scored"], of
    with Workbench(Settings.from_env()) as bench:
        [evaluation] = [e for e in bench.ledger.evaluations.list() if e.golden_set == "small"]
        states = {s.metric: s.state for s in bench.ledger.evaluations.scores(evaluation.evaluation_id)}
        assert evaluation.judge is not None and evaluation.judge.startswith(server.model)
        assert states["ragas_faithfulness"] in ("scored", "nan", "failed")
        assert bench.ledger.evaluations.judge_spend(time.strftime("%Y-%m-%d", time.gmtime())).tokens > 100


def shown_and_stored() -> tuple[dict[tuple[str, str], float], dict[str, int]]:
    """Return ``rag_eval_score`` of the query API by metric and set, and the number of scored rows by metric."""
    settings = Settings.from_env()
    with ApiServer(settings) as api:
        lines = [x for x in api.http.get("/metrics").text.splitlines() if x.startswith("rag_eval_score{")]
    gauges = {}
    for line in lines:
        labels, value = line.removeprefix("rag_eval_score{").split("} ")
        named = dict(pair.split("=") for pair in labels.replace('"', "").split(","))
        gauges[named["metric"], named["golden_set"]] = float(value)
    rows: dict[str, int] = {}
    with Workbench(settings) as bench:
        for evaluation in bench.ledger.evaluations.list():
            for score in bench.ledger.evaluations.scores(evaluation.evaluation_id):
                rows[score.metric] = rows.get(score.metric, 0) + (score.state == "scored")
    return gauges, rows


def log_yesterday(*, thumb_down: str) -> None:
    """Ask two questions, as the query log keeps them, and dislike one of the answers."""
    settings = Settings.from_env()
    with Workbench(settings) as bench:
        release = bench.ledger.releases.serving()
        assert release is not None

        async def main() -> None:
            queries = OfflineQueries(settings, bench.ledger, release)
            try:
                await queries.start()
                for case in CASES[:2]:
                    question = queries.question(case.question, Principal("default", frozenset({"public"})))
                    outcome = await queries.ask(question)
                    assert outcome.answer is not None
                    row = logged(question, outcome.answer, outcome.hits[:20], None)
                    at = time.time() // DAY_S * DAY_S - 3600.0
                    bench.ledger.query_log.add(
                        [msgspec.structs.replace(row, request_id=case.case_id, at=at, question=case.question)]
                    )
            finally:
                await queries.aclose()

        asyncio.run(main())
        assert bench.ledger.feedback.put(
            FeedbackRow(request_id=thumb_down, key_id=None, rating=-1, comment=None, at=time.time())
        )
