"""Metrics of answers and their citations, against values worked out by hand and against laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_platform.evaluation.metrics import answers


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("The crane is 12 m high.", "12 m", 2 * (2 / 5) * 1 / (2 / 5 + 1)),  # crane is 12 m high | 12 m: 4/7
        ("Denver Broncos", "the Denver Broncos!", 1.0),
        ("in the year 1999", "1999", 0.5),  # P 1/3, R 1
        ("to be or not to be", "to be", 0.5),  # a word counts as often as both have it: P 2/6, R 1
        ("yes", "no", 0.0),
        ("", "no", 0.0),
        ("the", "a", 1.0),  # no words on either side
        ("“Krane” heben [1]", "krane heben", 1.0),  # typographic quotes and the marks of citations are no words
        ("$5,000", "5000", 1.0),
    ],
)
def test_token_f1(answer: str, reference: str, expected: float) -> None:
    """Harmonic mean of the precision and recall of the words."""
    assert answers.token_f1(answer, reference) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("It lifts 12 tons, at most. [2]", "12 tons", 1.0),
        ("It lifts 112 tons.", "12 tons", 0.0),  # words, not characters
        ("12 heavy tons", "12 tons", 0.0),  # one sequence
        ("The North Sea", "north sea", 1.0),
        ("", "north", 0.0),
        ("anything", "the", None),
    ],
)
def test_contains(answer: str, reference: str, expected: float | None) -> None:
    """The reference's words, one after the other, somewhere in the answer."""
    assert answers.contains(answer, reference) == expected


@pytest.mark.parametrize(
    ("quote", "gold", "expected"),
    [
        ("It lifts 12 tons.", "12 tons", True),  # a sentence around a short fact
        ("12 tons", "It lifts 12 tons.", True),  # and the other way round
        ("The crane\n  lifts 12 tons", "crane lifts 12 tons when dry", True),  # white space means nothing
        ("abcdefgh", "xxefghyyzz", True),  # 4 of the shorter's 8 characters
        ("abcdefgh", "xxfghyyzz", False),
        ("", "12 tons", False),
        ("12 tons", " ", False),
    ],
)
def test_supports(quote: str, gold: str, expected: bool) -> None:
    """One piece of half of the shorter one; symmetric."""
    assert answers.supports(quote, gold) == answers.supports(gold, quote) == expected


def test_citations() -> None:
    """Precision is over the citations, recall over the spans; what is not there is not 0."""
    cited = [frozenset({0}), frozenset[int](), frozenset({0, 2}), frozenset({0})]
    assert answers.citation_precision(cited) == 0.75
    assert answers.citation_recall(cited, 4) == 0.5
    assert answers.citation_precision([]) is None
    assert answers.citation_recall([], 2) == 0.0
    assert answers.citation_recall(cited, 0) is None


def test_refusals() -> None:
    """Right is to refuse what must be refused and nothing else."""
    assert [
        answers.refusal_accuracy(refused=r, must_refuse=m)
        for r, m in ((True, True), (False, False), (True, False), (False, True))
    ] == [1.0, 1.0, 0.0, 0.0]


texts = st.text(alphabet="ab ,.-é\n", max_size=20)


@given(texts, texts)
def test_token_f1_laws(a: str, b: str) -> None:
    """A share, symmetric, and 1 for a text and itself."""
    assert 0 <= answers.token_f1(a, b) <= 1
    assert answers.token_f1(a, b) == pytest.approx(answers.token_f1(b, a))
    assert answers.token_f1(a, a) == 1.0


@given(texts, texts, texts)
def test_what_is_put_around_an_answer_keeps_it_contained(before: str, text: str, after: str) -> None:
    """An answer that holds its reference holds it with more words around it."""
    assert answers.contains(f"{before} {text} {after}", text) in (1.0, None)
