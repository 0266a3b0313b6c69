"""The extractive answer: the sentences of the passages that answer the question, word for word.

It is the generator of an installation without a language model, and what is left when the model is down. It
invents nothing: what it cannot quote it does not say, and where nothing supports an answer it refuses.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rag_platform.backends.token_encoder import TokenEncoder, TokenVectors
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.query import refusal
from rag_platform.query.answer import Citation
from rag_platform.query.passage import Passage
from rag_platform.query.relevance import Asked, Match, max_similarities, token_weights
from rag_platform.query.sanitise import addresses, sanitise
from rag_platform.query.statements import Statement, statements, unescaped
from rag_platform.query.terms import terms

REFUSAL = "The documents do not answer this question."
QUOTED = "Quoted from the documents:"

SHORTLIST = 10
"""Statements that are encoded: the best by words. Measured: with 8 as good as with all of them."""
MAX_TOKENS = 160
"""Tokens of a statement that are encoded."""
_SAME = 0.8
_MARGIN = 4.0
"""A further quote that fits so much worse than the best is noise."""


@dataclass(frozen=True, slots=True)
class Quote:
    """``text`` is the parsed document's ``[start, end)``, within passage ``passage_number``. ``score``, 0 to 1, says
    how like the question it is; only comparable within one answer."""

    passage_number: int
    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Extraction:
    """Quotes, best first.

    Attributes:
        supported: False: the passages do not seem to answer the question, and the answer is a refusal.
        support: 0 to 1, how likely the passages answer it.
        by_words: the quotes were chosen without token vectors.
    """

    quotes: list[Quote]
    supported: bool
    support: float
    by_words: bool


class Extractor:
    """Chooses quotes by words first, then by late interaction. Safe to share."""

    def __init__(self, encoder: TokenEncoder) -> None:
        self._encoder = encoder

    async def extract(
        self, question: str, passages: Sequence[Passage], *, sentences: int = 2, timeout_s: float
    ) -> Extraction:
        """Return at most ``sentences`` quotes of ``passages``; by words alone when the encoder fails or is late."""
        reading = await asyncio.to_thread(_Reading, question, passages)
        shortlist = reading.shortlist()
        try:
            asked, *encoded = await self._encoder.encode(
                [question, *(reading.compared(i) for i in shortlist)], max_tokens=MAX_TOKENS, timeout_s=timeout_s
            )
        except (DependencyError, ConfigurationError):
            return reading.by_words(sentences)
        return await asyncio.to_thread(reading.by_tokens, shortlist, asked, encoded, sentences)


def extract_by_words(question: str, passages: Sequence[Passage], *, sentences: int = 2) -> Extraction:
    """Return at most ``sentences`` quotes without any model; at least one when a passage holds text."""
    return _Reading(question, passages).by_words(sentences)


def compose(
    extraction: Extraction, passages: Sequence[Passage], *, opening: str = QUOTED
) -> tuple[str, list[Citation]]:
    """Return the answer's text and its citations: ``opening``, then each quote with its number.

    Citations hold the exact text of the document. The answer shows it without what could load or lead
    somewhere else, and without Markdown's backslashes.
    """
    if not extraction.quotes:
        return REFUSAL, []
    by_number = {p.number: p for p in passages}
    cited = [
        by_number[q.passage_number].citation(n, q.start, q.end, q.text, q.score)
        for n, q in enumerate(extraction.quotes, 1)
    ]
    lines = []
    for citation, quote in zip(cited, extraction.quotes, strict=True):
        shown = sanitise(unescaped(quote.text), addresses([by_number[quote.passage_number]])).strip()
        lines.append(f"“{shown}” [{citation.number}]")
    return "\n\n".join([opening, *lines]), cited


class _Reading:
    """The passages, taken apart for one question."""

    def __init__(self, question: str, passages: Sequence[Passage]) -> None:
        self._question, self._passages = question, passages
        self._found = statements(passages) or _whole(passages)
        self._asked = Asked(question, self._found)
        self._words = self._asked.by_words()

    def shortlist(self) -> list[int]:
        """Return the statements that are worth encoding, in the order of the text."""
        best = np.argsort(-self._words.scores, kind="stable")[:SHORTLIST]
        return sorted(best.tolist())

    def compared(self, i: int) -> str:
        """Return the statement with what it stands below, as it is encoded."""
        s = self._found[i]
        return f"{s.context}. {s.text}" if s.context else s.text

    def by_words(self, sentences: int) -> Extraction:
        return self._extraction(self._words, sentences, by_words=True)

    def by_tokens(
        self, shortlist: Sequence[int], asked: TokenVectors, encoded: Sequence[TokenVectors], sentences: int
    ) -> Extraction:
        weights = token_weights(self._question, asked)
        if not shortlist or not weights.any():
            return self.by_words(sentences)
        nearest = max_similarities(asked, encoded)
        match = self._asked.by_tokens(shortlist, nearest, weights)
        return self._extraction(match, sentences, by_words=False)

    def _extraction(self, match: Match, sentences: int, *, by_words: bool) -> Extraction:
        order = [i for i in np.argsort(-match.scores, kind="stable").tolist() if np.isfinite(match.scores[i])]
        quotes = self._quotes(order, match, sentences)
        model = refusal.BY_WORDS if by_words else refusal.BY_TOKENS
        support = refusal.support(self._question, self._passages, self._asked, match, model) if quotes else 0.0
        return Extraction(quotes, support >= model.threshold, support, by_words)

    def _quotes(self, order: Sequence[int], match: Match, sentences: int) -> list[Quote]:
        chosen: list[int] = []
        for i in order:
            if len(chosen) >= sentences or (chosen and match.scores[i] < match.scores[order[0]] - _MARGIN):
                break
            if not any(self._repeats(i, c) for c in chosen):
                chosen.append(i)
        spans: list[_Span] = []
        for i in chosen:
            s = self._found[i]
            score = match.covered[i] if np.isnan(match.similarity[i]) else match.similarity[i]
            _add(spans, _Span(s.passage, s.start, s.end, float(np.clip(score, 0.0, 1.0))), self._passages)
        return [
            Quote(p.number, p.start + s.start, p.start + s.end, p.text[s.start : s.end], round(s.score, 4))
            for s in spans
            for p in [self._passages[s.passage]]
        ]

    def _repeats(self, i: int, earlier: int) -> bool:
        a, b = self._found[i], self._found[earlier]
        if a.passage == b.passage and a.own < b.end and b.start < a.end:
            return True
        mine, theirs = set(terms(a.text)), set(terms(b.text))
        return len(mine & theirs) >= _SAME * len(mine | theirs)


@dataclass(frozen=True, slots=True)
class _Span:
    passage: int
    start: int
    end: int
    score: float


def _add(spans: list[_Span], new: _Span, passages: Sequence[Passage]) -> None:
    """Add a span to those chosen before; what overlaps or stands side by side becomes one quote."""
    text = passages[new.passage].text
    for n, old in enumerate(spans):
        if old.passage != new.passage:
            continue
        first, second = (old, new) if old.start <= new.start else (new, old)
        gap = text[first.end : second.start]
        if second.start <= first.end or (not gap.strip() and "\n\n" not in gap):
            del spans[n]
            joined = _Span(new.passage, first.start, max(first.end, second.end), max(old.score, new.score))
            _add(spans, joined, passages)
            spans.insert(min(n, len(spans) - 1), spans.pop())
            return
    spans.append(new)


_TEXT = re.compile(r"\S(?:.*\S)?", re.DOTALL)


def _whole(passages: Sequence[Passage]) -> list[Statement]:
    """Return the passages themselves, trimmed: better than nothing when they hold only headings."""
    found = []
    for index, passage in enumerate(passages):
        match = _TEXT.search(passage.text)
        if match:
            text = match.group()
            found.append(Statement(index, match.start(), match.start(), match.end(), text, passage.hit.title, False))
    return found
