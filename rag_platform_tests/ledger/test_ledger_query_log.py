"""Query log and feedback in the ledger."""

from __future__ import annotations

import pytest

from rag_platform.ledger import Ledger, query_log
from rag_platform.ledger.feedback import FeedbackRow
from rag_platform.ledger.query_log import LoggedChunk, QueryLogRow
from rag_platform.records import Principal

FULL = QueryLogRow(
    request_id="q1",
    at=1000.5,
    tenant="acme",
    profile="balanced",
    status="ok",
    key_id="k1",
    groups=("board", "staff"),
    operator=False,
    question_hash="abc",
    question="Wie hoch ist der Kran? 🏗",
    answer="12 m [1]",
    release_id="r-1",
    mode="full",
    cache="miss",
    generator="extractive",
    refused=False,
    degraded=(("rerank", "DependencyTimeout"),),
    documents=(LoggedChunk("d1", "c1", 1, cited=True), LoggedChunk("d2", "c2", 2)),
    total_ms=12.5,
    timings_ms={"search": 3.25, "total": 12.5},
    prompt_tokens=10,
    completion_tokens=20,
    embedding_tokens=5,
    cost_usd=0.00125,
    trace_id="t",
)


def row(request_id: str, at: float = 0.0, **changes: object) -> QueryLogRow:
    return QueryLogRow(**({"request_id": request_id, "at": at, "tenant": "acme", "profile": "fast"} | changes))  # type: ignore[arg-type]


def thumb(request_id: str, rating: int = 1, key_id: str | None = None, at: float = 0.0) -> FeedbackRow:
    return FeedbackRow(request_id=request_id, key_id=key_id, rating=rating, comment=None, at=at)


def test_a_row_comes_back_as_it_was_written(ledger: Ledger) -> None:
    """Every field survives, unknown ones as None, and with them the permissions to ask the question again."""
    bare = row("q2", 2000.0)
    ledger.query_log.add([FULL, bare])
    assert ledger.query_log.get("q1") == FULL
    assert ledger.query_log.get("q2") == bare
    assert ledger.query_log.get("q3") is None
    assert FULL.principal == Principal("acme", frozenset({"staff", "board"}))
    assert FULL.tokens == 35
    operator = row("q4", tenant="", operator=True)
    ledger.query_log.add([operator])
    stored = ledger.query_log.get("q4")
    assert stored is not None and stored.principal.operator


def test_a_batch_written_twice_counts_once(ledger: Ledger) -> None:
    """A row whose request id is there is left as it is; its neighbours are written."""
    ledger.query_log.add([row("a", question="first")])
    ledger.query_log.add([row("a", question="second"), row("b")])
    kept = ledger.query_log.get("a")
    assert kept is not None and kept.question == "first"
    assert len(ledger.query_log.since(0)) == 2
    ledger.query_log.add([])


def test_text_that_a_database_would_refuse_is_mended(ledger: Ledger) -> None:
    """A NUL and a lone surrogate do not cost the row."""
    ledger.query_log.add([row("a", question="x\0y\ud800z", answer="\udfff")])
    kept = ledger.query_log.get("a")
    assert kept is not None and (kept.question, kept.answer) == ("x y?z", "?")


def test_rows_are_listed_newest_first_and_deleted_by_age(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """``since`` is bounded; ``delete_before`` takes what is older, over any number of short transactions."""
    monkeypatch.setattr(query_log, "DELETE_BATCH", 4)
    ledger.query_log.add([row(f"q{n:02}", float(n)) for n in range(20)])
    assert [r.request_id for r in ledger.query_log.since(10.0, limit=3)] == ["q19", "q18", "q17"]
    assert ledger.query_log.delete_before(12.0) == 12
    assert ledger.query_log.delete_before(12.0) == 0
    assert [r.at for r in ledger.query_log.since(0)] == [float(n) for n in range(19, 11, -1)]


def test_a_second_thumb_replaces_the_first(ledger: Ledger) -> None:
    """One thumb for each reader and answer; readers without a key count as one."""
    key, _ = ledger.keys.create(name="n", tenant="acme")
    ledger.query_log.add([row("a", key_id=key.key_id), row("open")])
    assert ledger.feedback.put(thumb("a", 1, key.key_id, at=1.0))
    again = FeedbackRow(request_id="a", key_id=key.key_id, rating=-1, comment="wrong\0", at=2.0)
    assert ledger.feedback.put(again)
    [kept] = ledger.feedback.of_request("a")
    assert (kept.rating, kept.comment, kept.at, kept.key_id) == (-1, "wrong ", 2.0, key.key_id)
    assert ledger.feedback.put(thumb("open", 1)) and ledger.feedback.put(thumb("open", -1))
    [kept] = ledger.feedback.of_request("open")
    assert (kept.rating, kept.key_id) == (-1, None)


def test_only_answers_of_the_own_tenant_can_be_rated(ledger: Ledger) -> None:
    """Unknown answers, those of another tenant, and across the border between keys and no keys: refused."""
    own, _ = ledger.keys.create(name="n", tenant="acme")
    colleague, _ = ledger.keys.create(name="n", tenant="acme")
    stranger, _ = ledger.keys.create(name="n", tenant="other")
    ledger.query_log.add([row("a", key_id=own.key_id), row("open")])
    assert ledger.feedback.put(thumb("a", 1, own.key_id))
    assert ledger.feedback.put(thumb("a", -1, colleague.key_id))
    assert not ledger.feedback.put(thumb("a", -1, stranger.key_id))
    assert not ledger.feedback.put(thumb("a", -1, None))
    assert not ledger.feedback.put(thumb("a", -1, "never-made"))
    assert not ledger.feedback.put(thumb("unknown", 1, own.key_id))
    assert len(ledger.feedback.of_request("a")) == 2
    with pytest.raises(ValueError, match="rating"):
        thumb("a", 0)


def test_feedback_is_listed_and_deleted_by_age(ledger: Ledger) -> None:
    """As the query log."""
    ledger.query_log.add([row(f"q{n}") for n in range(5)])
    for n in range(5):
        assert ledger.feedback.put(thumb(f"q{n}", at=float(n)))
    assert [f.request_id for f in ledger.feedback.since(2.0, limit=2)] == ["q4", "q3"]
    assert ledger.feedback.delete_before(3.0) == 3
    assert [f.request_id for f in ledger.feedback.since(0)] == ["q4", "q3"]
