"""Evaluations of real releases: real stages, LanceDB, the local models; only outages are made up."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rag_platform import metrics
from rag_platform.backends.token_encoder import TokenEncoder
from rag_platform.backends.vector_stores.base import SearchRequest, SearchResult
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.evaluation import run as evaluation
from rag_platform.evaluation.evaluators.base import Sample, Score, ScoreState
from rag_platform.evaluation.golden import GoldenSet, save
from rag_platform.evaluation.report import EvaluationReport
from rag_platform.evaluation.run import evaluate, stored_report
from rag_platform.ingestion.stages import chunk as chunk_stage
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.releases import Release
from rag_platform.query import offline
from rag_platform.query.offline import OfflineQueries
from rag_platform.records import ChunkSpan
from rag_platform.settings import Settings
from rag_platform_tests import harness
from rag_platform_tests.backends.server_store import ServerStore
from rag_platform_tests.evaluation.corpora import CASES, GOLDEN, case, ingested, specs

EVERY = len(CASES)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a RAG_HOME with the small corpus in it. Tests that change it make their own."""
    folder = tmp_path_factory.mktemp("evaluation")
    settings = harness.settings(folder / "home")
    with Workbench(settings) as bench:
        ingested(bench, folder)
    return settings


@pytest.fixture(scope="module", autouse=True)
def loaded(home: Settings) -> Iterator[None]:
    """Keep the models in memory between the evaluations of this file, which share them with whoever has them open."""
    encoder = TokenEncoder(home)
    asyncio.run(encoder.encode(["loaded"]))
    yield
    asyncio.run(encoder.aclose())


