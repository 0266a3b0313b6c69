"""Quality of an answer: its words against the reference answer, its citations against the gold spans."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

from rag_platform.evaluation.spans import squeeze

SUPPORTS = 0.5
"""Of the shorter of a citation's quote and a gold quote, the share that must stand in the other as one piece."""

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_MARKS = re.compile(r"\[\d{1,3}\]")
_OWN_SYMBOLS = frozenset("$+<=>^`|~")  # what SQuAD's script takes for punctuation and Unicode does not


def answer_words(text: str) -> list[str]:
    """Return the words that are compared: lower case, without punctuation, articles and the marks of citations.

    ``normalize_answer`` of SQuAD's official script (``evaluate-v1.1.py``), for punctuation of any script.
    """
    lowered = _MARKS.sub(" ", unicodedata.normalize("NFC", text)).lower()
    kept = "".join(c for c in lowered if not unicodedata.category(c).startswith("P") and c not in _OWN_SYMBOLS)
    return _ARTICLES.sub(" ", kept).split()


def token_f1(answer: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall of the answer's words, as bags; 1 when neither has any.

    Rajpurkar et al., *SQuAD: 100,000+ Questions for Machine Comprehension of Text* (2016), section 6.1. A short
    reference gives low values for an answer in whole sentences, whatever its quality: compare releases by it, and
    read ``contains`` beside it.
    """
    given, wanted = answer_words(answer), answer_words(reference)
    if not given or not wanted:
        return float(given == wanted)
    same = sum((Counter(given) & Counter(wanted)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(given), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


def contains(answer: str, reference: str) -> float | None:
    """Return 1 when the words of the reference stand in the answer as one sequence, 0 when not.

    ``has_answer`` of Chen et al., *Reading Wikipedia to Answer Open-Domain Questions* (2017), with the words of
    ``answer_words``. None for a reference without words.
    """
    given, wanted = answer_words(answer), answer_words(reference)
    if not wanted:
        return None
    starts = range(len(given) - len(wanted) + 1)
    return float(any(given[i : i + len(wanted)] == wanted for i in starts))


def supports(quote: str, gold: str) -> bool:
    """Whether a citation's quote and a gold quote are about the same stretch of text: one piece of it holds half of
    the shorter one's characters, white space aside."""
    a, b = squeeze(quote), squeeze(gold)
    if not a or not b:
        return False
    shorter = min(len(a), len(b))
    if a in b or b in a:
        return True
    match = SequenceMatcher(None, a, b, autojunk=False).find_longest_match()
    return match.size >= SUPPORTS * shorter


def citation_precision(cited: Sequence[frozenset[int]]) -> float | None:
    """Return the share of the citations that show a gold span; None without citations.

    ``cited`` is, for each citation, the numbers of the gold spans that it shows. As citation precision in Gao et al.,
    *Enabling Large Language Models to Generate Text with Citations* (2023), with spans in the place of a model that
    judges entailment.
    """
    return sum(bool(spans) for spans in cited) / len(cited) if cited else None


def citation_recall(cited: Sequence[frozenset[int]], spans: int) -> float | None:
    """Return the share of the gold spans that some citation shows; None without gold spans. Of the same source."""
    return len(frozenset().union(*cited)) / spans if spans else None


def refusal_accuracy(*, refused: bool, must_refuse: bool) -> float:
    """Return 1 when what should be refused was refused, or what should be answered was answered; otherwise 0."""
    return float(refused == must_refuse)
