"""An answer written by a language model from numbered passages, and from nothing else."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rag_platform.backends.llms.base import LLM, FinishReason, Message, TokenUsage
from rag_platform.errors import DependencyError, RequestRefused
from rag_platform.query.passage import Passage
from rag_platform.query.prompts import ANSWER, NO_ANSWER
from rag_platform.query.question import Turn, normalise
from rag_platform.query.sanitise import Sanitiser, addresses

_BYTES_PER_TOKEN = 3
"""Of UTF-8; vocabularies differ, and English has more than four, so this errs on the safe side."""
_MESSAGE_TOKENS = 8
_HISTORY_SHARE = 0.25
_MIN_PASSAGE_CHARS = 200
_CITATION = re.compile(r"\s*\[\d{1,3}(?:\s*,\s*\d{1,3})*\]")


@dataclass(frozen=True, slots=True)
class Draft:
    """What a model wrote, not verified yet.

    Attributes:
        text: without links and images of its own; holds ``NO_ANSWER`` where the model refuses.
        finish: ``stop``, or why there is less than it wanted to write.
        usage: None where the service does not count.
        model: who wrote it.
    """

    text: str
    finish: FinishReason
    usage: TokenUsage | None
    model: str


async def generate(
    llm: LLM,
    question: str,
    history: Sequence[Turn],
    passages: Sequence[Passage],
    *,
    max_tokens: int,
    timeout_s: float,
    on_text: Callable[[str], None],
) -> Draft:
    """Return the model's answer to ``question`` from ``passages``, and hand its text to ``on_text`` piece by
    piece as it comes: sanitised, and never a part of ``NO_ANSWER``.

    Passages that do not fit the model's context are left out from the end.

    Raises:
        RequestRefused: the question alone does not fit, or the service refuses it.
        DependencyError: the model failed, also in the middle of its answer.
    """
    max_tokens = min(max_tokens, llm.spec.max_context_tokens // 2)
    messages = prompt(
        question, history, passages, token_budget=llm.spec.max_context_tokens - max_tokens, dependency=llm.spec.name
    )
    sanitiser, shown = Sanitiser(addresses(passages)), _WithoutRefusal(on_text)
    text: list[str] = []

    def take(piece: str) -> None:
        text.append(piece)
        shown.feed(piece)

    stream = llm.stream(messages, max_tokens=max_tokens, timeout_s=timeout_s)
    async with contextlib.aclosing(stream):
        async for delta in stream:
            take(sanitiser.feed(delta.text))
            if delta.finish is not None:
                take(sanitiser.finish())
                shown.finish()
                return Draft("".join(text).strip(), delta.finish, delta.usage, delta.model or llm.spec.model)
    raise DependencyError(llm.spec.name, "its stream ended before the answer did")


def prompt(
    question: str, history: Sequence[Turn], passages: Sequence[Passage], *, token_budget: int, dependency: str
) -> list[Message]:
    """Return the messages: rules, earlier turns, then passages and question.

    Each passage begins behind a line with a marker that is drawn anew for every request and occurs in no
    passage, so that no document can pretend to end where it does not. Earlier turns get at most a quarter
    of ``token_budget``, the newest first; passages the rest, the first ones first, the last of them cut.

    Raises:
        RequestRefused: rules and question alone are longer than ``token_budget`` (estimated).
    """
    marker = _marker(passages)
    left = token_budget - _tokens(ANSWER) - _tokens(_request(marker, [], question))
    if left < 0:
        raise RequestRefused(dependency, "the question is longer than the model's context")
    turns = _recent(history, int(left * _HISTORY_SHARE))
    left -= sum(_tokens(turn.content) for turn in turns)
    blocks = []
    for passage in passages:
        title = normalise(f"{passage.hit.title} {passage.hit.heading_path}")[:200]
        head = f"{marker} passage {passage.number}" + (f": {title}" if title else "")
        room = left - _tokens(head)
        text = passage.text if _tokens(passage.text) <= room else _cut(passage.text, room)
        if text:
            blocks.append(f"{head}\n{text}")
            left -= _tokens(blocks[-1])
        if len(text) < len(passage.text):
            break
    return [Message("system", ANSWER), *turns, Message("user", _request(marker, blocks, question))]


def _request(marker: str, blocks: Sequence[str], question: str) -> str:
    return "\n".join(
        [
            f"Passages, each behind a line that begins with {marker}:",
            "",
            *blocks,
            f"{marker} end of passages",
            "",
            f"Question: {question}",
        ]
    )


def _marker(passages: Sequence[Passage]) -> str:
    while True:
        marker = f"=={secrets.token_hex(6)}=="
        if not any(marker in p.text or marker in p.hit.title for p in passages):
            return marker


def _recent(history: Sequence[Turn], token_budget: int) -> list[Message]:
    turns: list[Message] = []
    for turn in reversed(history):
        content = _CITATION.sub("", turn.text).strip()  # its numbers meant other passages
        token_budget -= _tokens(content)
        if token_budget < 0:
            break
        if content:
            turns.insert(0, Message(turn.role, content))
    return turns


def _tokens(text: str) -> int:
    return len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN + _MESSAGE_TOKENS


def _cut(text: str, token_budget: int) -> str:
    """Return the beginning of ``text`` that fits, at a word's end; nothing when that is too little to be of use."""
    room = (token_budget - _MESSAGE_TOKENS) * _BYTES_PER_TOKEN
    if room < _MIN_PASSAGE_CHARS:
        return ""
    head = text.encode("utf-8", "replace")[:room].decode("utf-8", "ignore")
    return head[: head.rfind(" ") + 1].rstrip() if " " in head else head


class _WithoutRefusal:
    """Passes text on, without ``NO_ANSWER``: holds back an end that may be its beginning."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self._on_text = on_text
        self._held = ""

    def feed(self, piece: str) -> None:
        text = self._held + piece
        while NO_ANSWER in text:
            text = text.replace(NO_ANSWER, "")
        kept = next((n for n in range(len(NO_ANSWER) - 1, 0, -1) if text.endswith(NO_ANSWER[:n])), 0)
        self._held = text[len(text) - kept :]
        self._pass(text[: len(text) - kept])

    def finish(self) -> None:
        if not self._held.startswith(NO_ANSWER[:3]):  # else cut by the length limit
            self._pass(self._held)

    def _pass(self, text: str) -> None:
        if text:
            self._on_text(text)