@pytest.fixture
def opened(home: Settings) -> Iterator[Workbench]:
    """The shared home, with nothing evaluated on it yet."""
    with Workbench(home) as bench:
        with bench.ledger.database.write("forget") as c:
            for table in ("evaluations", "evaluation_cases", "evaluation_scores"):
                c.exec_driver_sql(f"DELETE FROM {table}")
        yield bench


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each question reached the pipeline."""
    counts: Counter[str] = Counter()
    real = OfflineQueries._measured

    async def counting(self: OfflineQueries, question: Any, ask: Any) -> Any:
        counts[question.text] += 1
        return await real(self, question, ask)

    monkeypatch.setattr(OfflineQueries, "_measured", counting)
    return counts


def serving(bench: Workbench) -> Release:
    release = bench.ledger.releases.serving()
    assert release is not None
    return release


def run(bench: Workbench, golden: GoldenSet = GOLDEN, release: Release | None = None, **more: Any) -> EvaluationReport:
    return asyncio.run(evaluate(bench.settings, bench.ledger, release or serving(bench), golden, **more))


def value(report: EvaluationReport, metric: str) -> float:
    found = report.metrics[metric].mean
    assert found is not None
    return found


# ── what it measures ──


def test_a_release_that_finds_everything_scores_one(opened: Workbench) -> None:
    """Every span in the first ten, every answer right, and what cannot be measured is counted and not averaged."""
    report = run(opened)
    m = report.metrics
    assert value(report, "recall_at_10") == 1.0 and value(report, "mrr") == 1.0
    assert value(report, "contains_gold") == 1.0 and value(report, "refusal_accuracy") == 1.0
    assert value(report, "citation_recall") > 0.9 and value(report, "citation_precision") > 0.5
    assert 0 < value(report, "token_f1") < 1  # quotes are longer than references
    assert (m["recall_at_5"].scored, m["recall_at_5"].empty, m["recall_at_5"].failed) == (EVERY - 1, 1, 0)
    assert (m["contains_gold"].scored, m["contains_gold"].empty) == (EVERY - 2, 2)
    assert m["refusal_accuracy"].scored == EVERY
    assert m["cost_usd"].mean == 0.0 and 0 < value(report, "latency_ms_p50") <= value(report, "latency_ms_p95")
    assert {c.case_id for c in report.cases} == {c.case_id for c in CASES}
    by_id = {c.case_id: c for c in report.cases}
    assert by_id["mongolia"].refused and by_id["mongolia"].answer_uris == ()
    assert by_id["garden"].answer_uris == ("garden.txt",) and by_id["garden"].scores["recall_at_5"] == 1.0
    assert not report.index_moved and report.usd == 0.0 and report.seconds > 0


def test_without_answers_only_retrieval_is_measured(opened: Workbench) -> None:
    """Nothing of the generator is there, and it is another evaluation than the whole one."""
    report = run(opened, answers=False)
    assert value(report, "recall_at_10") == 1.0 and "token_f1" not in report.metrics
    assert all(c.refused is None for c in report.cases)
    assert report.cases[3].answer_uris[0] == "garden.txt"
    assert run(opened).evaluation_id != report.evaluation_id


def test_every_case_is_asked_as_its_own_reader(opened: Workbench) -> None:
    """A question about a document of the group staff finds it for staff and not for everybody (P10)."""
    [salary] = [c for c in CASES if c.case_id == "salary"]
    outsider = replace(salary, case_id="outsider", groups=("public",))
    stranger = replace(salary, case_id="stranger", tenant="another", groups=("staff",))
    refusing = case("refusing", salary.question, None, must_refuse=True)
    report = run(opened, GoldenSet("readers", (salary, outsider, stranger, refusing)))
    by_id = {c.case_id: c for c in report.cases}
    assert by_id["salary"].scores["recall_at_10"] == 1.0 and by_id["salary"].scores["contains_gold"] == 1.0
    for name in ("outsider", "stranger"):
        assert by_id[name].scores["recall_at_10"] == 0.0 and by_id[name].scores["contains_gold"] == 0.0
        assert "salaries.txt" not in by_id[name].answer_uris
    assert by_id["stranger"].refused and by_id["refusing"].scores["refusal_accuracy"] in (0.0, 1.0)


def test_a_pipeline_that_truncates_its_chunks_scores_lower(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A candidate whose chunks lost most of their text is told from the good release by the spans it cannot show;
    and the spans are still right for a release that only cuts its chunks smaller."""
    sources = specs(tmp_path)
    with Workbench(settings) as bench:
        harness.ingest(bench, sources, "good")
        good = run(bench)
    with Workbench(replace(settings, chunk_tokens=24)) as bench:
        harness.ingest(bench, sources, "small")
        small, small_release = run(bench), serving(bench)
    real = chunk_stage.chunk_document

    def truncating(*args: Any) -> list[ChunkSpan]:
        return [replace(s, end=s.start + max(8, (s.end - s.start) // 5)) for s in real(*args)]

    monkeypatch.setattr(chunk_stage, "chunk_document", truncating)
    with Workbench(replace(settings, chunk_tokens=199)) as bench:
        harness.ingest(bench, sources, "truncated")
        bad = run(bench)
        again = run(bench, release=small_release)  # no longer the one that serves
    assert value(good, "recall_at_10") == value(small, "recall_at_10") == 1.0
    assert value(bad, "recall_at_10") < 0.7 and value(bad, "ndcg_at_10") < value(good, "ndcg_at_10") - 0.2
    assert value(bad, "contains_gold") < value(good, "contains_gold")
    assert bad.worst("recall_at_10", 1)[0].scores["recall_at_10"] == 0.0
    assert again == small
    assert len({r.evaluation_id for r in (good, small, bad)}) == 3


def test_nothing_of_it_is_traffic(opened: Workbench) -> None:
    """No row in the query log, and no counter of live questions moves."""

    def counted() -> dict[tuple[str, Any], float]:
        found = {}
        for family in metrics.REGISTRY.collect():
            for sample in family.samples:
                found[sample.name, tuple(sample.labels.items())] = sample.value
        return found

    before = counted()
    run(opened)
    assert {k: v for k, v in counted().items() if before.get(k, 0.0) != v} == {}
    assert opened.ledger.query_log.since(0) == []


# ── going on ──


def test_an_unchanged_release_is_not_asked_again(opened: Workbench, asked: Counter[str]) -> None:
    """The second call reads the ledger; the report is the same to the last digit."""
    told: list[tuple[int, int]] = []
    first = run(opened, progress=lambda done, cases: told.append((done, cases)))
    assert told == [(n, EVERY) for n in range(EVERY + 1)] and asked.total() == EVERY
    assert run(opened) == first and asked.total() == EVERY
    found = opened.ledger.evaluations.latest(first.release_id, "small", GOLDEN.fingerprint)
    assert found is not None and found.finished_at is not None and found.summary is not None
    assert stored_report(opened.ledger, found, GOLDEN) == first
    assert found.summary["metrics"]["mrr"]["mean"] == value(first, "mrr")


def test_a_changed_index_is_measured_anew_and_a_restored_one_is_not(
    settings: Settings, tmp_path: Path, asked: Counter[str]
) -> None:
    """What decides is what the index holds: not how often it was written."""
    sources = specs(tmp_path)
    with Workbench(settings) as bench:
        harness.ingest(bench, sources, "r1")
        first = run(bench)
        (tmp_path / "docs" / "garden.txt").unlink()
        harness.ingest(bench, sources, "r2")
        second = run(bench)
        assert second.evaluation_id != first.evaluation_id and asked.total() == 2 * EVERY
        assert value(second, "recall_at_10") < value(first, "recall_at_10")
        specs(tmp_path)
        harness.ingest(bench, sources, "r3")
        assert run(bench) == first and asked.total() == 2 * EVERY
        other = GoldenSet("small", CASES[:-1])
        assert run(bench, other).evaluation_id not in (first.evaluation_id, second.evaluation_id)


def test_an_index_that_moves_meanwhile_is_told_and_measured_again(
    settings: Settings, tmp_path: Path, asked: Counter[str]
) -> None:
    """The scores are of no one state: the report says so, and they are never taken for those of the state in which
    it began."""
    sources = specs(tmp_path)

    def change(done: int, cases: int) -> None:
        if done == 2:
            thread = threading.Thread(target=ingest_elsewhere)
            thread.start()
            thread.join()

    def ingest_elsewhere() -> None:
        (tmp_path / "docs" / "garden.txt").unlink()
        with Workbench(settings) as other:
            harness.ingest(other, sources, "meanwhile")

    with Workbench(settings) as bench:
        harness.ingest(bench, sources, "r1")
        mixed = run(bench, progress=change)
        assert mixed.index_moved and asked.total() == EVERY
        specs(tmp_path)
        harness.ingest(bench, sources, "back")
        again = run(bench)
    assert again.evaluation_id == mixed.evaluation_id and not again.index_moved
    assert asked.total() == 2 * EVERY and value(again, "recall_at_10") == 1.0


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from rag_platform.evaluation.golden import load
from rag_platform.evaluation.run import evaluate
from rag_platform.ledger import open_ledger
from rag_platform.settings import Settings

settings = Settings.from_env()
ledger = open_ledger(settings)

def progress(done, cases):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(evaluate(settings, ledger, ledger.releases.serving(), load(Path(sys.argv[1])), progress=progress))
"""


def test_a_killed_evaluation_goes_on_where_it_was(opened: Workbench, asked: Counter[str], tmp_path: Path) -> None:
    """kill −9 after three cases: those are not asked again, and the report is that of a run that was not killed."""
    file = tmp_path / "small.yaml"
    save(file, GOLDEN)
    keep = {k: v for k, v in os.environ.items() if not k.startswith("RAG_")}
    child = subprocess.run(
        [sys.executable, "-c", KILLED, str(file)],
        env=keep | {"RAG_HOME": str(opened.settings.root), "RAG_EMBED_WORKERS": "1", "RAG_OCR": "off"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr[-2000:]
    [left] = opened.ledger.evaluations.list()
    assert left.summary is None and opened.ledger.evaluations.latest(left.release_id, "small") is None
    kept = {c.case_id for c in opened.ledger.evaluations.cases(left.evaluation_id)}
    assert 3 <= len(kept) < EVERY
    told: list[int] = []
    report = run(opened, progress=lambda done, cases: told.append(done))
    assert report.evaluation_id == left.evaluation_id
    assert asked.total() == EVERY - len(kept) and told[0] == len(kept) and told[-1] == EVERY
    assert {c.question for c in report.cases if c.case_id in kept}.isdisjoint(asked)
    assert value(report, "recall_at_10") == 1.0 and len(report.cases) == EVERY


class Store(ServerStore):
    """``away`` is an outage; a search for ``poison`` alone fails."""

    poison: str | None = None

    async def search(self, index: str, request: SearchRequest) -> SearchResult:
        if self.poison is not None and self.poison in (request.text or ""):
            raise DependencyError("vector_store", "fails on this one")
        return await super().search(index, request)


@pytest.fixture
def store(opened: Workbench) -> Store:
    """The home's own index behind a server that can be away. Without a replica: nothing could answer instead."""
    return Store(opened.store)


def on_server(bench: Workbench, store: Store, **more: Any) -> EvaluationReport:
    settings = replace(bench.settings, keyword_replica_url="none")
    stores = {serving(bench).store: store}
    return asyncio.run(evaluate(settings, bench.ledger, serving(bench), GOLDEN, stores=stores, **more))


def test_an_outage_ends_the_evaluation_and_it_goes_on_later(
    opened: Workbench, store: Store, asked: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No case is scored, or counted as failed, for what a dependency did (the store goes away after two cases)."""
    monkeypatch.setattr(offline, "RETRY_PAUSES_S", (0.0, 0.0))

    def away_after_two(done: int, cases: int) -> None:
        store.away = done >= 2

    with pytest.raises(DependencyError, match="away"):
        on_server(opened, store, progress=away_after_two)
    [left] = opened.ledger.evaluations.list()
    kept = opened.ledger.evaluations.cases(left.evaluation_id)
    assert 2 <= len(kept) < EVERY and all(c.failure is None for c in kept) and left.summary is None
    with pytest.raises(DependencyError, match="away"):
        on_server(opened, store)  # still away: nothing is asked
    asked.clear()
    store.away = False
    report = on_server(opened, store)
    assert asked.total() == EVERY - len(kept) and value(report, "recall_at_10") == 1.0
    assert all(c.failure is None for c in report.cases)


def test_a_case_that_fails_is_counted_and_stops_nobody(
    opened: Workbench, store: Store, asked: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are scored; all its metrics are counted as failed; the next call asks it again, and only it."""
    monkeypatch.setattr(offline, "RETRY_PAUSES_S", (0.0, 0.0))
    store.poison = "roof garden open"
    report = on_server(opened, store)
    by_id = {c.case_id: c for c in report.cases}
    assert by_id["garden"].failure == "NotAnswered" and by_id["garden"].refused is None
    assert sum(c.failure is not None for c in report.cases) == 1
    m = report.metrics
    assert (m["recall_at_5"].failed, m["recall_at_5"].scored) == (1, EVERY - 2)
    assert m["token_f1"].failed == m["latency_ms_p95"].failed == 1
    asked.clear()
    store.poison = None
    mended = on_server(opened, store)
    assert list(asked) == [by_id["garden"].question]
    assert mended.evaluation_id == report.evaluation_id and mended.metrics["recall_at_5"].failed == 0


def test_questions_that_cannot_be_asked_fail_alone_and_many_of_them_are_an_outage(
    opened: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One question beyond the limits of the API is a failed case; a row of failures ends the evaluation."""
    endless = [case(f"x{n}", f"{n} " + "very long " * 500, "x") for n in range(3)]
    report = run(opened, GoldenSet("one", (endless[0], CASES[0])))
    assert [c.failure for c in report.cases] == ["ValueError", None]
    monkeypatch.setattr(evaluation, "MAX_FAILED_IN_A_ROW", 3)
    with pytest.raises(DependencyError, match="in a row"):
        run(opened, GoldenSet("many", tuple(endless)))


# ── evaluators ──


ODD: dict[str, tuple[ScoreState, str]] = {
    "keys": ("nan", "undefined"),
    "drill": ("failed", "unreadable"),
    "cold": ("empty", "nothing"),
}


class Wordy:
    """An evaluator of the test: counts words, and knows every way not to score."""

    name: str = "wordy"
    metrics: tuple[str, ...] = ("words", "oddity")
    judge: str | None = "nobody-1"
    prefix = ""
    budget = 1000
    down = False

    def __init__(self) -> None:
        self.samples: dict[str, Sample] = {}

    async def score(self, sample: Sample) -> list[Score]:
        if self.down:
            raise DependencyError("llm:judge", "is down")
        if len(self.samples) >= self.budget:
            return []
        self.samples[sample.case_id] = sample
        words = Score(f"{self.prefix}words", float(len(sample.answer.split())), "scored", usd=0.01)
        state, why = ODD.get(sample.case_id, ("scored", ""))
        value = 1.0 if state == "scored" else None
        return [words, Score(f"{self.prefix}oddity", value, state, why)]

    async def aclose(self) -> None:
        return None


def test_evaluators_score_the_answers_beside_our_own_metrics(opened: Workbench) -> None:
    """They see question, answer, the passages it was made from and the gold; each way not to score is counted."""
    wordy = Wordy()
    report = run(opened, evaluators=[wordy])
    odd = report.metrics["oddity"]
    assert (odd.mean, odd.scored, odd.nan, odd.failed, odd.empty) == (1.0, EVERY - 3, 1, 1, 1)
    assert report.metrics["words"].scored == EVERY and value(report, "recall_at_10") == 1.0
    sample = wordy.samples["keys"]
    assert "every 90 days" in sample.answer and any("every 90 days" in c for c in sample.contexts)
    assert sample.reference == "every 90 days" and sample.reference_contexts[0].startswith("The signing key")
    assert wordy.samples["mongolia"].refused
    found = opened.ledger.evaluations.get(report.evaluation_id)
    assert found is not None and (found.judge, found.evaluator) == ("nobody-1", "rag_platform+wordy")
    assert run(opened).evaluation_id != report.evaluation_id


def test_what_an_evaluator_leaves_for_another_day_is_asked_again(opened: Workbench, asked: Counter[str]) -> None:
    """It is counted as missing; the next call asks those cases alone, and nobody scores twice what was paid for."""
    poor, rich = Wordy(), Wordy()
    poor.name, poor.metrics, poor.prefix, poor.budget = "poor", ("p_words", "p_oddity"), "p_", 3
    report = run(opened, evaluators=[rich, poor])
    assert (report.metrics["p_words"].scored, report.metrics["p_words"].missing) == (3, EVERY - 3)
    assert (report.metrics["words"].scored, report.metrics["words"].missing) == (EVERY, 0)
    first = set(poor.samples)
    asked.clear()
    rich.samples.clear()
    poor.samples.clear()
    poor.budget = EVERY
    report = run(opened, evaluators=[rich, poor])
    assert report.metrics["p_words"].missing == 0 and report.metrics["p_words"].scored == EVERY
    assert asked.total() == EVERY - 3 and rich.samples == {} and set(poor.samples).isdisjoint(first)
    assert report.usd == pytest.approx(0.01 * 2 * EVERY)


def test_a_judge_that_is_down_ends_the_evaluation(opened: Workbench) -> None:
    """Resumable, as for every dependency."""
    wordy = Wordy()
    wordy.down = True
    with pytest.raises(DependencyError, match="judge"):
        run(opened, evaluators=[wordy])
    wordy.down = False
    assert len(run(opened, evaluators=[wordy]).cases) == EVERY


def test_a_release_of_an_embedder_that_is_not_here_cannot_be_evaluated(opened: Workbench) -> None:
    """The message says what to do; nothing is asked with vectors of another model."""
    release = serving(opened)
    foreign = {**release.pipeline, "embedder": {**release.pipeline["embedder"], "fingerprint": "f" * 16}}
    with pytest.raises(ConfigurationError, match="RAG_"):
        run(opened, release=replace(release, pipeline=foreign))
