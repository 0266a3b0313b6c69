"""What scores an answer beside the platform's own metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rag_platform.ledger.evaluations import ScoreState

__all__ = ["Evaluator", "Sample", "Score", "ScoreState"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One question as it was answered, with what is known about the right answer.

    Attributes:
        case_id: of the golden case, or of the logged question.
        answer: its text; of a refusal, the words of the refusal.
        contexts: texts of the passages that the answer was made from, best first.
        reference: the right answer; None of live traffic.
        reference_contexts: the gold spans' quotes; empty of live traffic.
        refused: the platform declined to answer.
    """

    case_id: str
    question: str
    answer: str
    contexts: tuple[str, ...]
    reference: str | None
    reference_contexts: tuple[str, ...]
    refused: bool


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one sample.

    Attributes:
        value: None unless ``state`` is ``scored``.
        detail: why there is no value; never text of the sample.
        usd: what computing it cost; 0 where the price is unknown.
    """

    metric: str
    value: float | None
    state: ScoreState
    detail: str = ""
    usd: float = 0.0


class Evaluator(Protocol):
    """Scores samples, several at a time on one event loop. Construction does no I/O.

    Attributes:
        name: of the evaluator and its version; part of what pins an evaluation.
        metrics: every metric it can give.
        judge: the model that judges, with a digest of all that decides its scores; None without one.
        notes: sentences for the report about what was left for another day, and why; without text of a sample.
    """

    @property
    def name(self) -> str: ...

    @property
    def metrics(self) -> tuple[str, ...]: ...

    @property
    def judge(self) -> str | None: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    async def score(self, sample: Sample) -> list[Score]:
        """Return one score a metric. A metric that is left for another day (the budget is used up) is missing from
        the list: whoever evaluates asks for it again.

        Raises:
            DependencyError: what it needs is down. No score was made of this sample.
        """
        ...

    async def aclose(self) -> None: ...
