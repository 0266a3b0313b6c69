"""RAGAS with a judge: real RAGAS, a real HTTP server that judges by counting words and can be told to misbehave."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rag_platform import backends
from rag_platform.backends.llms.base import Message
from rag_platform.errors import ConfigurationError
from rag_platform.evaluation.evaluators import judge as asking
from rag_platform.evaluation.evaluators.base import Score
from rag_platform.evaluation.evaluators.opening import open_evaluators
from rag_platform.evaluation.evaluators.scoring import of_value
from rag_platform.ledger import Ledger, open_ledger
from rag_platform.settings import Settings
from rag_platform_tests.backends.misbehaving_llm import REFUSES_FORMAT
from rag_platform_tests.evaluation.judge_server import JudgeServer, judge_process
from rag_platform_tests.evaluation.judging import DAY, KEYS, NOON, REFUSED, judged_by, scored

ALL = {"ragas_faithfulness", "ragas_answer_relevancy", "ragas_context_precision", "ragas_context_recall"}
CALLS = 6
"""Of the judge for ``KEYS``: two for faithfulness, one for relevancy, one a passage for precision, one for recall."""


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer().running() as running:
        yield running


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    opened = open_ledger(settings)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow at once, and nothing waits for long."""
    monkeypatch.setattr(asking, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(asking, "MAX_WAIT_S", 0.3)


def states(found: dict[str, Score]) -> dict[str, str]:
    return {metric: s.state for metric, s in found.items()}


# ── what it says ──


def test_the_metrics_of_ragas_are_what_the_judge_says(ledger: Ledger, server: JudgeServer, tmp_path: Path) -> None:
    """One of two statements is supported, one of two passages is of use and it comes first, all of the reference is
    there; the citation marks of the answer are nothing that the judge sees, and texts go nowhere else."""
    [[found], notes] = scored(judged_by(tmp_path, server.base_url), ledger, [KEYS])
    assert set(found) == ALL and notes == () and server.calls == CALLS
    assert found["ragas_faithfulness"].value == 0.5
    assert found["ragas_context_precision"].value == 1.0 and found["ragas_context_recall"].value == 1.0
    relevancy = found["ragas_answer_relevancy"].value
    assert relevancy is not None and 0.4 < relevancy < 1
    prompts = [body["messages"][0]["content"] for body in server.bodies]
    assert not any("[1]" in p for p in prompts)
    for body in server.bodies:
        bound = body["response_format"]["json_schema"]
        assert bound["strict"] and bound["schema"]["additionalProperties"] is False and body["temperature"] == 0


def test_the_same_answers_get_the_same_scores(ledger: Ledger, server: JudgeServer, tmp_path: Path) -> None:
    """Nothing in the asking is left to chance."""
    settings = judged_by(tmp_path, server.base_url)
    [first, again], _ = scored(settings, ledger, [KEYS, KEYS])
    assert first == again


def test_a_sample_without_what_a_metric_needs_is_not_shown_to_the_judge(
    ledger: Ledger, server: JudgeServer, tmp_path: Path
) -> None:
    """Nothing to compare with is empty, an abstention is NaN: counted apart, free of charge, and no zero."""
    unanswerable = replace(REFUSED, reference=None, reference_contexts=())
    blank = replace(KEYS, contexts=("", "  "))
    settings = judged_by(tmp_path, server.base_url)
    [refused, hopeless, without], _ = scored(settings, ledger, [replace(KEYS, refused=True), unanswerable, blank])
    assert states(refused)["ragas_faithfulness"] == states(refused)["ragas_answer_relevancy"] == "nan"
    assert states(refused)["ragas_context_recall"] == "scored"  # retrieval did its part
    assert set(states(hopeless).values()) == {"empty", "nan"} and all(s.value is None for s in hopeless.values())
    assert states(without) == dict.fromkeys(ALL, "empty") | {"ragas_answer_relevancy": "scored"}
    assert server.calls == 4


def test_of_traffic_only_metrics_without_a_reference_are_asked(
    ledger: Ledger, server: JudgeServer, tmp_path: Path
) -> None:
    """A logged answer has no reference: the use of its passages is judged by the answer itself."""
    logged = replace(KEYS, reference=None, reference_contexts=())
    [[found], _] = scored(judged_by(tmp_path, server.base_url), ledger, [logged], traffic=True)
    assert set(found) == {"ragas_faithfulness", "ragas_answer_relevancy", "ragas_context_utilization"}
    assert set(states(found).values()) == {"scored"}
    assert open_evaluators(judged_by(tmp_path, "http://127.0.0.1:1/v1", RAG_JUDGE="none"), ledger, traffic=True) == []


def test_an_answer_without_statements_is_undefined(ledger: Ledger, server: JudgeServer, tmp_path: Path) -> None:
    """RAGAS' NaN is a state of its own, never a number."""
    [[found], _] = scored(judged_by(tmp_path, server.base_url), ledger, [replace(KEYS, answer="?!")])
    assert found["ragas_faithfulness"].state == "nan" and found["ragas_faithfulness"].value is None
    assert of_value("m", math.nan).state == "nan" and of_value("m", math.inf).state == "failed"
    assert of_value("m", 0.9999999999).value == 1.0


# ── a judge that cannot be read ──


@pytest.mark.parametrize("style", ["prose", "loud"])
def test_a_reply_that_cannot_be_read_is_failed(ledger: Ledger, server: JudgeServer, tmp_path: Path, style: str) -> None:
    """No JSON, or a verdict of 7: it is told once what is wrong, then the metric is failed, and says why without a
    word of the reply. A verdict out of range is not averaged in either."""
    server.style = style
    [[found], notes] = scored(judged_by(tmp_path, server.base_url), ledger, [KEYS])
    verdicts = ALL - ({"ragas_faithfulness"} if style == "loud" else set())
    assert all(found[m].state == "failed" and found[m].value is None for m in verdicts) and notes == ()
    assert found["ragas_faithfulness"].state == "failed"
    why = found["ragas_context_recall"].detail
    assert ("verdict" in why) if style == "loud" else ("schema" in why)
    assert "good" not in why and "rotated" not in why
    repair = next(b for b in server.bodies if len(b["messages"]) == 3)
    assert repair["messages"][1]["role"] == "assistant" and "cannot be used" in repair["messages"][2]["content"]


def test_a_reply_that_was_mended_counts(ledger: Ledger, server: JudgeServer, tmp_path: Path) -> None:
    """The judge gets one more chance."""
    server.answers = ["What?"]
    [[found], _] = scored(judged_by(tmp_path, server.base_url, RAG_JUDGE_CONCURRENCY="1"), ledger, [KEYS])
    assert set(states(found).values()) == {"scored"} and server.calls == CALLS + 1


def test_a_server_without_schemas_is_asked_without(ledger: Ledger, server: JudgeServer, tmp_path: Path) -> None:
    """Its prompts say what to write; a reply that is fenced as Markdown is read."""
    server.fault, server.style = REFUSES_FORMAT, "fenced"
    [[found], _] = scored(judged_by(tmp_path, server.base_url, RAG_JUDGE_CONCURRENCY="1"), ledger, [KEYS])
    assert set(states(found).values()) == {"scored"}
    assert server.calls == CALLS + 1 and "response_format" not in server.bodies[-1]


@pytest.mark.parametrize("fault", ["length", "refuse_content", "context_too_long"])
def test_a_prompt_that_the_judge_does_not_take_is_failed(
    ledger: Ledger, server: JudgeServer, tmp_path: Path, fault: str
) -> None:
    """Cut off, refused, too long: it says something about this answer alone, and the next one is scored."""
    server.fault, server.faulty_calls = fault, 2 * 4 if fault == "length" else 4
    [first, second], notes = scored(judged_by(tmp_path, server.base_url), ledger, [KEYS, KEYS])
    assert states(first) == dict.fromkeys(ALL, "failed") and notes == ()
    assert states(second) == dict.fromkeys(ALL, "scored")


# ── a judge that is busy or down ──


@pytest.mark.parametrize("fault", ["server_error", "malformed_json", "html"])
def test_a_stumble_is_tried_again_by_us_alone(ledger: Ledger, server: JudgeServer, tmp_path: Path, fault: str) -> None:
    """One failed request is one request more: nobody below tries again as well."""
    server.fault, server.faulty_calls = fault, 1
    [[found], notes] = scored(judged_by(tmp_path, server.base_url), ledger, [KEYS])
    assert set(states(found).values()) == {"scored"} and notes == () and server.calls == CALLS + 1


def test_a_wait_that_the_judge_asks_for_is_kept(ledger: Ledger, server: JudgeServer, tmp_path: Path) -> None:
    """429 with one second: everything waits for it, and everything is scored."""
    server.fault, server.faulty_calls = "rate_limited", 1
    [[found], notes] = scored(judged_by(tmp_path, server.base_url), ledger, [KEYS])
    assert set(states(found).values()) == {"scored"} and notes == ()
    assert server.calls <= CALLS + 4  # what was in flight already may have been refused as well


@pytest.mark.parametrize("fault", ["rate_limited_long", "insufficient_quota", "unauthorized", "server_error"])
def test_a_judge_that_is_down_leaves_the_scores_for_later(
    ledger: Ledger, server: JudgeServer, tmp_path: Path, fault: str
) -> None:
    """No score, not even a failed one, and a note that says why; and it is not called for every answer anew."""
    server.fault = fault
    settings = judged_by(tmp_path, server.base_url, RAG_JUDGE_TIMEOUT_S="5")
    found, notes = scored(settings, ledger, [KEYS] * 6)
    assert found == [{}] * 6 and len(notes) >= len(ALL)
    assert all(" answers: " in n and "rotated" not in n for n in notes)
    assert server.calls < 40  # of 144, were each answer patient anew
    assert ledger.evaluations.judge_spend(DAY).tokens == 0  # nothing was answered


def test_a_judge_that_cannot_be_reached_leaves_the_scores_for_later(ledger: Ledger, tmp_path: Path) -> None:
    """Nothing listens: as above."""
    with JudgeServer().running() as gone:
        address = gone.base_url
    found, notes = scored(judged_by(tmp_path, address, RAG_JUDGE_TIMEOUT_S="5"), ledger, [KEYS] * 3)
    assert found == [{}] * 3 and any("cannot be reached" in n for n in notes)


@pytest.mark.parametrize("fault", ["dripping", "frozen"])
def test_the_deadline_of_a_metric_holds_whatever_the_judge_does(
    ledger: Ledger, server: JudgeServer, tmp_path: Path, fault: str
) -> None:
    """Bytes now and then beat a timeout of reads; the deadline is of the whole metric. What was sent may be billed,
    so it counts."""
    server.fault = fault
    settings = judged_by(tmp_path, server.base_url, RAG_JUDGE_TIMEOUT_S="1")

    async def timed() -> tuple[dict[str, Score], float]:
        from rag_platform.evaluation.evaluators.scoring import library

        await library()
        evaluators = open_evaluators(settings, ledger, now=lambda: NOON)
        loop = asyncio.get_running_loop()
        try:
            started = loop.time()
            found = {s.metric: s for s in await evaluators[-1].score(KEYS)}
            return found, loop.time() - started
        finally:
            for evaluator in evaluators:
                await evaluator.aclose()

    found, seconds = asyncio.run(timed())
    assert states(found) == dict.fromkeys(ALL, "failed") and "within 1 s" in found["ragas_faithfulness"].detail
    assert seconds < 6
    assert ledger.evaluations.judge_spend(DAY).tokens > 0


# ── whose word it is ──


def test_the_judge_is_pinned(ledger: Ledger, tmp_path: Path) -> None:
    """Another model, address or embedder is another judge; its secret and its patience are not part of it."""

    def pin(base_url: str = "http://127.0.0.1:1/v1", **environ: str) -> str | None:
        evaluators = open_evaluators(judged_by(tmp_path, base_url, **environ), ledger)
        return evaluators[-1].judge

    pinned = pin()
    assert pinned is not None and pinned.startswith("judge-1@")
    assert pin(RAG_JUDGE_API_KEY="sk-secret", RAG_JUDGE_TIMEOUT_S="5", RAG_JUDGE_CONCURRENCY="2") == pinned
    others = {
        pin(RAG_JUDGE_MODEL="judge-2"),
        pin("http://127.0.0.1:2/v1"),
        pin(RAG_EMBEDDER="openai_compatible", RAG_OPENAI_API_KEY="sk-secret"),
    }
    assert len(others | {pinned}) == 4


def test_a_judge_that_cannot_work_is_said_at_the_start(ledger: Ledger, tmp_path: Path) -> None:
    """An unknown one lists the known ones; OpenAI's own needs a key; both name the variable."""
    with pytest.raises(ConfigurationError, match="openai_compatible"):
        open_evaluators(judged_by(tmp_path, "http://127.0.0.1:1/v1", RAG_JUDGE="oracle"), ledger)
    with pytest.raises(ConfigurationError, match="RAG_JUDGE_API_KEY"):
        open_evaluators(judged_by(tmp_path, "", RAG_JUDGE_MODEL=""), ledger)
    with pytest.raises(ConfigurationError, match="RAG_JUDGE_MODEL"):
        open_evaluators(judged_by(tmp_path, "http://127.0.0.1:1/v1", RAG_JUDGE_MODEL=""), ledger)


def test_a_judge_in_a_process_of_its_own(ledger: Ledger, tmp_path: Path) -> None:
    """As it stands in production: another process, told over HTTP what to do."""
    with judge_process() as judge:
        settings = judged_by(tmp_path, judge.base_url)
        [[found], _] = scored(settings, ledger, [KEYS])
        assert set(states(found).values()) == {"scored"} and judge.control()["calls"] == CALLS
        judge.control(style="prose")
        [[found], _] = scored(settings, ledger, [KEYS])
        assert set(states(found).values()) == {"failed"}


def test_complete_json_sends_the_schema(server: JudgeServer) -> None:
    """The backend's own contract: one request, bound to the schema."""
    environ = {"RAG_JUDGE_BASE_URL": server.base_url, "RAG_JUDGE_MODEL": "judge-1"}
    llm = backends.load("llms", "openai_compatible").build(Settings.from_env(environ), "RAG_JUDGE_")
    server.answers = ['{"a": 1}']

    async def main() -> str:
        try:
            found = await llm.complete_json([Message("user", "?")], {"type": "object"}, max_tokens=8, timeout_s=30)
            return str(found.text)
        finally:
            await llm.aclose()

    assert asyncio.run(main()) == '{"a": 1}' and server.calls == 1
    assert server.bodies[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}
