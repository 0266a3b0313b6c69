"""Failures become dead letters; letters that no longer matter are settled."""

from __future__ import annotations

from collections.abc import Sequence

from rag_platform.errors import DocumentError
from rag_platform.ingestion.stages.backlog import Backlog, Task
from rag_platform.ingestion.stages.report import StageReport
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.dead_letters import DeadLetter, Failure


def quarantine(
    bench: Workbench, report: StageReport, failures: Sequence[tuple[Task, DocumentError]], run_id: str
) -> None:
    """Record failures of one stage."""
    if not bench.quarantines:
        return
    settings = bench.settings
    letters = bench.ledger.dead_letters.record(
        [Failure(task.document, task.version_id, report.stage, error) for task, error in failures],
        run_id=run_id,
        max_attempts=settings.dead_letter_max_attempts,
        backoff_s=settings.dead_letter_backoff_s,
    )
    report.dead_letters += letters
    for letter in letters:
        report.add(letter.bucket, dead_lettered=1)


def settle(bench: Workbench, bucket: str, standing: Backlog) -> int:
    """Resolve the bucket's letters that were replayed, superseded or deleted; return how many."""
    return bench.ledger.dead_letters.settle(bucket, standing.wanted, standing.indexed)


def release_due(bench: Workbench, now: float) -> list[DeadLetter]:
    """Hand letters whose next automatic replay has come back to the stages."""
    due = bench.ledger.dead_letters.due(now)
    bench_moved = (
        set(bench.ledger.dead_letters.move([d.dead_letter_id for d in due], "replaying", among=("open",)))
        if due
        else set()
    )
    return [d for d in due if d.dead_letter_id in bench_moved]
