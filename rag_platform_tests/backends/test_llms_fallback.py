"""Two language models, of which the second answers when the first fails, on two real servers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import pytest

from rag_platform import backends
from rag_platform.backends.guard import Guard
from rag_platform.backends.llms.base import LLM, Delta, Message
from rag_platform.backends.llms.fallback import FallbackLLM
from rag_platform.backends.llms.guarded import GuardedLLM
from rag_platform.errors import ConfigurationError, DependencyError, DependencyTimeout
from rag_platform.settings import Settings
from rag_platform_tests.backends.misbehaving_llm import NONSENSE_FAULTS, STATUS_FAULTS, MisbehavingLLM

MESSAGES = [Message("user", "what?")]
LONG = 20.0


@pytest.fixture(scope="module", autouse=True)
def _sdk_is_loaded() -> None:
    """Importing the SDK takes seconds, which the first call would spend from its deadline."""
    import openai  # noqa: F401

    import rag_platform.backends.openai_errors  # noqa: F401


@pytest.fixture
def first() -> Iterator[MisbehavingLLM]:
    with MisbehavingLLM().running() as running:
        running.answers = ["the first one says so"] * 20
        yield running


@pytest.fixture
def second() -> Iterator[MisbehavingLLM]:
    with MisbehavingLLM().running() as running:
        running.answers = ["the second one says so"] * 20
        yield running


def one(server: MisbehavingLLM, name: str, **environ: str) -> LLM:
    values = {"RAG_LLM_BASE_URL": server.base_url, "RAG_LLM_MODEL": name, "RAG_LLM_PROVIDER": f"p-{name}", **environ}
    llm: LLM = backends.load("llms", "openai_compatible").build(Settings.from_env(values))
    return llm


def both(first: MisbehavingLLM, second: MisbehavingLLM, *, guarded: bool = False) -> FallbackLLM:
    llms = [one(first, "a"), one(second, "b")]
    if guarded:
        llms = [GuardedLLM(llm, Guard(f"llm:{llm.spec.model}", attempts=1, failures=2)) for llm in llms]
    return FallbackLLM(llms)


async def streamed(llm: FallbackLLM, timeout_s: float = LONG) -> list[Delta]:
    async with contextlib.aclosing(llm.stream(MESSAGES, max_tokens=9, timeout_s=timeout_s)) as deltas:
        return [delta async for delta in deltas]


def text_of(deltas: list[Delta]) -> str:
    return "".join(d.text for d in deltas)


def test_first_one_answers_while_it_works(first: MisbehavingLLM, second: MisbehavingLLM) -> None:
    """The second one is not asked, and nothing says that it was billed."""

    async def main() -> None:
        llm = both(first, second)
        deltas = await streamed(llm)
        answer = await llm.complete(MESSAGES, max_tokens=9, timeout_s=LONG)
        assert text_of(deltas) == answer.text == "the first one says so"
        assert deltas[-1].model == answer.model == "a"
        assert deltas[-1].usage and deltas[-1].usage.billed_by is None
        await llm.ping()
        await llm.aclose()

    asyncio.run(main())
    assert second.calls == second.model_calls == 0


@pytest.mark.parametrize("fault", [*STATUS_FAULTS, *NONSENSE_FAULTS, "closed"])
def test_second_one_answers_for_a_broken_first(first: MisbehavingLLM, second: MisbehavingLLM, fault: str) -> None:
    """Whatever the first one's failure is, the answer is the second one's, whole, and billed to it."""
    if fault == "closed":
        first.close()
    else:
        first.fault = fault

    async def main() -> None:
        llm = both(first, second)
        deltas = await streamed(llm)
        answer = await llm.complete(MESSAGES, max_tokens=9, timeout_s=LONG)
        assert text_of(deltas) == answer.text == "the second one says so"
        assert deltas[-1].model == answer.model == "b"
        for usage in (deltas[-1].usage, answer.usage):
            assert usage and usage.billed_by and usage.billed_by.provider == "p-b"
        await llm.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("fault", ["frozen", "dripping"])
def test_silent_first_leaves_time_for_the_second(
    first: MisbehavingLLM, second: MisbehavingLLM, fault: str, guarded: bool
) -> None:
    """A first one that does not begin is given up in time for the second one to answer before the deadline."""
    first.fault = fault

    async def main() -> None:
        llm = both(first, second, guarded=guarded)
        began = time.monotonic()
        assert text_of(await streamed(llm, 4.0)) == "the second one says so"
        assert time.monotonic() - began < 4.25
        answer = await llm.complete(MESSAGES, max_tokens=9, timeout_s=4.0)
        assert answer.text == "the second one says so"
        if guarded:  # two failures opened the first one's breaker: nobody waits for it again
            began = time.monotonic()
            await streamed(llm, 20.0)
            assert time.monotonic() - began < 9
        await llm.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("fault", ["cut_stream", "reset_stream", "error_in_stream"])
def test_nobody_is_asked_behind_the_first_delta(first: MisbehavingLLM, second: MisbehavingLLM, fault: str) -> None:
    """A stream that breaks in its middle is broken: two beginnings are worse than none."""
    first.fault = fault
    seen: list[str] = []

    async def main() -> None:
        llm = both(first, second)
        with pytest.raises(DependencyError):
            async with contextlib.aclosing(llm.stream(MESSAGES, max_tokens=9, timeout_s=LONG)) as deltas:
                async for delta in deltas:
                    seen.append(delta.text)
        await llm.aclose()

    asyncio.run(main())
    assert "".join(seen) == "the first " and second.calls == 0


def test_both_down_raises_as_the_last_one(first: MisbehavingLLM, second: MisbehavingLLM) -> None:
    """With nobody left the last one's error is raised, before the deadline's grace is over."""
    first.fault, second.fault = "server_error", "frozen"

    async def main() -> None:
        llm = both(first, second)
        began = time.monotonic()
        for work in (streamed(llm, 1.0), llm.complete(MESSAGES, max_tokens=9, timeout_s=1.0)):
            with pytest.raises(DependencyTimeout):
                await work
        assert time.monotonic() - began < 5
        first.close()
        second.close()
        with pytest.raises(DependencyError):
            await llm.ping()
        await llm.aclose()

    asyncio.run(main())


def test_spec_is_safe_for_whoever_answers(first: MisbehavingLLM, second: MisbehavingLLM) -> None:
    """The prompt must fit the smaller context, and a changed second model changes the cache keys."""
    a = one(first, "a", RAG_LLM_MAX_CONTEXT_TOKENS="8000")
    small = FallbackLLM([a, one(second, "b", RAG_LLM_MAX_CONTEXT_TOKENS="2000")])
    other = FallbackLLM([a, one(second, "c", RAG_LLM_MAX_CONTEXT_TOKENS="2000")])
    assert small.spec.max_context_tokens == 2000 and small.spec.model == "a"
    assert len({a.spec.fingerprint, small.spec.fingerprint, other.spec.fingerprint}) == 3
    with pytest.raises(ConfigurationError):
        FallbackLLM([])
