"""A real small model behind a real OpenAI-compatible server: llama.cpp with SmolLM2-135M, on one thread."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from rag_platform import backends
from rag_platform.backends.llms.base import LLM, Delta, Message
from rag_platform.errors import DependencyTimeout, RequestRefused
from rag_platform.query.citations import verify
from rag_platform.query.generate import generate
from rag_platform.query.multi_query import wordings
from rag_platform.query.question import Turn
from rag_platform.query.rewrite import rewrite
from rag_platform.settings import Settings
from rag_platform_tests.backends import real_llm
from rag_platform_tests.query.passages import passage

T = TypeVar("T")

LONG = 240.0
"""A 135-million-parameter model on one shared core: 30 tokens of prompt a second, when nothing else runs."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(real_llm.missing() is not None, reason=str(real_llm.missing())),
]


@pytest.fixture(scope="module")
def server() -> Iterator[real_llm.RealLLM]:
    with real_llm.real_llm() as running:
        yield running


def asked(server: real_llm.RealLLM, work: Callable[[LLM], Awaitable[T]]) -> T:
    environ = {
        "RAG_LLM_BASE_URL": server.base_url,
        "RAG_LLM_MODEL": server.model,
        "RAG_LLM_MAX_CONTEXT_TOKENS": str(real_llm.CONTEXT_TOKENS),
        "RAG_LLM_REQUEST_TIMEOUT_S": str(LONG),
    }
    llm: LLM = backends.load("llms", "openai_compatible").build(Settings.from_env(environ))

    async def main() -> T:
        try:
            return await work(llm)
        finally:
            await llm.aclose()

    return asyncio.run(main())


def test_complete_and_stream_agree(server: real_llm.RealLLM) -> None:
    """At temperature 0 the streamed text is the completed one; both count their tokens."""
    messages = [Message("user", "Name three colours.")]

    async def both(llm: LLM) -> tuple[str, list[Delta]]:
        await llm.ping()
        whole = await llm.complete(messages, max_tokens=24, timeout_s=LONG)
        assert whole.usage and whole.usage.prompt_tokens > 10 and 0 < whole.usage.completion_tokens <= 24
        async with contextlib.aclosing(llm.stream(messages, max_tokens=24, timeout_s=LONG)) as deltas:
            return whole.text, [delta async for delta in deltas]

    text, deltas = asked(server, both)
    assert text.strip() and "".join(d.text for d in deltas) == text
    assert len(deltas) > 5 and [d.finish is None for d in deltas[:-1]] == [True] * (len(deltas) - 1)
    assert deltas[-1].finish in ("stop", "length") and deltas[-1].usage is not None


def test_generate_from_a_passage(server: real_llm.RealLLM) -> None:
    """The whole way: prompt, stream, sanitising, verification. What such a small model says is not judged, only
    that whatever is cited stands in the passage."""
    text = "The load balancer drains connections for 30 seconds before it closes them."
    seen: list[str] = []

    async def work(llm: LLM) -> str:
        draft = await generate(
            llm,
            "How long does the load balancer drain connections?",
            (),
            [passage(1, text)],
            max_tokens=48,
            timeout_s=LONG,
            on_text=seen.append,
        )
        assert draft.finish in ("stop", "length") and draft.usage and draft.usage.prompt_tokens > 100
        assert draft.model == server.model
        return draft.text

    draft = asked(server, work)
    found = verify(draft, [passage(1, text)])
    print(f"SmolLM2 wrote {draft!r}; verified: {found}")
    assert draft and "".join(seen).strip() in (draft, draft.replace("NO_ANSWER", "").strip())
    assert all(c.quote == text for c in found.citations)


def test_rewrite_and_wordings(server: real_llm.RealLLM) -> None:
    """Whatever comes back, a question comes out: short, on one line."""

    async def work(llm: LLM) -> list[str]:
        history = [Turn("user", "What is a load balancer?"), Turn("assistant", "It spreads traffic over servers.")]
        rewritten, usage = await rewrite(llm, "Who operates it?", history, timeout_s=LONG)
        assert usage is not None
        more, _ = await wordings(llm, "Who operates the load balancer?", 2, timeout_s=LONG)
        assert len(more) <= 2
        return [rewritten, *more]

    for question in asked(server, work):
        assert 0 < len(question) <= 500 and "\n" not in question


def test_deadline_cuts_the_answer_and_frees_the_server(server: real_llm.RealLLM) -> None:
    """A long answer ends at its deadline; the server notices, and answers the next question at once."""

    async def work(llm: LLM) -> float:
        began = time.monotonic()
        with pytest.raises(DependencyTimeout):
            messages = [Message("user", "Tell a very long story about a ship.")]
            async with contextlib.aclosing(llm.stream(messages, max_tokens=1500, timeout_s=1.0)) as deltas:
                async for _ in deltas:
                    pass
        spent = time.monotonic() - began
        await llm.complete([Message("user", "Hi")], max_tokens=2, timeout_s=LONG)
        return spent

    assert asked(server, work) < 2.0


def test_prompt_that_is_too_long_is_refused(server: real_llm.RealLLM) -> None:
    """More than the model's context is refused by the server, which is no failure of it."""
    messages = [Message("user", "word " * (2 * real_llm.CONTEXT_TOKENS))]
    with pytest.raises(RequestRefused):
        asked(server, lambda llm: llm.complete(messages, max_tokens=8, timeout_s=LONG))
