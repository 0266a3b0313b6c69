"""All scores of one case: the platform's own, and those of the evaluators beside it."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from rag_platform.evaluation.evaluators.base import Evaluator, Sample, Score
from rag_platform.evaluation.golden import GoldenCase
from rag_platform.evaluation.measure import measure, measured_metrics
from rag_platform.ledger.evaluations import CaseRow, ScoreRow
from rag_platform.query.offline import Outcome


class CaseScores:
    """What is scored of every case of an evaluation.

    Args:
        answers: whether answers are asked for; without them nothing of them is scored, and no evaluator is used.

    Attributes:
        metrics: names of all scores of a case.
    """

    def __init__(self, evaluators: Sequence[Evaluator], *, answers: bool) -> None:
        self.evaluators = tuple(evaluators) if answers else ()
        self.metrics = (*measured_metrics(answered=answers), *(m for e in self.evaluators for m in e.metrics))

    async def of_outcome(
        self, evaluation_id: str, case: GoldenCase, outcome: Outcome, scored: Collection[str]
    ) -> list[ScoreRow]:
        """Score what came of a case.

        Args:
            scored: metrics that the case has already; an evaluator that gave all of its own is not paid again.

        Raises:
            DependencyError: an evaluator's dependency is down.
        """
        rows = [_row(evaluation_id, case, s) for s in measure(case, outcome)]
        answer = outcome.answer
        if answer is None or not self.evaluators:
            return rows
        sample = Sample(
            case_id=case.case_id,
            question=case.question,
            answer=answer.answer,
            contexts=tuple(p.text for p in outcome.passages),
            reference=case.answer,
            reference_contexts=tuple(s.quote for s in case.spans),
            refused=answer.refused,
        )
        for evaluator in self.evaluators:
            if set(scored).issuperset(evaluator.metrics):
                continue
            started = time.perf_counter()
            scores = await evaluator.score(sample)
            seconds = (time.perf_counter() - started) / max(1, len(scores))
            rows += [_row(evaluation_id, case, s, seconds) for s in scores]
        return rows

    def of_failure(self, evaluation_id: str, case: GoldenCase, failure: Exception) -> list[ScoreRow]:
        """Count a case that got no answer as failed in every metric."""
        return [_row(evaluation_id, case, Score(metric, None, "failed", str(failure))) for metric in self.metrics]


def case_row(
    evaluation_id: str, case: GoldenCase, outcome: Outcome | None, failure: Exception | None, seconds: float
) -> CaseRow:
    """Return what the ledger keeps of a case beside its scores."""
    return CaseRow(
        evaluation_id,
        case.case_id,
        refused=None if outcome is None or outcome.answer is None else outcome.answer.refused,
        uris=() if outcome is None else _uris(outcome),
        failure=None if failure is None else type(failure).__name__,
        seconds=seconds,
        usd=None if outcome is None else outcome.usd,
    )


def _row(evaluation_id: str, case: GoldenCase, score: Score, seconds: float = 0.0) -> ScoreRow:
    value = score.value if score.state == "scored" else None
    return ScoreRow(evaluation_id, case.case_id, score.metric, value, score.state, score.detail, seconds, score.usd)


def _uris(outcome: Outcome) -> tuple[str, ...]:
    """The documents that an answer cites or, without one, of the ten best passages; each once."""
    places: Sequence[str] = [h.uri for h in outcome.hits[:10]]
    if outcome.answer is not None:
        places = [c.uri for c in outcome.answer.citations]
    return tuple(dict.fromkeys(places))
