"""The platform's own metrics of one case: what was found and answered, against its gold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from rag_platform.backends.vector_stores.base import Leg
from rag_platform.evaluation.evaluators.base import Score
from rag_platform.evaluation.golden import GoldenCase, GoldSpan
from rag_platform.evaluation.metrics import answers, retrieval
from rag_platform.evaluation.metrics.summary import mean, percentile, summarise
from rag_platform.evaluation.report import LATENCY, MetricSummary
from rag_platform.evaluation.spans import coverage
from rag_platform.ledger.evaluations import ScoreRow
from rag_platform.query.answer import Citation
from rag_platform.query.offline import Outcome

VERSION = "2"
"""Of the definitions; scores of another version are computed anew."""

RETRIEVAL = ("recall_at_5", "recall_at_10", "precision_at_5", "mrr", "ndcg_at_10")
LEGS: Mapping[str, Leg] = {"vector_recall_at_10": "vector", "keyword_recall_at_10": "keyword"}
"""Of each leg alone: fusion and reranker hide for long that one of them finds nothing (docs/evaluation.md)."""
ANSWERS = ("token_f1", "contains_gold", "citation_precision", "citation_recall", "refusal_accuracy")
OF_ALL = (LATENCY, "cost_usd")

NO_SPANS, NO_REFERENCE = "no gold spans", "no reference answer"
NO_CITATIONS, NO_PRICE, NOT_SEARCHED = "no citations", "a price is unknown", "this leg was not searched"


def measured_metrics(*, answered: bool) -> tuple[str, ...]:
    """Return the names of what ``measure`` scores."""
    return (*RETRIEVAL, *LEGS, *(ANSWERS if answered else ()), *OF_ALL)


def measure(case: GoldenCase, outcome: Outcome) -> list[Score]:
    """Score a case: its ranking always, its answer when there is one.

    What has nothing to be compared with is ``empty``: the ranking and the citations of a question that must be
    refused, or without gold spans; the words of an answer without a reference.
    """
    scores = [
        *_ranking(case, outcome),
        *_legs(case, outcome),
        _score(LATENCY, outcome.total_ms),
        _score("cost_usd", outcome.usd, NO_PRICE),
    ]
    if outcome.answer is not None:
        scores += _answer(case, outcome)
    return scores


def summaries(rows: Iterable[ScoreRow], metrics: Sequence[str], cases: int) -> dict[str, MetricSummary]:
    """Return each of ``metrics`` over the ``cases``, in their order; latencies as percentiles."""
    by_metric: dict[str, list[ScoreRow]] = {metric: [] for metric in metrics}
    for row in rows:
        by_metric[row.metric].append(row)
    found: dict[str, MetricSummary] = {}
    for metric, scores in by_metric.items():
        wanted = PERCENTILES if metric == LATENCY else {metric: mean}
        for name, statistic in wanted.items():
            found[name] = replace(summarise(name, scores, statistic), missing=cases - len(scores))
    return found


PERCENTILES = {"latency_ms_p50": percentile(50), "latency_ms_p95": percentile(95)}


def _ranking(case: GoldenCase, outcome: Outcome) -> list[Score]:
    spans = _spans(case)
    ranking = coverage(outcome.hits, spans)
    total = len(spans)
    values = {
        "recall_at_5": retrieval.recall(ranking, total, 5),
        "recall_at_10": retrieval.recall(ranking, total, 10),
        "precision_at_5": retrieval.precision(ranking, total, 5),
        "mrr": retrieval.reciprocal_rank(ranking, total),
        "ndcg_at_10": retrieval.ndcg(ranking, total, 10),
    }
    return [_score(metric, values[metric], NO_SPANS) for metric in RETRIEVAL]


def _legs(case: GoldenCase, outcome: Outcome) -> list[Score]:
    spans = _spans(case)
    return [
        _score(metric, retrieval.recall(coverage(outcome.legs[leg], spans), len(spans), 10), NO_SPANS)
        if leg in outcome.legs
        else _score(metric, None, NOT_SEARCHED)
        for metric, leg in LEGS.items()
    ]


def _answer(case: GoldenCase, outcome: Outcome) -> list[Score]:
    answer = outcome.answer
    assert answer is not None
    spans = _spans(case)
    text = "" if answer.refused else answer.answer
    cited = [shown(c, spans) for c in answer.citations]
    f1 = contains = None
    if case.answer and not case.must_refuse:
        f1, contains = answers.token_f1(text, case.answer), answers.contains(text, case.answer)
    return [
        _score("token_f1", f1, NO_REFERENCE),
        _score("contains_gold", contains, NO_REFERENCE),
        _score("citation_precision", answers.citation_precision(cited) if spans else None, NO_CITATIONS),
        _score("citation_recall", answers.citation_recall(cited, len(spans)), NO_SPANS),
        _score("refusal_accuracy", answers.refusal_accuracy(refused=answer.refused, must_refuse=case.must_refuse)),
    ]


def shown(citation: Citation, spans: Sequence[GoldSpan]) -> frozenset[int]:
    """Return the numbers of the gold spans that a citation shows."""
    return frozenset(
        n
        for n, span in enumerate(spans)
        if span.uri == citation.uri
        and span.source in (None, citation.source)
        and answers.supports(citation.quote, span.quote)
    )


def _spans(case: GoldenCase) -> tuple[GoldSpan, ...]:
    return () if case.must_refuse else case.spans


def _score(metric: str, value: float | None, why_empty: str = "") -> Score:
    return Score(metric, value, "scored") if value is not None else Score(metric, None, "empty", why_empty)
