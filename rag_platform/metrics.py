"""Every Prometheus metric of the query side, in one place: `/metrics` shows this registry.

Labels hold names from fixed sets only (profiles, stages, error classes): never a question, a document, a
reader or a key.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import prometheus_client
from prometheus_client import CollectorRegistry, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody reads
REGISTRY = CollectorRegistry()

_live: ContextVar[bool] = ContextVar("rag_metrics_live", default=True)


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Count nothing that this task, and those that it starts, do in the block: what is asked in order to measure is
    no traffic."""
    token = _live.set(False)
    try:
        yield
    finally:
        _live.reset(token)


class Counter(prometheus_client.Counter):
    """Counts what is live."""

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        if _live.get():
            super().inc(amount, exemplar)


class Gauge(prometheus_client.Gauge):
    """Shows what is live."""

    def set(self, value: float) -> None:
        if _live.get():
            super().set(value)


class Histogram(prometheus_client.Histogram):
    """Observes what is live."""

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        if _live.get():
            super().observe(amount, exemplar)


_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

QUERIES = Counter(
    "rag_queries",
    "Questions answered, by what came of them: answered, refused, failed.",
    ("profile", "mode", "cache", "outcome"),
    registry=REGISTRY,
)
QUERY_SECONDS = Histogram(
    "rag_query_seconds", "From the question to its whole answer.", ("cache",), buckets=_SECONDS, registry=REGISTRY
)
STAGE_SECONDS = Histogram(
    "rag_stage_seconds", "Wall time of one stage of a question.", ("stage",), buckets=_SECONDS, registry=REGISTRY
)
FIRST_TEXT_SECONDS = Histogram(
    "rag_first_text_seconds", "From the question to the first words of a generated answer.", buckets=_SECONDS,
    registry=REGISTRY,
)  # fmt: skip
DEGRADED = Counter(
    "rag_degraded", "Stages that did not do their part, by error class.", ("stage", "reason"), registry=REGISTRY
)
EMPTY_RETRIEVALS = Counter("rag_empty_retrievals", "Questions for which nothing was found.", registry=REGISTRY)
CACHE_LOOKUPS = Counter(
    "rag_cache_lookups",
    "Look-ups by kind (exact, vector, semantic, words) and result (hit, miss).",
    ("kind", "result"),
    registry=REGISTRY,
)
TOKENS = Counter(
    "rag_tokens", "Tokens that a service billed: prompt, completion, embedding.", ("kind",), registry=REGISTRY
)
COST_USD = Counter("rag_cost_usd", "Dollars spent on questions: llm, embedding, rerank.", ("kind",), registry=REGISTRY)
COST_UNKNOWN = Counter(
    "rag_cost_unknown", "Calls whose price is not known, so that they count for nothing above.", ("kind",),
    registry=REGISTRY,
)  # fmt: skip
UPSTREAM_CALLS = Counter(
    "rag_upstream_calls", "Attempts to call a dependency: ok, failed, skipped (breaker open).", ("dependency", "outcome"),
    registry=REGISTRY,
)  # fmt: skip
BREAKER_OPEN = Gauge(
    "rag_breaker_open", "1 while a dependency is taken to be down and not called.", ("dependency",), registry=REGISTRY
)
IN_FLIGHT = Gauge("rag_in_flight", "Questions being worked on.", registry=REGISTRY)
SHED = Counter("rag_shed", "Requests refused because too many were in flight.", registry=REGISTRY)
LIMITED = Counter(
    "rag_limited", "Requests refused by a key's limits: rate, tokens, usd.", ("reason",), registry=REGISTRY
)
FEEDBACK = Counter("rag_feedback", "Thumbs: up, down.", ("rating",), registry=REGISTRY)
QUERY_LOG_DROPPED = Counter("rag_query_log_dropped", "Rows of the query log lost to a full queue.", registry=REGISTRY)
HTTP_REQUESTS = Counter("rag_http_requests", "Responses by route and status.", ("route", "status"), registry=REGISTRY)
RELEASE_INFO = Gauge("rag_release_info", "1 for the release that serves.", ("release_id",), registry=REGISTRY)
EVAL_SCORE = Gauge(
    "rag_eval_score",
    "Mean of a metric over a golden set, as a release was last evaluated.",
    ("metric", "golden_set", "release"),
    registry=REGISTRY,
)
