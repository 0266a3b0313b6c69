"""Whether the passages answer the question at all, or whether the honest answer is a refusal.

A question whose words, above all its names, stand nowhere near the best statement is not answered by it. The
share that is missing, and the likeness of token vectors, are turned into a probability by a logistic regression,
fitted on 708 questions about four corpora: 315 that they answer; questions that were asked of another corpus than
their own; questions of our own that the corpus might answer and does not; SQuAD questions whose passage was taken
away. At the threshold 5 % of 520 SQuAD questions are refused (360 of them took no part in the fit), 1 of 35 and none of
120 on the other corpora; 94 % of the unanswerable ones (cross-validated), 62 % of those whose passage was taken away.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rag_platform.query.passage import Passage
from rag_platform.query.relevance import Asked, Match
from rag_platform.query.terms import terms

_NAMED = re.compile(r"(?<!^)(?<![.!?] )\b[A-Z][\w’'.-]*\w|\b\w*\d[\w.]*|\b\w+[_-]\w+|\b[A-Z]{2,}\b")
"""Names, numbers and identifiers; the first word of a question is capitalised anyway."""


@dataclass(frozen=True, slots=True)
class Model:
    """Weights of a logistic regression; a support below ``threshold`` is a refusal.

    Attributes:
        shared, covered: of the share of the question's terms in the best statement and what it stands below, plain
            and weighted by rarity.
        absent_beside, absent: of the share of terms that its passage, and all passages, lack.
        names_absent: of the share of names that its passage lacks.
        similarity, reached: of the statement's MaxSim, and of how near the meaning words come to any statement.
    """

    shared: float
    covered: float
    absent_beside: float
    absent: float
    names_absent: float
    similarity: float
    reached: float
    bias: float
    threshold: float


BY_TOKENS = Model(2.0, 0.0, -3.4, 0.0, -1.2, 5.0, 3.8, bias=-5.2, threshold=0.35)
BY_WORDS = Model(3.4, 1.6, -3.5, -2.3, -1.7, 0.0, 0.0, bias=-0.3, threshold=0.28)


def support(question: str, passages: Sequence[Passage], asked: Asked, match: Match, model: Model) -> float:
    """Return, 0 to 1, how likely the passages answer the question, judged by the statement that fits best."""
    best = int(np.argmax(match.scores))
    wanted = set(asked.terms)
    there = [set(terms(f"{p.text} {p.hit.title} {p.hit.heading_path}")) for p in passages]
    beside = there[asked.found[best].passage]
    names = {t for name in _NAMED.findall(question) for t in terms(name)} & wanted
    logit = (
        model.shared * asked.shared[best]
        + model.covered * match.covered[best]
        + model.absent_beside * _share(wanted - beside, wanted)
        + model.absent * _share(wanted - set().union(*there), wanted)
        + model.names_absent * _share(names - beside, names)
        + model.bias
    )
    if model.similarity or model.reached:
        logit += model.similarity * match.similarity[best] + model.reached * match.reached
    return 1.0 / (1.0 + math.exp(-logit))


def _share(part: set[str], whole: set[str]) -> float:
    return len(part) / len(whole) if whole else 0.0
