"""Which questions share an answer: hand-written pairs, and the questions of SQuAD about one paragraph."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_platform.query.agreement import agree
from rag_platform.query.wording.vector import DIMENSIONS, word_vector
from rag_platform.query.wording.words import stem
from rag_platform_tests.query.paraphrases import HELD_OUT, LOOK_ALIKES, WORDINGS


@pytest.mark.parametrize("pair", LOOK_ALIKES, ids=lambda p: p[0])
def test_look_alikes_never_agree(pair: tuple[str, str]) -> None:
    """A number, a "not", a name, the kind of question, an opposite, a direction or another subject."""
    assert not agree(*pair) and not agree(*pair[::-1])


@pytest.mark.parametrize(
    ("asked", "cached"),
    [
        ("Who defeated Rome?", "Who did Rome defeat?"),
        ("Who defeated Rome?", "Who was defeated by Rome?"),
        ("Did Rome defeat Carthage?", "Did Carthage defeat Rome?"),
        ("Who is the president?", "Who was the president?"),
        ("How do I copy files to S3?", "How do I copy files from S3?"),
        ("Must I restart the node?", "Can I restart the node?"),
        ("Is data encrypted?", "Can data be encrypted?"),
        ("What are auricles?", "What do auricles do?"),
        ("What is the limit for v1.28?", "What is the limit for v1.28.1?"),
        ("Which US states border it?", "Which states border us?"),
        ("How long is 10 s?", "How long is 10 m?"),
        ("What costs $5?", "What costs €5?"),
        ("How many have three legs?", "How many have four legs?"),
        ("什么是服务", "什么是节点"),
    ],
)
def test_more_look_alikes(asked: str, cached: str) -> None:
    """Roles, tense, direction, may and must, versions, units, acronyms, other scripts."""
    assert not agree(asked, cached) and not agree(cached, asked)


def test_wordings_mostly_agree() -> None:
    """Another wording of the same question is usually recognised, also one that nobody tuned for."""
    assert sum(agree(*pair) for pair in WORDINGS) >= 0.75 * len(WORDINGS)
    assert sum(agree(*pair) for pair in HELD_OUT) >= 0.65 * len(HELD_OUT)


@settings(deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text(a: str, b: str) -> None:
    """Symmetric, reflexive, and nothing raises."""
    assert agree(a, a)
    assert agree(a, b) == agree(b, a)
    assert stem(a) == stem(a)


def test_questions_about_one_paragraph_do_not_agree(shared_data: Path) -> None:
    """Among the 27,000 pairs of SQuAD questions about the same paragraph, those that agree are, but for a
    handful, questions with the same answer."""
    folder = shared_data / "squad"
    texts = {r["id"]: r["text"] for r in map(json.loads, (folder / "queries.jsonl").read_text().splitlines())}
    answers = {
        r["id"]: {a.lower().strip(" .") for a in r["answers"]}
        for r in map(json.loads, (folder / "answers.jsonl").read_text().splitlines())
    }
    paragraphs = defaultdict(list)
    for line in (folder / "qrels.tsv").read_text().splitlines()[1:]:
        question, document, _ = line.split("\t")
        paragraphs[document].append(question)
    pairs = [pair for group in paragraphs.values() for pair in itertools.combinations(group, 2)]
    agreed = [pair for pair in pairs if agree(texts[pair[0]], texts[pair[1]])]
    wrong = [pair for pair in agreed if answers[pair[0]].isdisjoint(answers[pair[1]])]
    assert len(pairs) > 25_000 and len(agreed) >= 40
    assert len(wrong) <= 8, [(texts[a], texts[b]) for a, b in wrong]


def test_word_vectors() -> None:
    """Unit vectors that see words and their neighbours, and nothing of grammar; none without a content word."""
    a, b, c = (
        word_vector(t)
        for t in ("How do I drain a node?", "how to drain the nodes", "When did the French Revolution begin?")
    )
    assert a is not None and b is not None and c is not None
    assert a.shape == (DIMENSIONS,) and abs(float(a @ a) - 1) < 1e-5
    assert float(a @ b) > 0.99 and abs(float(a @ c)) < 0.3
    assert word_vector("what is it?") is None and word_vector("") is None
