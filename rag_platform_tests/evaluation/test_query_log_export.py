"""A day of questions as Parquet: all of it, again the same, and none of the texts."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from rag_platform.backends.object_stores import open_object_store
from rag_platform.backends.object_stores.base import ObjectStore
from rag_platform.evaluation import query_log_export
from rag_platform.evaluation.query_log_export import DAY_S, SCHEMA, DayOfQuestions, export_day
from rag_platform.ledger import Ledger, open_ledger
from rag_platform.ledger.feedback import FeedbackRow
from rag_platform.ledger.query_log import LoggedChunk, QueryLogRow
from rag_platform.settings import Settings

START = 1_800_000_000.0 // DAY_S * DAY_S
DAY = "2027-01-15"


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    opened = open_ledger(settings)
    yield opened
    opened.close()


@pytest.fixture
def objects(settings: Settings) -> ObjectStore:
    return open_object_store(settings)


def ask(ledger: Ledger, count: int, at: float = START, name: str = "q") -> list[QueryLogRow]:
    rng = random.Random(5)
    rows = [
        QueryLogRow(
            request_id=f"{name}{n:03d}",
            at=at + rng.choice((0.0, n, DAY_S - 1)),
            tenant="acme",
            profile="fast",
            groups=("public", "staff"),
            question="what is the password of the safe",
            answer="a secret answer",
            release_id="r-1",
            mode="full" if n % 4 else "keyword_only",
            cache="exact" if n % 2 else "miss",
            refused=n % 5 == 0,
            degraded=() if n % 4 else (("embed", "DependencyTimeout"),),
            documents=(LoggedChunk("d2", "c2", 2, cited=True), LoggedChunk("d1", "c1", 1)),
            total_ms=float(n),
            timings_ms={"retrieve": 1.5},
            cost_usd=0.5 if n % 3 else None,
            prompt_tokens=2,
        )
        for n in range(count)
    ]
    ledger.query_log.add(rows)
    return rows


def files(settings: Settings) -> list[Path]:
    return sorted(settings.root.rglob("query_log/day=*/*.parquet"))


def export(ledger: Ledger, objects: ObjectStore) -> DayOfQuestions:
    return export_day(ledger, objects, DAY, START)


def test_a_day_is_exported_whole_and_without_texts(ledger: Ledger, objects: ObjectStore, settings: Settings) -> None:
    """Every row of the day once, with its thumbs, in files of bounded size; nothing of the days beside it; no text."""
    rows = ask(ledger, 40)
    ask(ledger, 3, START - DAY_S, "before")
    ask(ledger, 3, START + DAY_S, "after")
    for request_id, key, rating in (("q001", None, 1), ("q002", None, -1)):
        assert ledger.feedback.put(
            FeedbackRow(request_id=request_id, key_id=key, rating=rating, comment="secret comment", at=START)
        )
    patch = pytest.MonkeyPatch()
    patch.setattr(query_log_export, "ROWS_PER_FILE", 16)
    found = export(ledger, objects)
    patch.undo()
    assert (found.rows, found.files, found.refused, found.degraded_answers, found.cached) == (40, 3, 8, 10, 20)
    assert (found.thumbs_up, found.thumbs_down, found.tokens) == (1, 1, 80)
    assert found.degraded == (("embed:DependencyTimeout", 10),) and found.usd == pytest.approx(13.0)
    tables = [pq.read_table(path, schema=SCHEMA) for path in files(settings)]
    read = [row for t in tables for row in t.to_pylist()]
    assert {r["request_id"] for r in read} == {r.request_id for r in rows} and len(read) == 40
    first = next(r for r in read if r["request_id"] == "q001")
    assert (first["document_ids"], first["cited_document_ids"]) == (["d1", "d2"], ["d2"]) and first["groups"] == [
        "public",
        "staff",
    ]
    assert (first["thumbs_up"], first["thumbs_down"]) == (1, 0)
    assert json.loads(first["timings_ms"]) == {"retrieve": 1.5}
    assert all(START <= r["at"].timestamp() < START + DAY_S for r in read)
    assert not any(word in str(read) for word in ("password", "secret"))


def test_a_second_export_replaces_the_first(ledger: Ledger, objects: ObjectStore, settings: Settings) -> None:
    """The same bytes for the same rows; fewer rows leave no file of the first behind; a day without questions is a file
    without rows."""
    ask(ledger, 40)
    patch = pytest.MonkeyPatch()
    patch.setattr(query_log_export, "ROWS_PER_FILE", 16)
    export(ledger, objects)
    before = {p: p.read_bytes() for p in files(settings)}
    export(ledger, objects)
    assert {p: p.read_bytes() for p in files(settings)} == before
    patch.undo()
    assert export(ledger, objects).files == len(files(settings)) == 1
    ledger.query_log.delete_before(START + DAY_S)
    empty = export(ledger, objects)
    assert (empty.rows, empty.p95_ms) == (0, None) and pq.read_table(files(settings)[0]).schema.equals(SCHEMA)


def test_pages_meet_without_a_gap(ledger: Ledger) -> None:
    """Rows of one moment, which the order by time alone does not tell apart, come once each, whatever the page size."""
    rows = ask(ledger, 40)
    for page in (1, 7, 40, 100):
        found = [r.request_id for part in ledger.query_log.between(START, START + DAY_S, page=page) for r in part]
        assert sorted(found) == [r.request_id for r in rows]


def test_the_schedule_exports_the_day_that_is_over() -> None:
    """Just after midnight UTC yesterday's partition is asked for, and it is one that the asset has."""
    from rag_platform.assets.query_log import days
    from rag_platform.schedules import daily_query_log

    at = datetime(2026, 3, 1, 1, 7, tzinfo=UTC)
    with dg.build_schedule_context(scheduled_execution_time=at) as context:
        request = daily_query_log(context)
    assert isinstance(request, dg.RunRequest) and request.partition_key == "2026-02-28"
    assert request.partition_key in days.get_partition_keys()
