"""A whole evaluation with RAGAS: a real release, the real query pipeline, real RAGAS, a judge over HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rag_platform.evaluation.evaluators.opening import open_evaluators
from rag_platform.evaluation.golden import GoldenSet
from rag_platform.evaluation.report import EvaluationReport
from rag_platform.evaluation.run import evaluate
from rag_platform.ingestion.workbench import Workbench
from rag_platform.settings import Settings
from rag_platform_tests import harness
from rag_platform_tests.evaluation.corpora import CASES, ingested
from rag_platform_tests.evaluation.judge_server import judge_process
from rag_platform_tests.evaluation.judging import judged_by

SET = GoldenSet("ragas", tuple(c for c in CASES if c.case_id in ("keys", "garden", "both", "mongolia")))


def test_an_evaluation_with_ragas_from_beginning_to_end(tmp_path: Path) -> None:
    """Offline metrics and the judge's stand beside our own, each case in exactly one count; what the judge could not
    be asked is missing, and asked by the next evaluation; a judge that changes is another evaluation."""
    home = harness.settings(tmp_path / "home").root
    with judge_process() as judge, Workbench(harness.settings(home)) as bench:
        ingested(bench, tmp_path)
        release = bench.ledger.releases.serving()
        assert release is not None

        def run(settings: Settings) -> EvaluationReport:
            async def main() -> EvaluationReport:
                evaluators = open_evaluators(settings, bench.ledger)
                try:
                    return await evaluate(settings, bench.ledger, release, SET, evaluators=evaluators)
                finally:
                    for evaluator in evaluators:
                        await evaluator.aclose()

            return asyncio.run(main())

        settings = judged_by(home, judge.base_url, RAG_JUDGE_TIMEOUT_S="20")
        judge.control(fault="unauthorized")
        down = run(settings)
        assert down.metrics["ragas_faithfulness"].missing == 3  # not the question that was refused
        assert down.metrics["ragas_semantic_similarity"].missing == 0 == down.metrics["recall_at_5"].missing
        judge.control(fault=None)
        report = run(settings)
        assert report.evaluation_id == down.evaluation_id
        ragas = {name: m for name, m in report.metrics.items() if name.startswith("ragas_")}
        assert len(ragas) == 8
        assert all(m.scored + m.nan + m.empty == 4 and m.failed == m.missing == 0 for m in ragas.values())
        faithful, recall = ragas["ragas_faithfulness"], ragas["ragas_context_recall"]
        assert (faithful.scored, faithful.mean) == (3, 1.0)  # the extractive generator quotes
        assert recall.empty == 2  # no reference answer: of two documents, and of what must be refused
        assert ragas["ragas_non_llm_context_recall"].mean == 1.0
        calls = judge.control()["calls"]
        assert run(settings).metrics == report.metrics and judge.control()["calls"] == calls
        kept = bench.ledger.evaluations.get(report.evaluation_id)
        assert kept is not None and (kept.judge or "").startswith("judge-1@") and "ragas_offline-0.4" in kept.evaluator
        assert run(judged_by(home, judge.base_url, RAG_JUDGE_MODEL="judge-2")).evaluation_id != report.evaluation_id
        assert judge.control()["calls"] > calls
