"""``rag_eval_score``: the newest evaluations of the releases that exist, as Prometheus sees them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from rag_platform import metrics
from rag_platform.errors import DependencyError
from rag_platform.evaluation import gauges
from rag_platform.evaluation.gauges import ScoreGauges
from rag_platform.ledger import Ledger, open_ledger
from rag_platform.settings import Settings
from rag_platform_tests.serve.api_server import ApiServer

PIPELINE = {"embedder": {"model": "m"}}


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    opened = open_ledger(settings)
    yield opened
    opened.close()
    metrics.EVAL_SCORE.clear()


def evaluated(ledger: Ledger, release_id: str, golden_set: str, at: float, **means: float | None) -> None:
    name = f"{release_id}:{golden_set}:{at}"
    ledger.evaluations.begin(
        name, release_id=release_id, golden_set=golden_set, set_fingerprint="f", kind="golden", evaluator="rag_platform",
        judge=None, settings_fingerprint="s", at=at,
    )  # fmt: skip
    if means:
        summary = {"metrics": {m: {"mean": v} for m, v in means.items()}, "index_moved": False}
        ledger.evaluations.finish(name, summary, at + 1)


def shown() -> dict[tuple[str, str, str], float]:
    [family] = metrics.EVAL_SCORE.collect()
    return {(s.labels["metric"], s.labels["golden_set"], s.labels["release"]): s.value for s in family.samples}


def refreshed(scores: ScoreGauges) -> dict[tuple[str, str, str], float]:
    asyncio.run(scores.refresh())
    return shown()


def test_the_newest_complete_evaluation_of_each_release_is_shown(ledger: Ledger) -> None:
    """An older one, one that is not complete, a metric without a value and a release that is gone are not."""
    one = ledger.releases.ensure("one", PIPELINE, "lancedb").release_id
    two = ledger.releases.ensure("two", PIPELINE, "lancedb").release_id
    evaluated(ledger, one, "docs", 1.0, mrr=0.1, faithfulness=0.9)
    evaluated(ledger, one, "docs", 2.0, mrr=0.5, token_f1=None)
    evaluated(ledger, one, "docs", 3.0)
    evaluated(ledger, one, "faq", 1.0, mrr=0.7)
    evaluated(ledger, two, "docs", 1.0, mrr=0.8)
    evaluated(ledger, "r-gone", "docs", 9.0, mrr=0.9)
    scores = ScoreGauges(ledger)
    expected = {("mrr", "docs", one): 0.5, ("mrr", "faq", one): 0.7, ("mrr", "docs", two): 0.8}
    assert refreshed(scores) == expected
    ledger.releases.forget(two)
    assert refreshed(scores) == expected  # read again only after a while
    scores.close()
    scores = ScoreGauges(ledger)
    assert refreshed(scores) == {k: v for k, v in expected.items() if k[2] == one}
    scores.close()


def test_a_ledger_that_does_not_answer_keeps_nobody_waiting(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown stays; the answer is shown by the first call after it came."""
    release = ledger.releases.ensure("one", PIPELINE, "lancedb").release_id
    evaluated(ledger, release, "docs", 1.0, mrr=0.5)
    monkeypatch.setattr(gauges, "EVERY_S", 0.0)
    monkeypatch.setattr(gauges, "TIMEOUT_S", 0.05)
    scores = ScoreGauges(ledger)
    answer, real, down = threading.Event(), ledger.evaluations.list, False

    def slow(**where: object) -> object:
        assert answer.wait(30)
        if down:
            raise DependencyError("ledger", "is down")
        return real(limit=10)

    monkeypatch.setattr(ledger.evaluations, "list", slow)
    assert refreshed(scores) == {}
    answer.set()
    monkeypatch.setattr(gauges, "TIMEOUT_S", 30.0)
    assert refreshed(scores) == {("mrr", "docs", release): 0.5}
    down = True
    assert refreshed(scores) == {("mrr", "docs", release): 0.5}
    scores.close()


def test_the_api_shows_them(settings: Settings, ledger: Ledger) -> None:
    """``/metrics`` of the query API reads the ledger: whoever evaluated, in whatever process."""
    release = ledger.releases.ensure("one", PIPELINE, "lancedb").release_id
    evaluated(ledger, release, "docs", 1.0, recall_at_5=0.875)
    with ApiServer(settings) as api:
        text = api.http.get("/metrics").text
    assert f'rag_eval_score{{golden_set="docs",metric="recall_at_5",release="{release}"}} 0.875' in text
