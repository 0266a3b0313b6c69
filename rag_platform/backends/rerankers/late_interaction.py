"""The formulas of late interaction. Pure functions of numbers.

MaxSim is the sum over the question's tokens of the best cosine with any token of the passage (Khattab and
Zaharia, ColBERT, SIGIR 2020). MiniLM was trained to make one vector a text, so its token vectors are taken
with two corrections: tokens weigh what they tell (the article "the" finds its like everywhere), and what
the two legs of retrieval know is added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Float32 = np.ndarray[Any, np.dtype[np.float32]]
Float64 = np.ndarray[Any, np.dtype[np.float64]]
Int32 = np.ndarray[Any, np.dtype[np.int32]]

_FIRST_WORD, _VOCABULARY = 1996, 30_522
"""BERT's uncased vocabulary holds single characters up to 1995; from there words and pieces by falling
frequency: 1996 is "the"."""
_FLOOR = 0.1


def token_weights(ids: Int32, is_word: Sequence[bool], candidates: Sequence[Int32]) -> Float64:
    """Return float64 (tokens,): how much each token of the question tells, summing to 1.

    The product of a prior that grows with the logarithm of the rank in the vocabulary (Zipf's law makes
    that an inverse document frequency without a corpus) and of the inverse document frequency of BM25
    among the candidates, on top of a floor, since a token that all of them hold still has a best match.

    Args:
        ids: int32 (tokens,), the question's vocabulary ids.
        is_word: of each token whether it holds a letter or digit.
        candidates: ids of each candidate's tokens.
    """
    if not len(ids):
        return np.zeros(0)
    rank = np.maximum(ids.astype(np.float64) - _FIRST_WORD + 2, 2.0)
    prior = np.where(ids < _FIRST_WORD, 0.5, np.log(rank) / math.log(_VOCABULARY - _FIRST_WORD))
    prior = np.where(np.asarray(is_word, dtype=bool), prior, 0.05)
    holders = sum((np.isin(ids, c).astype(np.float64) for c in candidates), np.zeros(len(ids)))
    n = len(candidates)
    rarity = np.log1p((n - holders + 0.5) / (holders + 0.5)) / math.log1p((n + 0.5) / 0.5)
    weights = prior * (_FLOOR + rarity)
    found: Float64 = weights / weights.sum()
    return found


def maxsim(question: Float32, weights: Float64, passage: Float32) -> float:
    """Return the weighted mean over the question's tokens of the best cosine with a token of the passage.

    Args:
        question, passage: float32 (tokens, dimensions), unit length.
        weights: float64 (question tokens,), summing to 1.
    """
    if not len(question) or not len(passage):
        return 0.0
    return float((question @ passage.T).max(axis=1) @ weights)


def filled(scores: Sequence[float | None]) -> Float64 | None:
    """Return the scores of one leg, with the lowest for candidates that it did not find; None when it
    found none of them."""
    given = [s for s in scores if s is not None]
    if not given:
        return None
    lowest = min(given)
    return np.array([lowest if s is None else s for s in scores], dtype=np.float64)


def standardised(scores: Float64) -> Float64:
    """Return the scores less their mean, in standard deviations; zeros where all are equal."""
    spread = float(scores.std())
    if not spread > 1e-9 * max(1.0, float(np.abs(scores).max(initial=0.0))):
        return np.zeros(len(scores))
    found: Float64 = (scores - scores.mean()) / spread
    return found
