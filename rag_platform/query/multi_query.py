"""Other wordings of a question, so that documents which use other words are found as well."""

from __future__ import annotations

import re

from rag_platform.backends.llms.base import LLM, Message, TokenUsage
from rag_platform.query.prompts import MULTI_QUERY
from rag_platform.query.rewrite import MAX_CHARS, cleaned

_TOKENS_EACH = 80
_BULLET = re.compile(r"^\s*(?:[-*•–]|\(?\d{1,2}[.):])\s+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


async def wordings(llm: LLM, question: str, count: int, *, timeout_s: float) -> tuple[list[str], TokenUsage | None]:
    """Return at most ``count`` other wordings of ``question``, and what they cost.

    A line that is empty, longer than 500 characters, equal to the question or to another line, or that
    lost one of the question's numbers is left out; so the list may be empty.

    Raises:
        DependencyError: the model did not answer.
    """
    if count < 1:
        return [], None
    completion = await llm.complete(
        [Message("system", MULTI_QUERY.replace("$COUNT", str(count))), Message("user", question[:MAX_CHARS])],
        max_tokens=count * _TOKENS_EACH,
        timeout_s=timeout_s,
    )
    lines = completion.text.splitlines()
    if completion.finish == "length":
        del lines[-1:]  # cut in the middle
    needed = set(_NUMBER.findall(question))
    seen = {question.casefold()}
    found: list[str] = []
    for line in lines:
        wording = cleaned(_BULLET.sub("", line))
        if wording is None or wording.casefold() in seen or wording.endswith(":"):
            continue
        if not needed <= set(_NUMBER.findall(wording)):
            continue
        seen.add(wording.casefold())
        found.append(wording)
    return found[:count], completion.usage
