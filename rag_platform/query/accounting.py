"""What is counted and logged of every question."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rag_platform import metrics, semconv
from rag_platform.ledger.query_log import QueryLogRow
from rag_platform.query.answer import Answer
from rag_platform.query.deadline import Clock
from rag_platform.query.log import QueryLog, logged
from rag_platform.query.question import Question
from rag_platform.records import Hit
from rag_platform.tracing import Span


def answered(log: QueryLog, q: Question, answer: Answer, hits: Sequence[Hit], trace_id: str | None) -> None:
    """Count and log an answer, or a refusal. ``hits``: what it was made from; empty for a cached one."""
    outcome = "refused" if answer.refused else "answered"
    metrics.QUERIES.labels(q.profile_name, answer.mode, answer.cache, outcome).inc()
    metrics.QUERY_SECONDS.labels(answer.cache).observe(answer.timings_ms["total"] / 1000)
    for note in answer.degraded:
        metrics.DEGRADED.labels(note.stage, note.reason).inc()
    log.record(logged(q, answer, hits, trace_id))


def failed(log: QueryLog, q: Question, clock: Clock, why: BaseException, trace_id: str | None) -> None:
    """Count and log a question that got no answer, by the class of what ended it."""
    metrics.QUERIES.labels(q.profile_name, "none", "miss", "failed").inc()
    log.record(
        QueryLogRow(
            request_id=q.request_id,
            at=time.time() - clock.elapsed_ms / 1000,
            key_id=q.key_id,
            tenant=q.principal.tenant,
            groups=tuple(sorted(q.principal.groups)),
            operator=q.principal.operator,
            question=q.normalised,
            profile=q.profile_name,
            status=type(why).__name__,
            total_ms=round(clock.elapsed_ms, 3),
            timings_ms=dict(clock.timings_ms),
            trace_id=trace_id,
        )
    )


def describe(span: Span, answer: Answer) -> None:
    """Put what became of a question onto its span."""
    span.set(
        {
            semconv.RELEASE: answer.release_id,
            semconv.MODE: answer.mode,
            semconv.CACHE: answer.cache,
            semconv.REFUSED: answer.refused,
            semconv.COST_USD: answer.cost_usd,
            semconv.DEGRADED: [f"{d.stage}:{d.reason}" for d in answer.degraded],
        }
    )
