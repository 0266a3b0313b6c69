"""The OpenAI-compatible language model against a real, misbehaving server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from rag_platform import backends
from rag_platform.backends.guard import Guard
from rag_platform.backends.llms.base import Completion, Delta, Message, TokenUsage
from rag_platform.backends.llms.guarded import GuardedLLM
from rag_platform.backends.llms.openai_compatible import OpenAICompatibleLLM
from rag_platform.errors import (
    ConfigurationError,
    DependencyError,
    DependencyTimeout,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
)
from rag_platform.settings import Settings
from rag_platform_tests.backends import misbehaving_llm
from rag_platform_tests.backends.misbehaving_llm import (
    HARMLESS_FAULTS,
    NONSENSE_FAULTS,
    REFUSED_PARAMETERS,
    SILENT_FAULTS,
    STATUS_FAULTS,
    STREAM_FAULTS,
    MisbehavingLLM,
)

T = TypeVar("T")

SECRET_QUESTION = "a private question"
MESSAGES = [Message("system", "Be brief."), Message("user", SECRET_QUESTION)]
LONG = 20.0
"""A deadline that plays no part."""
SLACK_S = 1.0
"""Far above what it takes here and far below how long the server holds out; P7 itself is tested on the service."""


@pytest.fixture(scope="module", autouse=True)
def _sdk_is_loaded() -> None:
    """Importing the SDK takes seconds, which the first call would spend from its deadline."""
    import openai  # noqa: F401

    import rag_platform.backends.openai_errors  # noqa: F401


@pytest.fixture
def server() -> Iterator[MisbehavingLLM]:
    with MisbehavingLLM().running() as running:
        yield running


def llm_of(server: MisbehavingLLM, **environ: str) -> OpenAICompatibleLLM:
    defaults = {"RAG_LLM_BASE_URL": server.base_url, "RAG_LLM_API_KEY": "sk-test-secret", "RAG_LLM_MODEL": "m"}
    llm: OpenAICompatibleLLM = backends.load("llms", "openai_compatible").build(
        Settings.from_env({**defaults, **environ})
    )
    return llm


def run(llm: OpenAICompatibleLLM | GuardedLLM, work: Callable[[], Awaitable[T]]) -> T:
    """Run ``work`` in an event loop of its own and close the model in it."""

    async def main() -> T:
        try:
            return await work()
        finally:
            await llm.aclose()

    return asyncio.run(main())


def complete(llm: OpenAICompatibleLLM | GuardedLLM, timeout_s: float = LONG, **options: float) -> Completion:
    return run(llm, lambda: llm.complete(MESSAGES, max_tokens=64, timeout_s=timeout_s, **options))


def stream(llm: OpenAICompatibleLLM | GuardedLLM, timeout_s: float = LONG, **options: float) -> list[Delta]:
    async def work() -> list[Delta]:
        deltas = llm.stream(MESSAGES, max_tokens=64, timeout_s=timeout_s, **options)
        async with contextlib.aclosing(deltas):
            return [delta async for delta in deltas]

    return run(llm, work)


def joined(deltas: list[Delta]) -> str:
    """The text of a stream, whose last delta alone may have a finish reason."""
    assert [d.finish is not None for d in deltas] == [False] * (len(deltas) - 1) + [True]
    assert all(d.usage is None for d in deltas[:-1])
    return "".join(d.text for d in deltas)


def test_complete_sends_what_the_api_wants(server: MisbehavingLLM) -> None:
    """One request with the messages in order, model, limit and temperature; text, finish and usage come back."""
    llm = llm_of(server)
    answer = complete(llm)
    assert answer == Completion(SECRET_QUESTION, "stop", TokenUsage(5, 3), "m")
    [body] = server.bodies
    assert body == {
        "model": "m",
        "messages": [{"role": m.role, "content": m.content} for m in MESSAGES],
        "max_tokens": 64,
        "temperature": 0.0,
    }


def test_stream_ends_with_finish_and_usage(server: MisbehavingLLM) -> None:
    """The text comes in pieces; exactly the last delta has the finish, the model and the usage of the chunk behind it."""
    server.answers = ["Drained for 30 seconds [1]. 漢字 too."]
    deltas = stream(llm_of(server))
    assert joined(deltas) == "Drained for 30 seconds [1]. 漢字 too." and len(deltas) > 4
    assert deltas[-1] == Delta("", "stop", TokenUsage(5, 7), "m")
    assert server.bodies[0]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("fault", HARMLESS_FAULTS)
def test_servers_with_habits_of_their_own(server: MisbehavingLLM, fault: str) -> None:
    """No usage, usage in another place, or silence behind the last word: the answer is whole all the same."""
    server.fault, server.answers = fault, ["one two three"]
    deltas = stream(llm_of(server))
    assert joined(deltas) == "one two three"
    counted = fault not in ("no_usage", "hang_after_finish", "ignores_stream_options")
    assert deltas[-1].usage == (TokenUsage(5, 3) if counted else None)


@pytest.mark.parametrize("fault", REFUSED_PARAMETERS)
def test_a_refused_parameter_is_left_out_and_remembered(server: MisbehavingLLM, fault: str) -> None:
    """A server that does not take one of our parameters is asked once more without it, and then never again with it."""
    llm = llm_of(server)
    server.fault = fault
    assert joined(stream(llm)) == SECRET_QUESTION
    assert server.calls == 2
    assert joined(stream(llm)) == SECRET_QUESTION
    assert server.calls == 3 and REFUSED_PARAMETERS[fault] not in server.bodies[-1]
    if fault == "refuses_max_tokens":
        assert server.bodies[-1]["max_completion_tokens"] == 64


def test_length_is_a_finish_of_its_own(server: MisbehavingLLM) -> None:
    """An answer that was cut at the limit says so, streamed or not."""
    server.fault = misbehaving_llm.LENGTH
    llm = llm_of(server)
    assert complete(llm).finish == "length"
    assert stream(llm)[-1].finish == "length"


EXPECTED = {
    "rate_limited": RateLimited,
    "rate_limited_long": RateLimited,
    "insufficient_quota": QuotaExhausted,
    "refuse_content": RequestRefused,
    "context_too_long": RequestRefused,
    "too_large": RequestRefused,
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("fault", STATUS_FAULTS)
def test_status_codes_have_names_of_ours(server: MisbehavingLLM, fault: str, streamed: bool) -> None:
    """Each refusal becomes its error, after one request, without a word of the question in the message."""
    server.fault = fault
    with pytest.raises(DependencyError) as caught:
        (stream if streamed else complete)(llm_of(server))
    assert type(caught.value) is EXPECTED.get(fault, DependencyError)
    assert server.calls == 1
    assert SECRET_QUESTION not in str(caught.value) and "sk-test" not in str(caught.value)
    assert caught.value.retryable == (fault in ("rate_limited", "rate_limited_long", "server_error", "overloaded"))
    if fault.startswith("rate_limited"):
        assert caught.value.retry_after_s == (90 if fault == "rate_limited_long" else 1)
    if fault in ("unauthorized", "model_not_found"):
        assert "RAG_LLM_" in str(caught.value)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("fault", [*NONSENSE_FAULTS, *STREAM_FAULTS])
def test_nonsense_and_cut_answers_are_failures(server: MisbehavingLLM, fault: str, streamed: bool) -> None:
    """HTML, broken JSON, missing fields and streams that end early never pass for an answer."""
    server.fault, server.answers = fault, ["a long enough answer to be cut in the middle"]
    with pytest.raises(DependencyError) as caught:
        (stream if streamed else complete)(llm_of(server))
    assert type(caught.value) is DependencyError and caught.value.retryable
    assert "long enough" not in str(caught.value)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("fault", [*SILENT_FAULTS, *misbehaving_llm.MIDWAY_FAULTS])
def test_deadline_holds_whatever_trickles_in(server: MisbehavingLLM, fault: str, streamed: bool) -> None:
    """Frozen, slow or dripping, before the answer or in its middle: the call ends at its deadline."""
    server.fault, server.answers = fault, ["one two three four five six"]
    llm = llm_of(server)

    async def timed() -> float:
        began = time.monotonic()
        with pytest.raises(DependencyTimeout):
            if streamed:
                async with contextlib.aclosing(llm.stream(MESSAGES, max_tokens=9, timeout_s=0.5)) as deltas:
                    async for _ in deltas:
                        pass
            else:
                await llm.complete(MESSAGES, max_tokens=9, timeout_s=0.5)
        return time.monotonic() - began

    async def work() -> float:
        # The connection pool and the event loop are warm before the clock counts.
        server.fault = None
        await llm.complete(MESSAGES, max_tokens=9, timeout_s=LONG)
        server.fault, server.answers = fault, ["one two three four five six"]
        return await timed()

    assert run(llm, work) < 0.5 + SLACK_S


def test_first_delta_has_a_deadline_of_its_own(server: MisbehavingLLM) -> None:
    """A model that does not begin in time is given up early; one that has begun has all the time of the stream."""
    llm = llm_of(server)
    server.fault = "frozen"
    began = time.monotonic()
    with pytest.raises(DependencyTimeout):
        stream(llm, first_delta_s=0.3)
    assert time.monotonic() - began < 5
    server.fault, server.delay_s, server.answers = None, 0.5, ["one two three four five"]
    assert joined(stream(llm, first_delta_s=2.0)) == "one two three four five"


def test_closed_server_cannot_be_reached(server: MisbehavingLLM) -> None:
    """A refused connection is a failure of the dependency, for the ping too."""
    llm = llm_of(server)
    server.close()
    for call in (lambda: complete(llm), lambda: stream(llm), lambda: run(llm, llm.ping)):
        with pytest.raises(DependencyError, match="cannot be reached"):
            call()


def test_closing_the_iterator_closes_the_connection(server: MisbehavingLLM) -> None:
    """A reader who leaves in the middle stops the generation: the server sees its client go."""
    server.answers, server.delay_s = ["word " * 5000], 0.001
    llm = llm_of(server)

    async def work() -> None:
        async with contextlib.aclosing(llm.stream(MESSAGES, max_tokens=9, timeout_s=LONG)) as deltas:
            async for _ in deltas:
                break
        await asyncio.to_thread(server.wait_for_cut)

    run(llm, work)


def test_ping_generates_nothing(server: MisbehavingLLM) -> None:
    """The ping lists the models; a wrong key, nonsense and silence fail it."""
    llm = llm_of(server, RAG_LLM_REQUEST_TIMEOUT_S="0.5")
    run(llm, llm.ping)
    assert server.calls == 0 and server.model_calls == 1
    for fault in ("unauthorized", "html", "malformed_json", "frozen"):
        server.fault = fault
        with pytest.raises(DependencyError):
            run(llm, llm.ping)
    assert server.calls == 0


def test_one_model_serves_several_event_loops(server: MisbehavingLLM) -> None:
    """Each event loop has connections of its own."""
    llm = llm_of(server)
    assert [complete(llm).text for _ in range(3)] == [SECRET_QUESTION] * 3


def test_lone_surrogates_do_not_break_the_request(server: MisbehavingLLM) -> None:
    """Text that cannot be encoded is sent with a replacement."""
    llm = llm_of(server)
    answer = run(llm, lambda: llm.complete([Message("user", "a\ud800b")], max_tokens=9, timeout_s=LONG))
    assert answer.text == "a?b"


def test_configuration_names_the_variable() -> None:
    """What is missing or wrong is said by name, with the prefix in use; the key of OpenAI is for OpenAI alone."""
    build = backends.load("llms", "openai_compatible").build

    def built(**environ: str) -> OpenAICompatibleLLM:
        llm: OpenAICompatibleLLM = build(Settings.from_env(environ))
        return llm

    for environ, named in (
        ({}, "RAG_LLM_API_KEY"),
        ({"RAG_LLM_BASE_URL": "ftp://x", "RAG_LLM_MODEL": "m"}, "RAG_LLM_BASE_URL"),
        ({"RAG_LLM_BASE_URL": "http://127.0.0.1:1/v1"}, "RAG_LLM_MODEL"),
        ({"RAG_LLM_API_KEY": "k", "RAG_LLM_CONCURRENCY": "0"}, "RAG_LLM_CONCURRENCY"),
    ):
        with pytest.raises(ConfigurationError, match=named):
            built(**environ)
    with pytest.raises(ConfigurationError, match="RAG_LLM_FALLBACK_API_KEY"):
        build(Settings.from_env({"RAG_LLM_API_KEY": "k"}), "RAG_LLM_FALLBACK_")
    own = built(OPENAI_API_KEY="sk-own")
    assert (own.spec.provider, own.spec.model, own._api_key) == ("openai", "gpt-4.1-mini", "sk-own")
    other = built(OPENAI_API_KEY="sk-own", RAG_LLM_BASE_URL="http://127.0.0.1:1/v1", RAG_LLM_MODEL="m")
    assert (other.spec.provider, other._api_key) == (None, "none")


def test_fingerprint_follows_what_changes_answers() -> None:
    """Model and address move the fingerprint; timeouts and concurrency do not."""
    build = backends.load("llms", "openai_compatible").build
    base = {"RAG_LLM_BASE_URL": "http://127.0.0.1:1/v1", "RAG_LLM_MODEL": "m"}
    prints = [
        build(Settings.from_env({**base, **change})).spec.fingerprint
        for change in ({}, {"RAG_LLM_CONCURRENCY": "2"}, {"RAG_LLM_MODEL": "n"}, {"RAG_LLM_BASE_URL": "http://h/v1"})
    ]
    assert prints[0] == prints[1] and len(set(prints)) == 3


def test_first_call_leaves_the_event_loop_free(server: MisbehavingLLM) -> None:
    """In a fresh process the deadline holds also while the SDK, which takes seconds, is being imported."""
    code = (
        "import asyncio, sys, time; from rag_platform import backends; from rag_platform.settings import Settings\n"
        "from rag_platform.errors import DependencyTimeout; from rag_platform.backends.llms.base import Message\n"
        "llm = backends.load('llms', 'openai_compatible').build(Settings.from_env()); llm.spec\n"
        "assert 'openai' not in sys.modules\n"
        "async def main():\n"
        "    began = time.monotonic()\n"
        "    try: await llm.complete([Message('user', 'x')], max_tokens=3, timeout_s=0.05)\n"
        "    except DependencyTimeout: pass\n"
        "    print(time.monotonic() - began)\n"
        "    await llm.complete([Message('user', 'x')], max_tokens=3, timeout_s=60)\n"
        "    await llm.aclose()\n"
        "asyncio.run(main())\n"
    )
    environ = {"RAG_LLM_BASE_URL": server.base_url, "RAG_LLM_MODEL": "m", "PATH": os.defpath}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environ, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert float(done.stdout) < 0.05 + 1


def test_server_runs_as_a_process_of_its_own() -> None:
    """The misbehaving server can be started, told what to do, asked, frozen and killed as a process."""
    process = subprocess.Popen(
        [sys.executable, str(Path(misbehaving_llm.__file__)), "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        base = f"http://127.0.0.1:{int(process.stdout.readline())}"
        body = json.dumps({"answers": ["from afar"]}).encode()
        request = urllib.request.Request(f"{base}/control", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=10).close()
        environ = {"RAG_LLM_BASE_URL": f"{base}/v1", "RAG_LLM_MODEL": "m"}
        llm = backends.load("llms", "openai_compatible").build(Settings.from_env(environ))
        assert complete(llm).text == "from afar"
        with urllib.request.urlopen(f"{base}/control", timeout=10) as answer:
            assert json.load(answer)["calls"] == 1
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class TestGuarded:
    """``GuardedLLM``: the same model behind a bulkhead, a breaker and a retry budget."""

    @staticmethod
    def guarded(server: MisbehavingLLM, **options: float) -> tuple[GuardedLLM, Guard]:
        guard = Guard("llm:test", **options)  # type: ignore[arg-type]
        return GuardedLLM(llm_of(server), guard), guard

    @pytest.mark.parametrize("call", [complete, stream])
    def test_retries_before_the_first_delta(self, server: MisbehavingLLM, call: Callable[[GuardedLLM], object]) -> None:
        """A failure before anything was said is tried again, within the retry budget."""
        llm, _ = self.guarded(server)
        server.fault, server.faulty_calls = "server_error", 1
        answer = call(llm)
        assert server.calls == 2
        assert joined(answer) if isinstance(answer, list) else answer

    def test_never_retries_behind_the_first_delta(self, server: MisbehavingLLM) -> None:
        """What a reader has seen is not said again: a cut stream fails, and counts against the model."""
        llm, guard = self.guarded(server, failures=1)
        server.fault, server.answers = "cut_stream", ["one two three four"] * 2
        seen: list[str] = []

        async def work() -> None:
            async with contextlib.aclosing(llm.stream(MESSAGES, max_tokens=9, timeout_s=LONG)) as deltas:
                async for delta in deltas:
                    seen.append(delta.text)

        with pytest.raises(DependencyError):
            run(llm, work)
        assert "".join(seen) == "one two " and server.calls == 1 and guard.breaker.is_open

    @pytest.mark.parametrize("call", [complete, stream])
    def test_refused_content_never_opens_the_breaker(
        self, server: MisbehavingLLM, call: Callable[[GuardedLLM], object]
    ) -> None:
        """One reader's question that the provider will not hear does not close the model to the others."""
        llm, guard = self.guarded(server, failures=1)
        server.fault = "refuse_content"
        for _ in range(3):
            with pytest.raises(RequestRefused):
                call(llm)
        assert server.calls == 3 and not guard.breaker.is_open
        server.fault = None
        assert call(llm)

    def test_open_breaker_is_answered_at_once(self, server: MisbehavingLLM) -> None:
        """A model that is known to be down is not called."""
        llm, _ = self.guarded(server, failures=2, pause_s=60.0, max_pause_s=60.0, attempts=1)
        server.fault = "server_error"
        for _ in range(2):
            with pytest.raises(DependencyError):
                stream(llm)
        for call in (complete, stream):
            with pytest.raises(DependencyError, match="not called"):
                call(llm)
        assert server.calls == 2

    def test_bulkhead(self, server: MisbehavingLLM) -> None:
        """No more requests at a time than allowed; the others wait their turn."""
        llm, _ = self.guarded(server, concurrency=2)
        server.delay_s = 0.02

        async def one() -> str:
            async with contextlib.aclosing(llm.stream(MESSAGES, max_tokens=9, timeout_s=LONG)) as deltas:
                return "".join([d.text async for d in deltas])

        async def work() -> list[str]:
            return await asyncio.gather(*(one() for _ in range(6)))

        assert run(llm, work) == [SECRET_QUESTION] * 6
        assert server.most_concurrent == 2

    @pytest.mark.parametrize("fault", ["frozen", "frozen_midway", "dripping_midway"])
    def test_deadline(self, server: MisbehavingLLM, fault: str) -> None:
        """The stream ends at its deadline, and the slot is free again."""
        llm, _ = self.guarded(server, concurrency=1)

        async def work() -> float:
            await llm.complete(MESSAGES, max_tokens=9, timeout_s=LONG)
            server.fault, server.answers = fault, ["one two three four"]
            began = time.monotonic()
            with pytest.raises(DependencyTimeout):
                async with contextlib.aclosing(llm.stream(MESSAGES, max_tokens=9, timeout_s=0.5)) as deltas:
                    async for _ in deltas:
                        pass
            spent = time.monotonic() - began
            server.fault = None
            server.answers.clear()
            await llm.complete(MESSAGES, max_tokens=9, timeout_s=LONG)
            return spent

        assert run(llm, work) < 0.5 + SLACK_S

    def test_closing_the_iterator_frees_the_slot(self, server: MisbehavingLLM) -> None:
        """A reader who leaves in the middle closes the connection and makes room for the next one."""
        llm, guard = self.guarded(server, concurrency=1)
        server.answers, server.delay_s = ["word " * 5000], 0.001

        async def work() -> None:
            async with contextlib.aclosing(llm.stream(MESSAGES, max_tokens=9, timeout_s=LONG)) as deltas:
                async for _ in deltas:
                    break
            await asyncio.to_thread(server.wait_for_cut)
            server.delay_s = 0.0
            await llm.complete(MESSAGES, max_tokens=9, timeout_s=LONG)

        run(llm, work)
        assert not guard.breaker.is_open
