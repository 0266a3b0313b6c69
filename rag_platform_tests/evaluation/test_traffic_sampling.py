"""Scoring a sample of the live traffic: which questions, with what passages, and what is left out and said."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_platform.evaluation.evaluators.opening import open_evaluators
from rag_platform.evaluation.gauges import newest
from rag_platform.evaluation.sampling import CHANGED, NO_RELEASE, NO_TEXT, Traffic, choose, is_sampled, traffic
from rag_platform.evaluation.traffic import NAME, TrafficReport, evaluate_traffic
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.feedback import FeedbackRow
from rag_platform.ledger.query_log import QueryLogRow
from rag_platform.query.log import logged
from rag_platform.query.offline import OfflineQueries
from rag_platform.records import Principal
from rag_platform.settings import Settings
from rag_platform_tests import harness
from rag_platform_tests.evaluation.corpora import CASES, ingested
from rag_platform_tests.evaluation.judge_server import JudgeServer
from rag_platform_tests.evaluation.judging import NOON

WEEK = 7 * 86_400.0
STAFF = Principal("default", frozenset({"public", "staff"}))


def row(request_id: str, **more: object) -> QueryLogRow:
    base = QueryLogRow(
        request_id=request_id, at=NOON, tenant="default", profile="fast", question="q", answer="a", release_id="r"
    )
    return msgspec.structs.replace(base, **more)


# ── which ones ──


def test_the_sample_is_the_same_everywhere_and_grows_with_its_rate() -> None:
    """By the hash of the trace, or of the request without one; a smaller sample is part of every larger one."""
    rows = [row(f"request-{n}") for n in range(4000)]
    small = {r.request_id for r in rows if is_sampled(r, 0.05)}
    large = {r.request_id for r in rows if is_sampled(r, 0.2)}
    assert small < large and 150 < len(small) < 250 and 700 < len(large) < 900
    assert all(is_sampled(r, 1.0) for r in rows) and not any(is_sampled(r, 0.0) for r in rows)
    assert is_sampled(row("a", trace_id="t"), 0.4) == is_sampled(row("b", trace_id="t"), 0.4)
    assert "".join(str(int(is_sampled(row(f"request-{n}"), 0.5))) for n in range(8)) == "11101100"  # for ever


@given(
    st.lists(st.tuples(st.integers(0, 60), st.booleans(), st.sampled_from(["miss", "exact", "semantic"])), max_size=40),
    st.sets(st.integers(0, 60)),
    st.floats(0, 1),
    st.integers(0, 30),
)
def test_every_thumb_down_is_chosen_first(
    asked: list[tuple[int, bool, str]], disliked: set[int], rate: float, limit: int
) -> None:
    """Whatever the rate: all of them as long as there is room; never an error, never more than the limit, and what
    comes again from the exact cache only with a thumb down."""
    rows = list({n: row(f"{n}", status="ok" if ok else "Timeout", cache=cache) for n, ok, cache in asked}.values())
    down = {f"{n}" for n in disliked}
    chosen = choose(rows, down, rate, limit)
    assert len(chosen) <= limit and len({r.request_id for r in chosen}) == len(chosen)
    wanted = [r for r in rows if r.status == "ok" and r.request_id in down]
    assert sum(r.request_id in down for r in chosen) == min(limit, len(wanted))
    assert all(r.status == "ok" and (r.request_id in down or r.cache != "exact") for r in chosen)
    assert [r.request_id for r in choose(rows[::-1], down, rate, limit)] == [r.request_id for r in chosen]


# ── with what ──


@pytest.fixture(scope="module")
def answered(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Settings, list[QueryLogRow], dict[str, tuple[str, ...]]]:
    """A home with the small corpus; its questions as the query log keeps them, and the passages of their answers."""
    folder = tmp_path_factory.mktemp("traffic")
    settings = harness.settings(folder / "home", RAG_QUERY_LOG="full", RAG_EVAL_SAMPLE_RATE="1")
    with Workbench(settings) as bench:
        ingested(bench, folder)
        release = bench.ledger.releases.serving()
        assert release is not None

        async def main() -> tuple[list[QueryLogRow], dict[str, tuple[str, ...]]]:
            rows, contexts = [], {}
            queries = OfflineQueries(settings, bench.ledger, release)
            try:
                await queries.start()
                for case in CASES:
                    question = replace(queries.question(case.question, STAFF), request_id=case.case_id)
                    outcome = await queries.ask(question)
                    assert outcome.answer is not None
                    made = logged(question, outcome.answer, outcome.hits[:20], None)
                    rows.append(msgspec.structs.replace(made, request_id=case.case_id, at=NOON, question=case.question))
                    contexts[case.case_id] = tuple(p.text for p in outcome.passages)
            finally:
                await queries.aclose()
            return rows, contexts

        rows, contexts = asyncio.run(main())
    return settings, rows, contexts


@pytest.fixture
def bench(answered: tuple[Settings, list[QueryLogRow], dict[str, tuple[str, ...]]]) -> Iterator[Workbench]:
    """That home with nothing logged, rated or evaluated yet."""
    with Workbench(answered[0]) as opened:
        with opened.ledger.database.write("forget") as c:
            for table in (
                "query_log",
                "feedback",
                "evaluations",
                "evaluation_cases",
                "evaluation_scores",
                "judge_spend",
            ):
                c.exec_driver_sql(f"DELETE FROM {table}")
        yield opened


@pytest.fixture
def rows(answered: tuple[Settings, list[QueryLogRow], dict[str, tuple[str, ...]]]) -> list[QueryLogRow]:
    return list(answered[1])


def sample(bench: Workbench, **environ: str) -> Traffic:
    settings = harness.settings(bench.settings.root, RAG_EVAL_SAMPLE_RATE="1", **environ)
    return asyncio.run(traffic(settings, bench.ledger, NOON - WEEK, NOON + 1))


def dislike(bench: Workbench, request_id: str) -> None:
    assert bench.ledger.feedback.put(FeedbackRow(request_id=request_id, key_id=None, rating=-1, comment=None, at=NOON))


def test_a_sample_is_the_question_as_it_was_answered(
    bench: Workbench, rows: list[QueryLogRow], answered: tuple[Settings, object, dict[str, tuple[str, ...]]]
) -> None:
    """Its words, its answer, and exactly the passages that the generator was given; no reference."""
    bench.ledger.query_log.add(rows)
    dislike(bench, "keys")
    found = sample(bench)
    assert found.chosen == len(CASES) and not found.left_out
    assert {s.sample.case_id: s.sample.contexts for s in found.samples} == answered[2]
    by_id = {s.sample.case_id: s for s in found.samples}
    assert by_id["keys"].thumbs_down and not by_id["drill"].thumbs_down and by_id["mongolia"].sample.refused
    assert by_id["keys"].sample.question == CASES[0].question and "90 days" in by_id["keys"].sample.answer
    assert all(s.sample.reference is None and s.sample.reference_contexts == () for s in found.samples)


def test_a_thumb_down_is_scored_at_any_rate(bench: Workbench, rows: list[QueryLogRow]) -> None:
    """With a rate of zero only those; outside of the window none."""
    bench.ledger.query_log.add(rows)
    dislike(bench, "garden")
    settings = harness.settings(bench.settings.root, RAG_EVAL_SAMPLE_RATE="0")
    found = asyncio.run(traffic(settings, bench.ledger, NOON - WEEK, NOON + 1))
    assert [s.sample.case_id for s in found.samples] == ["garden"]
    assert asyncio.run(traffic(settings, bench.ledger, NOON - WEEK, NOON)).samples == ()


def test_what_cannot_be_scored_is_left_out_and_counted(bench: Workbench, rows: list[QueryLogRow]) -> None:
    """No text (RAG_QUERY_LOG=metadata), a release that is gone, a passage that is gone or that this reader may not
    see any more: never a score from half of the passages, and never a text for a stranger (P10)."""
    by_id = {r.request_id: r for r in rows}
    edit = msgspec.structs.replace
    gone = edit(by_id["drill"].documents[0], chunk_id="00000000-0000-0000-0000-000000000000")
    bench.ledger.query_log.add(
        [
            edit(by_id["keys"], question=None, answer=None),
            edit(by_id["cold"], release_id="r-gone"),
            edit(by_id["drill"], documents=(gone, *by_id["drill"].documents[1:])),
            edit(by_id["salary"], groups=("public",)),
            by_id["pump"],
        ]
    )
    found = sample(bench)
    assert found.left_out == {NO_TEXT: 1, NO_RELEASE: 1, CHANGED: 2} and found.chosen == 5
    assert [s.sample.case_id for s in found.samples] == ["pump"]


# ── and scored ──


def scored(bench: Workbench, server: JudgeServer, tokens: int = 0) -> TrafficReport:
    environ = {"RAG_JUDGE": "openai_compatible", "RAG_JUDGE_BASE_URL": server.base_url, "RAG_JUDGE_MODEL": "judge-1"}
    settings = harness.settings(
        bench.settings.root, RAG_EVAL_SAMPLE_RATE="1", RAG_JUDGE_DAILY_TOKENS=str(tokens), **environ
    )

    async def main() -> TrafficReport:
        evaluators = open_evaluators(settings, bench.ledger, traffic=True, now=lambda: NOON)
        try:
            return await evaluate_traffic(settings, bench.ledger, NOON - WEEK, NOON + 1, evaluators)
        finally:
            for evaluator in evaluators:
                await evaluator.aclose()

    return asyncio.run(main())


def test_traffic_is_judged_once_and_kept(bench: Workbench, rows: list[QueryLogRow]) -> None:
    """Scores by release in the ledger and in the gauges; a second look costs nothing; no question in the report."""
    bench.ledger.query_log.add(rows)
    with JudgeServer().running() as server:
        found = scored(bench, server)
        [report] = found.reports
        faithful = report.metrics["ragas_faithfulness"]
        refused = sum(r.refused for r in rows)
        assert (faithful.scored, faithful.nan, faithful.missing) == (len(CASES) - refused, refused, 0) and refused
        assert faithful.mean is not None and faithful.mean > 0.9  # the extractive generator quotes
        assert set(report.metrics) == {
            "ragas_faithfulness",
            "ragas_answer_relevancy",
            "ragas_context_utilization",
        }
        assert all(c.question == "" for c in report.cases) and len(report.cases) == len(CASES)
        calls = server.calls
        assert scored(bench, server).reports[0].metrics == report.metrics and server.calls == calls
    [kept] = newest(bench.ledger)
    assert (kept.golden_set, kept.kind, kept.release_id) == (NAME, "traffic", report.release_id)
    assert kept.judge is not None and kept.judge.startswith("judge-1@")


def test_what_the_budget_left_out_is_scored_later(bench: Workbench, rows: list[QueryLogRow]) -> None:
    """With a budget for a part, the part is kept and the rest is missing; the next call scores the rest alone."""
    bench.ledger.query_log.add(rows)
    with JudgeServer().running() as server:
        [part] = scored(bench, server, tokens=12_000).reports
        faithful = part.metrics["ragas_faithfulness"]
        assert faithful.missing > 0 and faithful.scored + faithful.nan + faithful.missing == len(CASES)
        with bench.ledger.database.write("tomorrow") as c:
            c.exec_driver_sql("DELETE FROM judge_spend")
        [whole] = scored(bench, server).reports
    assert whole.evaluation_id == part.evaluation_id
    assert all(m.missing == 0 and m.failed == 0 for m in whole.metrics.values())


def test_without_a_judge_traffic_is_sampled_and_not_scored(bench: Workbench, rows: list[QueryLogRow]) -> None:
    """No evaluator has anything to say about an answer without a reference, and nothing is written."""
    bench.ledger.query_log.add(rows)
    found = asyncio.run(evaluate_traffic(bench.settings, bench.ledger, NOON - WEEK, NOON + 1, []))
    assert found.reports == () and len(found.traffic.samples) == len(CASES) and bench.ledger.evaluations.list() == []
