"""What the clean-up job forgets of questions."""

from __future__ import annotations

import dataclasses
import time

from rag_platform.ingestion.stages.housekeeping import housekeeping
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.feedback import FeedbackRow
from rag_platform.ledger.query_log import QueryLogRow


def fill(bench: Workbench) -> None:
    now = time.time()
    for days in (1, 89, 91, 400):
        at = now - days * 86_400
        bench.ledger.query_log.add([QueryLogRow(request_id=f"q{days}", at=at, tenant="t", profile="fast")])
        assert bench.ledger.feedback.put(
            FeedbackRow(request_id=f"q{days}", key_id=None, rating=-1, comment="no", at=at)
        )


def test_old_questions_and_thumbs_are_forgotten(bench: Workbench) -> None:
    """Rows older than RAG_QUERY_LOG_DAYS go, and are counted; younger ones stay."""
    fill(bench)
    report = housekeeping(bench)
    assert (report["query_log_rows_deleted"], report["feedback_deleted"]) == (2, 2)
    assert [r.request_id for r in bench.ledger.query_log.since(0)] == ["q1", "q89"]
    assert [f.request_id for f in bench.ledger.feedback.since(0)] == ["q1", "q89"]


def test_zero_days_keep_everything(bench: Workbench) -> None:
    """RAG_QUERY_LOG_DAYS=0 is no limit."""
    fill(bench)
    bench.settings = dataclasses.replace(bench.settings, query_log_days=0)
    report = housekeeping(bench)
    assert (report["query_log_rows_deleted"], report["feedback_deleted"]) == (0, 0)
    assert len(bench.ledger.query_log.since(0)) == 4
