"""A question that can be understood without the conversation before it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rag_platform.backends.llms.base import LLM, Message, TokenUsage
from rag_platform.query.prompts import REWRITE
from rag_platform.query.question import Turn, normalise

MAX_CHARS = 500
_MAX_TOKENS = 160
_MAX_TURN_CHARS = 1500
_MAX_TURNS = 6
_CITATION = re.compile(r"\s*\[\d{1,3}\]")
_LABEL = re.compile(
    r"^(?:(?:the )?(?:rewritten |standalone |final )*question(?: is)?|rewritten|output|answer)\s*:\s*", re.I
)
_QUOTES = {'"': '"', "'": "'", "“": "”", "„": "“", "«": "»", "`": "`"}


async def rewrite(
    llm: LLM, question: str, history: Sequence[Turn], *, timeout_s: float
) -> tuple[str, TokenUsage | None]:
    """Return ``question`` with what it owes to ``history`` written out, and what that cost.

    What the model returns is used only when it is one line of at most 500 characters; otherwise the
    question stays as it was asked.

    Raises:
        DependencyError: the model did not answer.
    """
    completion = await llm.complete(
        [Message("system", REWRITE), Message("user", conversation(question, history))],
        max_tokens=_MAX_TOKENS,
        timeout_s=timeout_s,
    )
    found = cleaned(completion.text) if completion.finish == "stop" else None
    return found or question, completion.usage


def joined(question: str, history: Sequence[Turn]) -> str:
    """Return ``question`` behind the previous one of the same person: what can be done without a model, so
    that a search finds what "it" stands for. At most 500 characters, the question itself never cut."""
    previous = next((t.text for t in reversed(history) if t.role == "user"), "")
    room = MAX_CHARS - len(question) - 1
    context = normalise(previous)[: max(room, 0)].strip()
    return f"{context} {question}" if context else question


def conversation(question: str, history: Sequence[Turn]) -> str:
    """Return the prompt's user message: the last turns, shortened, and the question."""
    lines = ["Conversation:"]
    for turn in history[-_MAX_TURNS:]:
        text = normalise(_CITATION.sub("", turn.text))
        shown = text if len(text) <= _MAX_TURN_CHARS else text[:_MAX_TURN_CHARS] + " …"
        lines.append(f"{'User' if turn.role == 'user' else 'Assistant'}: {shown}")
    return "\n".join([*lines, "", f"Last question: {question}"])


def cleaned(text: str) -> str | None:
    """Return the one line that a model wrote, without a label or quotation marks; None when it is no such line."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    if len(lines) != 1:
        return None
    line = _LABEL.sub("", normalise(lines[0]))
    if len(line) > 2 and _QUOTES.get(line[0]) == line[-1]:
        line = line[1:-1].strip()
    return line if line and len(line) <= MAX_CHARS else None
