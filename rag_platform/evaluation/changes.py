"""How much the answer to one question differs between two releases. Pure functions; nothing here knows which is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rag_platform.evaluation.metrics.answers import token_f1


@dataclass(frozen=True, slots=True)
class Side:
    """What one release said.

    Attributes:
        documents: uris in the order in which they were found, each once.
        answer: None when only retrieval was asked for.
        refused: False without an answer.
        cited: uris that the answer cites.
        ms: wall time in milliseconds.
        usd: None when a price is unknown.
    """

    documents: tuple[str, ...]
    answer: str | None
    refused: bool
    cited: tuple[str, ...]
    ms: float
    usd: float | None


@dataclass(frozen=True, slots=True)
class Change:
    """The differences of two sides, each from 0 (none) to 1.

    Attributes:
        documents: 1 minus the overlap of the documents found, as sets (Jaccard).
        ranks: 1 minus their average overlap: where the rankings part, the earlier the more.
        answer: of the words of the two answers; 1 when one of them is a refusal. None without answers.
        score: what the most changed questions are found by: the mean of ``ranks`` and ``answer``, or ``ranks`` alone.
    """

    documents: float
    ranks: float
    answer: float | None
    score: float


def change(before: Side, after: Side) -> Change:
    """Compare two sides; the order of the two does not matter."""
    ranks = 1.0 - average_overlap(before.documents, after.documents)
    answer: float | None = None
    if before.answer is not None and after.answer is not None:
        if before.refused or after.refused:
            answer = float(before.refused != after.refused)
        else:
            answer = 1.0 - token_f1(before.answer, after.answer)
    score = ranks if answer is None else (ranks + answer) / 2
    return Change(1.0 - jaccard(before.documents, after.documents), ranks, answer, score)


def jaccard(one: Sequence[str], other: Sequence[str]) -> float:
    """Return the size of the intersection divided by that of the union; 1 when both are empty."""
    together = set(one) | set(other)
    return len(set(one) & set(other)) / len(together) if together else 1.0


def average_overlap(one: Sequence[str], other: Sequence[str]) -> float:
    """Return the mean, over the depths 1 to the longer length, of the share of what both have down to that depth.

    Webber, Moffat, Zobel, *A Similarity Measure for Indefinite Rankings* (ACM TOIS 28(4), 2010), section 3.2: weighs the
    first ranks most, and needs no item in both rankings. At a depth that only one of them reaches, the share is of what the
    longer one has there. 1 when both are empty. The items of each are distinct.
    """
    depth = max(len(one), len(other))
    if depth == 0:
        return 1.0
    return sum(len(set(one[:d]) & set(other[:d])) / d for d in range(1, depth + 1)) / depth
