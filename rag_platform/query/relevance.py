"""How well a statement answers a question: by the words they share, and by the vectors of their tokens.

The weights were fitted (listwise logistic regression) on 293 questions about four corpora: SQuAD, AWS guides,
Kubernetes pages and this project's own. With each corpus held out in turn they were as good on it as when it
was among them, so they are rounded and left alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rag_platform.backends.token_encoder import TokenVectors
from rag_platform.query.statements import Statement
from rag_platform.query.terms import is_stop_word, terms

Floats = np.ndarray[Any, np.dtype[np.float64]]

_WORD_WEIGHTS = np.array([5.5, 1.1, 2.1, -1.9, 0.25, 0.4])
_WEIGHTS = np.array([1.6, 1.3, 2.1, -2.3, 0.5, 0.18])
_MAXSIM_WEIGHT = 11.0
_STOP_WORD_SHARE, _PUNCTUATION_SHARE = 0.3, 0.1
_UNKNOWN_TOKEN = 100
"""[UNK] of BERT's vocabularies: it is like every other unknown token and says nothing."""

_NEW_WORDS = 6
_ASKS_NUMBER = re.compile(
    r"\b(?:how (?:many|much|long|often|old|far|large|big|high|tall|fast|deep|wide)|maximum|minimum|limit|number|"
    r"percent(?:age)?|size|price|cost|when|years?|version|port|dates?|share|population|amount|weight|default)\b"
    r"|多少|几|何时|什么时候|いつ|いくつ|何人",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d[\d.,]*\d|\d")
_NUMBER_WORD = re.compile(
    r"\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|hundred|thousand|million|billion|half|"
    r"third|quarter|once|twice|january|february|march|april|june|july|august|september|october|november|december)\b",
    re.IGNORECASE,
)
_POINTS_ELSEWHERE = re.compile(
    r"(?:for (?:more|additional|further|detailed|information|details|instructions|an? (?:example|overview))\b.{0,120}\bsee\b"
    r"|see\b|learn (?:how|more|about)\b|read\b|refer to\b|to learn more\b|more information\b|click\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Match:
    """How the statements fit, one row a statement.

    Attributes:
        scores: comparable within one question; larger is better.
        covered: share of the question's words, weighted by rarity, in the statement and what it stands below.
        similarity: MaxSim of the question's tokens, 0 to 1; nan where it was not computed.
        reached: how near the words that carry the question's meaning come to any statement, 0 to 1; nan without tokens.
    """

    scores: Floats
    covered: Floats
    similarity: Floats
    reached: float


class Asked:
    """A question compared by words with all statements that might answer it.

    Words are weighted by how few of the statements hold them (inverse document frequency).

    Attributes:
        found: the statements.
        terms: of the question, each once.
        shared: per statement, the share of them in it and what it stands below, unweighted.
    """

    def __init__(self, question: str, found: Sequence[Statement]) -> None:
        self.found = found
        self.terms = list(dict.fromkeys(terms(question)))
        own = [set(terms(s.text)) for s in found]
        above = {context: set(terms(context)) for context in {s.context for s in found}}
        joined = [o | above[s.context] for o, s in zip(own, found, strict=True)]
        self.shared = [len(words.intersection(self.terms)) / (len(self.terms) or 1) for words in joined]
        weights = {t: math.log((len(found) + 1) / (0.5 + sum(t in words for words in joined))) for t in self.terms}
        total = sum(weights.values()) or 1.0
        numbers = set(_NUMBER.findall(question))
        asks_number = _ASKS_NUMBER.search(question) is not None
        asked = set(self.terms)

        def row(s: Statement, words: set[str], with_context: set[str]) -> list[float]:
            return [
                sum(weights[t] for t in self.terms if t in with_context) / total,
                sum(weights[t] for t in self.terms if t in words) / total,
                float(asks_number and _has_number(s.text, numbers)),
                float(s.only_links or _POINTS_ELSEWHERE.match(s.text) is not None),
                min(len(words - asked), _NEW_WORDS) / _NEW_WORDS,  # an answer says something that was not asked
                -float(s.passage),
            ]

        self._features = np.array([row(*each) for each in zip(found, own, joined, strict=True)]).reshape(-1, 6)

    def by_words(self) -> Match:
        """Return how the statements fit by words alone."""
        covered = self._features[:, 0]
        return Match(self._features @ _WORD_WEIGHTS, covered, np.full(len(covered), np.nan), np.nan)

    def by_tokens(self, chosen: Sequence[int], nearest: Floats, weights: Floats) -> Match:
        """Return how the statements of ``chosen`` fit; the others come last.

        Args:
            nearest: (chosen, question tokens), see ``max_similarities``.
            weights: (question tokens,), see ``token_weights``; not all 0.
        """
        similarity = nearest @ weights
        scores = np.full(len(self._features), -np.inf)
        picked = np.asarray(chosen, dtype=np.intp)
        scores[picked] = self._features[picked] @ _WEIGHTS + _MAXSIM_WEIGHT * similarity
        full = np.full(len(scores), np.nan)
        full[picked] = similarity
        reached = nearest.max(axis=0)[weights >= weights.max()].mean()
        return Match(scores, self._features[:, 0], full, float(reached))


def _has_number(text: str, asked: set[str]) -> bool:
    return any(n not in asked for n in _NUMBER.findall(text)) or _NUMBER_WORD.search(text) is not None


def token_weights(question: str, encoded: TokenVectors) -> Floats:
    """Return (tokens,) what each token of the question counts; sums to 1, or is all 0 when none says anything."""
    weights = np.ones(len(encoded.ids))
    for i, ((start, end), token) in enumerate(zip(encoded.offsets.tolist(), encoded.ids.tolist(), strict=True)):
        if token == _UNKNOWN_TOKEN:
            weights[i] = 0.0
            continue
        while start > 0 and question[start - 1].isalnum():
            start -= 1
        while end < len(question) and question[end].isalnum():
            end += 1
        word = question[start:end].lower()
        if not word.isalnum():
            weights[i] = _PUNCTUATION_SHARE
        elif is_stop_word(word):
            weights[i] = _STOP_WORD_SHARE
    total = weights.sum()
    return weights / total if total else weights


def max_similarities(question: TokenVectors, texts: Sequence[TokenVectors]) -> Floats:
    """Return float64 (texts, question tokens): each question token's cosine with the token of the text that is
    most like it, the summand of MaxSim (Khattab and Zaharia, "ColBERT", SIGIR 2020); 0 for a text without tokens."""
    rows = [(question.vectors @ t.vectors.T).max(axis=1) if len(t.ids) else np.zeros(len(question.ids)) for t in texts]
    return np.asarray(rows, dtype=np.float64).reshape(len(texts), len(question.ids))
