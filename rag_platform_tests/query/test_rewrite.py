"""Questions made to stand alone, and asked in other words, by a server that answers as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from rag_platform import backends
from rag_platform.backends.llms.base import LLM, TokenUsage
from rag_platform.errors import DependencyError, DependencyTimeout
from rag_platform.query.multi_query import wordings
from rag_platform.query.question import Turn
from rag_platform.query.rewrite import joined, rewrite
from rag_platform.settings import Settings
from rag_platform_tests.backends.misbehaving_llm import MisbehavingLLM

T = TypeVar("T")

HISTORY = [
    Turn("user", "What is a service level objective (SLO)?"),
    Turn("assistant", "A target for reliability [1]."),
]
QUESTION = "Who sets the SLO?"
LONG = 20.0


@pytest.fixture
def server() -> Iterator[MisbehavingLLM]:
    with MisbehavingLLM().running() as running:
        yield running


def asked(server: MisbehavingLLM, work: Callable[[LLM], Awaitable[T]]) -> T:
    environ = {"RAG_LLM_BASE_URL": server.base_url, "RAG_LLM_MODEL": "m"}
    llm: LLM = backends.load("llms", "openai_compatible").build(Settings.from_env(environ))

    async def main() -> T:
        try:
            return await work(llm)
        finally:
            await llm.aclose()

    return asyncio.run(main())


def rewritten(server: MisbehavingLLM, question: str = QUESTION, timeout_s: float = LONG) -> str:
    text, usage = asked(server, lambda llm: rewrite(llm, question, HISTORY, timeout_s=timeout_s))
    assert isinstance(usage, TokenUsage)
    return text


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Who sets the service level objective (SLO)?", "Who sets the service level objective (SLO)?"),
        ("  Who sets   the objective?\n", "Who sets the objective?"),
        ('"Who sets the objective?"', "Who sets the objective?"),
        ("Question: Who sets the objective?", "Who sets the objective?"),
        ("The rewritten question is: “Who sets the objective?”", "Who sets the objective?"),
        ("", QUESTION),
        (" \n ", QUESTION),
        ("Sure!\nWho sets the objective?", QUESTION),
        ("Who? " * 101, QUESTION),
    ],
)
def test_only_one_short_line_replaces_the_question(server: MisbehavingLLM, said: str, kept: str) -> None:
    """What the model says is tidied and used, or, where it is no such line, the question stays as it was asked."""
    server.answers = [said]
    assert rewritten(server) == kept


def test_cut_rewriting_is_not_used(server: MisbehavingLLM) -> None:
    """Half a question is worse than the one that was asked."""
    server.fault, server.answers = "length", ["Who sets the"]
    assert rewritten(server) == QUESTION


def test_model_sees_the_conversation(server: MisbehavingLLM) -> None:
    """The turns, without their citations, and the question; never more than six turns."""
    rewritten(server)
    content = server.bodies[0]["messages"][1]["content"]
    assert "User: What is a service level objective (SLO)?" in content
    assert "Assistant: A target for reliability." in content and content.endswith(f"Last question: {QUESTION}")
    many = [Turn("user", f"turn {n}") for n in range(20)]
    asked(server, lambda llm: rewrite(llm, QUESTION, many, timeout_s=LONG))
    content = server.bodies[1]["messages"][1]["content"]
    assert "turn 14" in content and "turn 13" not in content


def test_failures_pass_through(server: MisbehavingLLM) -> None:
    """The caller decides what a failed step means; the deadline holds."""
    server.fault = "server_error"
    with pytest.raises(DependencyError):
        rewritten(server)
    server.fault = "frozen"
    with pytest.raises(DependencyTimeout):
        rewritten(server, timeout_s=0.5)


def test_without_a_model_the_previous_question_comes_along() -> None:
    """The last question of the same person stands before the new one, as far as there is room."""
    assert joined(QUESTION, HISTORY) == f"What is a service level objective (SLO)? {QUESTION}"
    assert joined(QUESTION, []) == QUESTION
    assert joined(QUESTION, [Turn("assistant", "Hello.")]) == QUESTION
    long = joined(QUESTION, [Turn("user", "word " * 300)])
    assert len(long) <= 500 and long.endswith(QUESTION)
    assert joined("why " * 200, HISTORY) == "why " * 200


def other_wordings(server: MisbehavingLLM, count: int = 3, question: str = QUESTION) -> list[str]:
    found, _ = asked(server, lambda llm: wordings(llm, question, count, timeout_s=LONG))
    return found


def test_wordings_are_lines(server: MisbehavingLLM) -> None:
    """One a line, without bullets, numbers, repetitions, the question itself or an introduction; no more than asked for."""
    server.answers = [
        "Here are three:\n1. Who defines the objective?\n2) who defines the objective?\n- Who decides on the SLO?\n"
        f"• {QUESTION}\n\n* Which team owns the target?\nWho else?"
    ]
    assert other_wordings(server) == [
        "Who defines the objective?",
        "Who decides on the SLO?",
        "Which team owns the target?",
    ]


def test_wordings_keep_the_numbers(server: MisbehavingLLM) -> None:
    """A wording that lost a number of the question asks for something else."""
    server.answers = ["How to upgrade to release 1.24?\nHow to upgrade?\nMove from 1.23 to 1.24."]
    assert other_wordings(server, question="How do I upgrade to 1.24?") == [
        "How to upgrade to release 1.24?",
        "Move from 1.23 to 1.24.",
    ]


def test_cut_last_wording_is_left_out(server: MisbehavingLLM) -> None:
    """What the length limit cut is not asked."""
    server.fault, server.answers = "length", ["Who defines the objective?\nWho deci"]
    assert other_wordings(server) == ["Who defines the objective?"]


def test_no_wordings(server: MisbehavingLLM) -> None:
    """None asked for: no call. None said: none returned."""
    assert other_wordings(server, count=0) == [] and server.calls == 0
    server.answers = [""]
    assert other_wordings(server) == []
