"""Replay: logged questions on two real releases, with the permissions of those who asked, and without a trace."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from rag_platform import metrics
from rag_platform.cli import app
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.evaluation.changes import Side, average_overlap, change, jaccard
from rag_platform.evaluation.replay import ReplayReport, replay, select
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.query_log import QueryLogRow
from rag_platform.ledger.releases import Release
from rag_platform_tests import harness
from rag_platform_tests.backends.server_store import ServerStore
from rag_platform_tests.evaluation.corpora import CASES, ingested

SALARY = "Where does the salary band of a senior engineer start?"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two releases of the small corpus, of which the second has tiny chunks and serves."""
    folder = tmp_path_factory.mktemp("replay")
    settings = harness.settings(folder / "home")
    with Workbench(settings) as bench:
        ingested(bench, folder)
    with Workbench(replace(settings, chunk_tokens=12)) as bench:
        ingested(bench, folder, "r2")
    return settings.root


@pytest.fixture
def bench(home: Path) -> Iterator[Workbench]:
    """With an empty query log."""
    with Workbench(harness.settings(home)) as opened:
        opened.ledger.query_log.delete_before(time.time() + 1)
        yield opened


def both(bench: Workbench) -> tuple[Release, Release]:
    first, second = bench.ledger.releases.all()
    return first, second


def log(bench: Workbench, *rows: tuple[str, str | None, tuple[str, ...]], tenant: str = "default") -> None:
    now = time.time() - 60
    bench.ledger.query_log.add(
        [
            QueryLogRow(request_id=name, at=now - n, tenant=tenant, profile="balanced", groups=groups, question=text)
            for n, (name, text, groups) in enumerate(rows)
        ]
    )


def run(bench: Workbench, before: Release, after: Release, *, answers: bool = True) -> ReplayReport:
    questions = select(bench.ledger, 0.0, 100).questions
    return asyncio.run(replay(bench.settings, bench.ledger, before, after, questions, answers=answers))


# ── the measures ──

URIS = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)
SIDES = st.builds(
    Side, URIS.map(tuple), st.none() | st.text("xy ", max_size=6), st.booleans(), st.just(()), st.just(1.0), st.none()
)


@given(URIS, URIS)
def test_overlaps_are_symmetric_and_between_zero_and_one(one: Sequence[str], other: Sequence[str]) -> None:
    """1 for equal rankings and only for them (average overlap), or for equal sets (Jaccard); 0 for nothing in common."""
    for measure in (jaccard, average_overlap):
        found = measure(one, other)
        assert 0.0 <= found <= 1.0 and found == measure(other, one) and measure(one, one) == 1.0
        if one and not set(one) & set(other):
            assert found == 0.0
    assert (average_overlap(one, other) == 1.0) == (list(one) == list(other))


def test_the_first_ranks_weigh_most() -> None:
    """A swap at the top changes more than one at the end."""
    assert average_overlap("abcd", "bacd") < average_overlap("abcd", "abdc") < 1.0
    assert average_overlap("ab", "ac") == pytest.approx(0.75)


@given(SIDES, SIDES)
def test_a_change_has_no_direction(one: Side, other: Side) -> None:
    """Equal both ways, between 0 and 1, and nothing from a side to itself."""
    found, back = change(one, other), change(other, one)
    assert found == back and 0.0 <= found.score <= 1.0
    assert change(one, one).score == 0.0


# ── what is replayed ──


def test_distinct_questions_of_distinct_readers_are_selected(bench: Workbench) -> None:
    """The same words of the same reader once, with how often; of another reader again; errors and rows without text not;
    the newest first, at most so many."""
    log(
        bench,
        ("a", "one?", ("public",)),
        ("b", "two?", ("public",)),
        ("c", "one?", ("public",)),
        ("d", None, ("public",)),
    )
    log(bench, ("e", "one?", ("public", "staff")), tenant="other")
    now = time.time()
    bench.ledger.query_log.add(
        [QueryLogRow(request_id="f", at=now, tenant="t", profile="fast", status="E", question="x")]
    )
    found = select(bench.ledger, 0.0, 10)
    assert (found.rows, found.without_text) == (6, 1)
    assert {(q.row.request_id, q.times) for q in found.questions} == {("a", 2), ("b", 1), ("e", 1)}
    assert len(select(bench.ledger, 0.0, 2).questions) == 2


