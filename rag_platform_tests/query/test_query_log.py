"""The query log behind the questions' backs: nothing waits for it, nothing is lost without being counted."""

from __future__ import annotations

import contextlib
import hashlib
import random
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rag_platform.ledger import Ledger, open_ledger
from rag_platform.ledger.keys import KeyUse, utc_day
from rag_platform.ledger.query_log import QueryLogRow
from rag_platform.query.answer import Answer, Citation, Degradation, Usage
from rag_platform.query.key_usage import KeyUsage
from rag_platform.query.log import QueryLog, logged
from rag_platform.query.question import Question
from rag_platform.records import Principal
from rag_platform.settings import Settings
from rag_platform_tests import harness

PATIENCE_S = 60.0
"""How long a test waits for what must happen; far above what it takes on a busy machine."""


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    opened = open_ledger(settings)
    yield opened
    opened.close()


@contextlib.contextmanager
def log_on(ledger: Ledger, settings: Settings, **options: float) -> Iterator[QueryLog]:
    log = QueryLog(ledger, settings, **{"interval_s": 0.02} | options)  # type: ignore[arg-type]
    try:
        yield log
    finally:
        log.close()


@contextlib.contextmanager
def write_lock(settings: Settings) -> Iterator[None]:
    """Hold SQLite's write lock, as an ingestion does."""
    other = sqlite3.connect(settings.root / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.rollback()
        other.close()


def row(request_id: str, **changes: object) -> QueryLogRow:
    values = {"request_id": request_id, "at": time.time(), "tenant": "acme", "profile": "fast", "question": "why?"}
    return QueryLogRow(**(values | changes))  # type: ignore[arg-type]


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def full(settings: Settings, mode: str) -> Settings:
    return harness.settings(settings.root, RAG_QUERY_LOG=mode)


def test_a_row_appears_by_itself_without_texts(ledger: Ledger, settings: Settings) -> None:
    """Within moments and without a flush; by default neither question nor answer is kept."""
    with log_on(ledger, settings) as log:
        log.record(row("a", answer="because", key_id="k", prompt_tokens=3))
        eventually(lambda: ledger.query_log.get("a") is not None)
    kept = ledger.query_log.get("a")
    assert kept is not None
    assert (kept.question, kept.answer, kept.key_id, kept.prompt_tokens) == (None, None, "k", 3)
    assert log.dropped == 0
    database = (settings.root / "ledger.sqlite").read_bytes()
    assert b"why?" not in database and b"because" not in database


def test_a_full_log_keeps_texts_and_a_log_that_is_off_keeps_nothing_but_usage(
    ledger: Ledger, settings: Settings
) -> None:
    """RAG_QUERY_LOG decides what is kept; what a key used is counted in every mode."""
    with log_on(ledger, full(settings, "full")) as log:
        log.record(row("a", answer="because"))
    kept = ledger.query_log.get("a")
    assert kept is not None and (kept.question, kept.answer) == ("why?", "because")
    with log_on(ledger, full(settings, "off")) as log:
        log.record(row("b", key_id="k", completion_tokens=7, cost_usd=0.5))
        log.use("k", tokens=3)
        log.use(None, tokens=3)
    assert ledger.query_log.get("b") is None
    use = ledger.keys.usage(utc_day(time.time()))["k"]
    assert (use.requests, use.tokens, use.usd) == (2, 10, 0.5)


def test_equal_questions_have_equal_hashes_that_nobody_else_can_compute(ledger: Ledger, settings: Settings) -> None:
    """The same in every process on this RAG_HOME, another for each tenant; the key is a file of its owner."""
    for name, tenant in (("a", "acme"), ("b", "acme"), ("c", "other")):
        with log_on(ledger, settings) as log:
            log.record(row(name, tenant=tenant))
    a, b, c = (ledger.query_log.get(name) for name in "abc")
    assert a is not None and b is not None and c is not None
    assert a.question_hash == b.question_hash != c.question_hash
    assert hashlib.sha256(b"why?").hexdigest()[:32] != a.question_hash
    pepper = settings.root / "query_log.pepper"
    assert stat.S_IMODE(pepper.stat().st_mode) == 0o600 and len(pepper.read_bytes()) == 32
    assert [p.name for p in settings.root.glob(".pepper-*")] == []
    set_by_hand = harness.settings(settings.root, RAG_QUERY_LOG_PEPPER="shared by all servers")
    with log_on(ledger, set_by_hand) as log:
        log.record(row("d"))
    d = ledger.query_log.get("d")
    assert d is not None and d.question_hash != a.question_hash


def test_an_ingestion_that_holds_the_write_lock_stops_no_question(ledger: Ledger, settings: Settings) -> None:
    """Rows wait in memory while SQLite is locked, and are all there afterwards."""
    with log_on(ledger, settings) as log:
        with write_lock(settings):
            started = time.monotonic()
            for n in range(200):
                log.record(row(f"q{n}", key_id="k", prompt_tokens=1))
            assert time.monotonic() - started < 5, "recording waited for the lock"
            assert not log.flush(0.05)
            assert ledger.query_log.since(0) == []
            assert log.key_usage.today("k", time.time()).tokens == 200
        assert log.flush(PATIENCE_S)
        assert len(ledger.query_log.since(0)) == 200
        assert ledger.keys.usage(utc_day(time.time()))["k"].tokens == 200
    assert log.dropped == 0


def test_a_full_queue_drops_and_counts_but_usage_is_complete(ledger: Ledger, settings: Settings) -> None:
    """Rows beyond the bound are counted as dropped; budgets still see every request."""
    with log_on(ledger, settings, max_rows=10) as log, write_lock(settings):
        for n in range(25):
            log.record(row(f"q{n}", key_id="k"))
        assert log.dropped == 15
        assert log.key_usage.today("k", time.time()).requests == 25
    assert [r.request_id for r in ledger.query_log.since(0)] != []
    assert len(ledger.query_log.since(0)) == 10
    assert ledger.keys.usage(utc_day(time.time()))["k"].requests == 25


def test_closing_has_a_time_limit(ledger: Ledger, settings: Settings) -> None:
    """With the ledger locked for good, close gives up when it said it would, and counts what is lost."""
    log = QueryLog(ledger, settings, interval_s=0.02)
    with write_lock(settings):
        log.record(row("a"))
        log.record(row("b"))
        started = time.monotonic()
        log.close(0.3)
        assert time.monotonic() - started < 10
    assert log.dropped == 2
    log.record(row("c"))
    log.close()
    assert log.dropped == 3
    assert not log.flush(0.1)


def test_a_ledger_that_is_down_at_the_start_gets_its_rows_later(settings: Settings) -> None:
    """Questions are answered and logged before the database exists; the rows arrive when it does."""
    blocked = settings.root / "ledger.sqlite"
    blocked.mkdir(parents=True)
    ledger = open_ledger(settings, lazy=True)
    try:
        with log_on(ledger, settings) as log:
            log.record(row("a", key_id="k"))
            assert not log.flush(0.1)
            blocked.rmdir()
            assert log.flush(PATIENCE_S)
            assert ledger.query_log.get("a") is not None
            assert ledger.keys.usage(utc_day(time.time()))["k"].requests == 1
        assert log.dropped == 0
    finally:
        ledger.close()


def test_one_bad_row_costs_itself_only(ledger: Ledger, settings: Settings) -> None:
    """A row that cannot be written is dropped and counted; those before and behind it are there."""
    with log_on(ledger, settings) as log, write_lock(settings):
        for n in range(9):
            log.record(row(f"q{n}", timings_ms={"x": object()} if n == 4 else {}))
        log.record(None)  # type: ignore[arg-type]
    assert {r.request_id for r in ledger.query_log.since(0)} == {f"q{n}" for n in range(9) if n != 4}
    assert log.dropped == 2


def test_many_threads_lose_nothing(ledger: Ledger, settings: Settings) -> None:
    """Each of 1,600 rows arrives once, and usage is exact, while the writer runs."""
    with log_on(ledger, settings) as log:

        def work(name: int) -> None:
            for n in range(200):
                log.record(row(f"{name}-{n}", key_id=f"k{name % 2}", embedding_tokens=2))

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert log.flush(PATIENCE_S)
        rows = ledger.query_log.since(0, limit=5000)
        assert len({r.request_id for r in rows}) == len(rows) == 1600
        usage = ledger.keys.usage(utc_day(time.time()))
        assert {k: (u.requests, u.tokens) for k, u in usage.items()} == {"k0": (800, 1600), "k1": (800, 1600)}
        assert log.key_usage.today("k0", time.time()).requests == 800
    assert log.dropped == 0


def test_servers_see_each_others_use(ledger: Ledger, settings: Settings) -> None:
    """A daily budget is that of the key, not of the process: another server's use is counted here."""
    other = open_ledger(settings)
    try:
        with log_on(ledger, settings) as here, log_on(other, settings) as there:
            there.use("k", tokens=5, usd=0.25)
            here.start()
            eventually(lambda: here.key_usage.today("k", time.time()).tokens == 5)
            here.use("k", tokens=2)
            eventually(lambda: there.key_usage.today("k", time.time()).tokens == 7)
    finally:
        other.close()


def test_what_is_known_to_be_used_is_exact_at_every_moment() -> None:
    """Over random orders of adding, writing (with failures) and reading back, nothing is missed or counted twice."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    usage, day, at = KeyUsage(), "2026-11-22", 1_795_360_000.0
    stored = own = known_of_others = others = 0
    for _ in range(2000):
        step = chance.choice(["add", "add", "write", "fail", "learn", "other"])
        if step == "add":
            tokens = chance.randrange(10)
            usage.add("k", tokens=tokens, usd=0.0, at=at)
            own += tokens
        elif step == "other":
            others += 1
        elif step == "learn":
            usage.learn(day, [KeyUse("k", day, 0, stored + others, 0.0)])
            known_of_others = others
        else:
            taken = usage.take()
            assert usage.today("k", at).tokens == own + known_of_others
            if step == "write":
                stored += sum(u.tokens for u in taken)
            usage.done(written=step == "write")
        assert usage.today("k", at).tokens == own + known_of_others
        assert usage.today("other", at).tokens == 0


def test_a_new_day_begins_at_nothing() -> None:
    """Use belongs to the UTC day on which it happened."""
    usage = KeyUsage()
    midnight = 1_795_392_000.0
    usage.add("k", tokens=5, usd=1.0, at=midnight - 1)
    usage.add("k", tokens=7, usd=2.0, at=midnight)
    assert (usage.today("k", midnight - 1).tokens, usage.today("k", midnight).tokens) == (5, 7)
    assert [(u.day, u.tokens) for u in usage.take()] == [("2026-11-22", 5), ("2026-11-23", 7)]


def test_an_answer_becomes_a_row() -> None:
    """Who asked, what it rests on, what it cost; a cached answer's citations stand for the hits it no longer has."""
    who = Principal("acme", frozenset({"staff", "board"}))
    question = Question("  Why\n so? ", who, "q1", key_id="k")
    citation = Citation(
        number=1, chunk_id="c", document_id="d", source="s", uri="u", title="t", page=None, heading_path="", start=0,
        end=1, quote="x", score=1.0, version_id="v", snapshot_id="s", run_id="r",
    )  # fmt: skip
    answer = Answer(
        request_id="q1", answer="x [1]", citations=[citation], mode="full", generator="extractive",
        degraded=[Degradation("rerank", "off")], cache="exact", refused=False,
        usage=Usage(prompt_tokens=1, completion_tokens=2, embedding_tokens=3), cost_usd=None,
        timings_ms={"total": 5.0}, release_id="r-1", profile="balanced",
    )  # fmt: skip
    made = logged(question, answer, (), "trace")
    assert (made.question, made.groups, made.key_id, made.tokens) == ("Why so?", ("board", "staff"), "k", 6)
    assert [(d.document_id, d.chunk_id, d.rank, d.cited) for d in made.documents] == [("d", "c", 1, True)]
    assert (made.degraded, made.cost_usd, made.cache, made.total_ms) == ((("rerank", "off"),), None, "exact", 5.0)
    assert made.principal == who


def test_a_home_that_cannot_be_written_still_logs(tmp_path: Path, ledger: Ledger) -> None:
    """Where no pepper file can be made, hashes agree within the process."""
    (tmp_path / "file").write_text("")
    elsewhere = harness.settings(tmp_path / "file")
    with log_on(ledger, elsewhere) as log:
        log.record(row("a"))
        log.record(row("b"))
    a, b = ledger.query_log.get("a"), ledger.query_log.get("b")
    assert a is not None and b is not None and a.question_hash == b.question_hash
    assert log.dropped == 0
