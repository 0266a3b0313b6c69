"""How well a passage supports a statement, by words: no model, the same result every time.

The measure is the share of the statement's terms, names counting more, that stand close together in the
passage. Overlap of words is what reference-free checks of attribution fall back on (Rashkin et al.,
"Measuring attribution in natural language generation models", 2023, discuss its limits): it cannot tell a
paraphrase from an invention. So numbers and polarity, where inventions hurt most, are checked apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from rag_platform.query import sentences
from rag_platform.query.passage import Passage
from rag_platform.query.terms import stem, terms

WINDOW = 3
"""Sentences in a row that together may support one statement."""
_NAME_WEIGHT = 3.0
_SAME_CLAIM = 0.6
"""Share of a sentence's terms from which a statement is taken to claim the same, so that polarity can be compared."""

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_NAME = re.compile(r"(?<=[\w,;:)»”\"'] )[\"'“(]?([A-Z][\w’'-]{2,}|[A-Z]{2,}\w*)|\b(\w+[A-Z_]\w*|\w*_\w+)\b")
_NEGATION = re.compile(
    r"\b(?:not|no|never|none|nor|neither|nothing|without|cannot|unable|nicht|kein\w*|nie|ohne)\b|\w+n[’']t\b", re.I
)
_WORDS = dict(
    zip("zero one two three four five six seven eight nine ten eleven twelve".split(), map(str, range(13)), strict=True)  # noqa: SIM905
)


class Statement:
    """A sentence, or a part of one, to look for support for."""

    def __init__(self, text: str) -> None:
        text = text[sentences.item_marker(text) :]
        self.terms = frozenset(terms(text))
        self.numbers = frozenset(_numbers(text))
        self.negated = len(_NEGATION.findall(text)) % 2 == 1
        names = {stem(part) for m in _NAME.finditer(text) for part in terms(m.group(1) or m.group(2))}
        self.weights = {t: _NAME_WEIGHT if t in names else 1.0 for t in self.terms}
        self.weight = sum(self.weights.values())

    @property
    def checkable(self) -> bool:
        """Whether it says enough to be right or wrong: "Here is what I found:" does not."""
        return len(self.terms) >= 2 or bool(self.numbers)


@dataclass(frozen=True, slots=True)
class Found:
    """What of a statement one passage holds.

    Attributes:
        terms, numbers: those of the statement's: terms close together, numbers anywhere.
        contrary: the sentence claims the same with the opposite polarity.
        start, end: the passage's sentence that shares most with it, as offsets into the passage's text.
    """

    terms: frozenset[str]
    numbers: frozenset[str]
    contrary: bool
    start: int
    end: int


def share(statement: Statement, found: Sequence[Found]) -> float:
    """Return the weight of the statement's terms that these passages hold together, 0 to 1; 0 also where
    they lack a number of it, or one of them says the contrary."""
    if not statement.terms or any(f.contrary for f in found):
        return 0.0
    if statement.numbers - frozenset().union(*(f.numbers for f in found)):
        return 0.0
    held = frozenset[str]().union(*(f.terms for f in found))
    return sum(statement.weights[t] for t in held) / statement.weight


class Evidence:
    """A passage, taken apart once for all statements."""

    def __init__(self, passage: Passage) -> None:
        self.passage = passage
        self._spans = sentences.split(passage.text)

    @cached_property
    def _sentences(self) -> list[frozenset[str]]:
        return [frozenset(terms(self.passage.text[a:b])) for a, b in self._spans]

    @cached_property
    def _negated(self) -> list[bool]:
        return [len(_NEGATION.findall(self.passage.text[a:b])) % 2 == 1 for a, b in self._spans]

    @cached_property
    def _context(self) -> frozenset[str]:
        """Terms that stand above the text: what it is about need not be repeated in each sentence."""
        return frozenset(terms(f"{self.passage.hit.title} {self.passage.hit.heading_path}"))

    @cached_property
    def _numbers(self) -> frozenset[str]:
        hit = self.passage.hit
        return frozenset(_numbers(f"{self.passage.text}\n{hit.title}\n{hit.heading_path}"))

    def find(self, statement: Statement) -> Found:
        """Return what of ``statement`` the passage holds."""

        def weight(terms_: frozenset[str]) -> float:
            return sum(statement.weights[t] for t in statement.terms & terms_)

        weights = [weight(sentence) for sentence in self._sentences]
        best = max(range(len(weights)), key=weights.__getitem__, default=-1)
        if best < 0 or not weights[best]:
            return Found(frozenset(), frozenset(), False, 0, 0)
        window = max(self._windows(), key=lambda terms_: weight(terms_ | self._context)) | self._context
        numbers = frozenset(n for n in statement.numbers if self._has(n))
        return Found(statement.terms & window, numbers, self._contradicts(statement, best), *self._spans[best])

    def _windows(self) -> Iterator[frozenset[str]]:
        for first in range(max(1, len(self._sentences) - WINDOW + 1)):
            yield frozenset[str]().union(*self._sentences[first : first + WINDOW])

    def _has(self, number: str) -> bool:
        return number in self._numbers or any(n.startswith(f"{number}.") for n in self._numbers)

    def _contradicts(self, statement: Statement, best: int) -> bool:
        said = self._sentences[best]
        same_claim = len(said & statement.terms) >= _SAME_CLAIM * max(len(said), len(statement.terms))
        return same_claim and self._negated[best] != statement.negated


def _numbers(text: str) -> Iterator[str]:
    for match in _NUMBER.finditer(text):
        yield match.group().replace(",", "")
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in _WORDS:
            yield _WORDS[word]