def test_a_log_without_texts_is_told(bench: Workbench) -> None:
    """With the setting that changes it, and with what that keeps; an empty log is another message."""
    with pytest.raises(ConfigurationError, match="--days"):
        select(bench.ledger, 0.0, 10)
    log(bench, ("a", None, ("public",)))
    with pytest.raises(ConfigurationError, match=r"RAG_QUERY_LOG=full.*RAG_QUERY_LOG_DAYS"):
        select(bench.ledger, 0.0, 10)


# ── the replay ──


def test_what_changes_between_two_releases_is_found(bench: Workbench) -> None:
    """Nothing between a release and itself; with tiny chunks answers change, the most changed first; the latency and the
    documents of both sides are there."""
    log(bench, *((c.case_id, c.question, ("public", "staff")) for c in CASES[:6]))
    first, second = both(bench)
    same = run(bench, first, first)
    assert len(same.replayed) == 6 and all(r.change.score == 0.0 for r in same.replayed) and same.failed == 0
    report = run(bench, first, second)
    scores = [r.change.score for r in report.replayed]
    assert scores == sorted(scores, reverse=True) and scores[0] > 0.1
    assert all(r.before.ms > 0 and r.after.ms > 0 and r.before.documents for r in report.replayed)
    found = run(bench, first, second, answers=False)
    assert all(r.before.answer is None and r.change.answer is None for r in found.replayed)


def test_readers_keep_their_permissions(bench: Workbench) -> None:
    """The same question of two readers: nothing of a document that one may not read appears on either side of his."""
    log(bench, ("staff", SALARY, ("public", "staff")), ("guest", SALARY, ("public",)))
    report = run(bench, *both(bench))
    by_name = {r.logged.row.request_id: r for r in report.replayed}
    assert "salaries.txt" in by_name["staff"].before.documents and "salaries.txt" in by_name["staff"].after.documents
    for side in (by_name["guest"].before, by_name["guest"].after):
        assert "salaries.txt" not in (*side.documents, *side.cited) and "91,000" not in (side.answer or "")


def test_it_leaves_no_trace(bench: Workbench) -> None:
    """No row of the query log, no feedback, no evaluation, no metric of live traffic."""
    log(bench, ("a", CASES[0].question, ("public",)))

    def seen() -> tuple[object, ...]:
        counters = {
            s.name + str(sorted(s.labels.items())): s.value
            for family in metrics.REGISTRY.collect()
            for s in family.samples
            if family.name.startswith("rag_") and s.name.endswith(("_total", "_count"))
        }
        ledger = bench.ledger
        return len(ledger.query_log.since(0)), len(ledger.feedback.since(0)), len(ledger.evaluations.list()), counters

    before = seen()
    run(bench, *both(bench))
    assert seen() == before


def test_an_outage_ends_it(bench: Workbench) -> None:
    """A store that is away is no change of the answers, but an error."""
    log(bench, ("a", CASES[0].question, ("public",)))
    store = ServerStore(bench.store)
    store.away = True
    settings = replace(bench.settings, keyword_replica_url="none")
    questions = select(bench.ledger, 0.0, 10).questions
    with pytest.raises(DependencyError):
        asyncio.run(replay(settings, bench.ledger, *both(bench), questions, stores={"lancedb": store}))


def test_the_command_shows_the_most_changed_side_by_side(bench: Workbench, home: Path) -> None:
    """A table of the whole, and both answers and rankings of each changed question; --json has the same; ids may be cut
    short; two releases are needed."""
    log(bench, *((c.case_id, c.question, ("public",)) for c in CASES[:4]))
    first, second = both(bench)
    env = {"RAG_HOME": str(home), "RAG_EMBED_WORKERS": "1", "COLUMNS": "200"}

    def compare(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["release", "compare", *arguments], env=env)
        assert result.exit_code == code, result.output
        return result.output

    shown = compare(first.release_id[:8], second.release_id)
    assert "most changed" in shown and f"{first.release_id} → {second.release_id}" in shown
    assert CASES[0].question in shown and "1. " in shown and "milliseconds" in shown
    report = json.loads(compare(first.release_id, second.release_id, "--no-answers", "--json").splitlines()[-1])
    assert report["questions"] == 4 and report["answer_change"] is None and 0 <= report["document_overlap"] <= 1
    assert len(report["most_changed"]) == 4 and report["most_changed"][0]["before"]["documents"]
    assert "is one release" in compare(first.release_id, first.release_id, code=2)
    assert "no candidate" in compare(code=2)
