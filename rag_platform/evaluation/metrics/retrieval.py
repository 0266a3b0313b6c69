"""Quality of a ranking, measured on gold spans.

A ranking is given as what each of its chunks covers: a list, best chunk first, of sets of span numbers. What is to be
found are the spans, not the chunks: how a document was cut decides how early a span is found, not how much there is to
find. So every value is between 0 and 1 for any chunking, and releases that chunk differently can be compared.

Every function is None without gold spans: there is nothing to find, which is another thing than finding nothing (0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Ranking = Sequence[frozenset[int]]


def recall(ranking: Ranking, spans: int, k: int) -> float | None:
    """Return the share of the ``spans`` that the first ``k`` chunks cover between them.

    Manning, Raghavan, Schütze, *Introduction to Information Retrieval* (2008), section 8.3, with the spans as the
    relevant items.
    """
    if not spans:
        return None
    return len(frozenset().union(*ranking[:k])) / spans


def precision(ranking: Ranking, spans: int, k: int) -> float | None:
    """Return the share of the first ``k`` places that hold a chunk that covers a span; places left empty count as
    wrong.

    P@k of the same book, section 8.4, and of ``trec_eval``, which divides by k too. With one span in one chunk it
    cannot exceed 1/k.
    """
    if not spans:
        return None
    return sum(bool(covered) for covered in ranking[:k]) / k


def reciprocal_rank(ranking: Ranking, spans: int) -> float | None:
    """Return 1 / rank of the first chunk that covers a span; 0 when none does.

    Voorhees, *The TREC-8 Question Answering Track Report* (1999); its mean over the questions is the MRR.
    """
    if not spans:
        return None
    return next((1 / rank for rank, covered in enumerate(ranking, 1) if covered), 0.0)


def ndcg(ranking: Ranking, spans: int, k: int) -> float | None:
    """Return the normalised discounted cumulative gain of the first ``k`` chunks.

    DCG = Σ 1 / log2(rank + 1) over the relevant items found, divided by that of the best possible ranking
    (Järvelin, Kekäläinen, *Cumulated gain-based evaluation of IR techniques*, 2002, in the form with log2(rank + 1)
    and binary gains). The items are the spans:

    - a span counts once, at the first chunk that covers it; to repeat it gains nothing (α-nDCG with α = 1: Clarke et
      al., *Novelty and diversity in information retrieval evaluation*, 2008);
    - of spans that one chunk covers together, the j-th that is found counts at rank j at the earliest. Otherwise a
      large chunk would be better than the best ranking.

    So it is 1 exactly when no place before the last span was found is wasted, and where no chunk covers two spans
    and none repeats one, it is the textbook's value.
    """
    if not spans:
        return None
    seen: set[int] = set()
    found: list[int] = []
    for rank, covered in enumerate(ranking[:k], 1):
        found += [rank] * len(covered - seen)
        seen |= covered
    wanted = min(spans, k)
    gain = sum(_discount(max(rank, j)) for j, rank in enumerate(found[:wanted], 1))
    return gain / sum(_discount(j) for j in range(1, wanted + 1))


def _discount(rank: int) -> float:
    return 1 / math.log2(rank + 1)
