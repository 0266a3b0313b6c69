"""The life of a dead letter."""

from __future__ import annotations

import pytest

from rag_platform.errors import CorruptDocument, EmptyDocument
from rag_platform.ledger import Ledger
from rag_platform.ledger.dead_letters import DeadLetter, Failure
from rag_platform_tests.ledger.documents import document

A = document("a.pdf")
BACKOFF_S = 100.0


def fail(ledger: Ledger, version: str = "v1", stage: str = "parse", *, max_attempts: int = 5) -> DeadLetter:
    failure = Failure(A, version, stage, CorruptDocument("its parser refuses it"))
    (letter,) = ledger.dead_letters.record([failure], run_id="r", max_attempts=max_attempts, backoff_s=BACKOFF_S)
    return letter


def test_a_failure_becomes_one_open_letter(ledger: Ledger) -> None:
    """The letter says what failed, where and why, and blocks exactly that version."""
    letter = fail(ledger)
    assert (letter.state, letter.stage, letter.uri, letter.attempts) == ("open", "parse", "a.pdf", 1)
    assert (letter.error_code, letter.message) == ("corrupt", "its parser refuses it")
    assert ledger.dead_letters.blocking(A.bucket) == {A.document_id: {"v1"}}
    assert ledger.dead_letters.counts() == {"open": 1, "replaying": 0, "resolved": 0, "discarded": 0}
    assert ledger.dead_letters.record([], run_id="r", max_attempts=5, backoff_s=1) == []


def test_backoff_doubles_and_ends(ledger: Ledger) -> None:
    """Each failure doubles the wait; after the last attempt no automatic replay is due."""
    waits = []
    for attempt in range(1, 5):
        letter = fail(ledger, max_attempts=4)
        assert letter.attempts == attempt
        waits.append(None if letter.next_retry_at is None else letter.next_retry_at - letter.last_seen_at)
    assert waits == [pytest.approx(100), pytest.approx(200), pytest.approx(400), None]
    assert ledger.dead_letters.due(letter.last_seen_at + 1e9) == []
    assert letter.first_seen_at < letter.last_seen_at
    assert len(ledger.dead_letters.search()) == 1


def test_due_only_after_the_wait(ledger: Ledger) -> None:
    """A letter is due when its wait is over, and no longer once it is being replayed."""
    letter = fail(ledger)
    assert letter.next_retry_at is not None
    assert ledger.dead_letters.due(letter.next_retry_at - 1) == []
    assert ledger.dead_letters.due(letter.next_retry_at) == [letter]
    assert ledger.dead_letters.move([letter.dead_letter_id], "replaying", among=("open",)) == [letter.dead_letter_id]
    assert ledger.dead_letters.due(letter.next_retry_at) == []


def test_replaying_unblocks_and_a_new_failure_blocks_again(ledger: Ledger) -> None:
    """A letter in replay does not block its version; failing again opens it with one attempt more."""
    letter = fail(ledger)
    ledger.dead_letters.move([letter.dead_letter_id], "replaying", among=("open",))
    assert ledger.dead_letters.blocking(A.bucket) == {}
    again = fail(ledger)
    assert (again.dead_letter_id, again.attempts, again.state) == (letter.dead_letter_id, 2, "open")
    assert ledger.dead_letters.blocking(A.bucket) == {A.document_id: {"v1"}}


def test_move_takes_only_letters_in_the_given_states(ledger: Ledger) -> None:
    """A letter in another state, or an unknown id, is passed over."""
    letter = fail(ledger)
    assert ledger.dead_letters.move([letter.dead_letter_id, "unknown"], "discarded", among=("replaying",)) == []
    assert ledger.dead_letters.move([letter.dead_letter_id], "discarded", among=("open", "replaying"))
    assert ledger.dead_letters.counts()["discarded"] == 1


@pytest.mark.parametrize(
    ("wanted", "indexed", "resolution"),
    [
        ({A.document_id: "v1"}, {A.document_id}, "replayed"),
        ({A.document_id: "v2"}, set(), "superseded by a new version"),
        ({}, set(), "document deleted"),
        ({A.document_id: "v1"}, set(), None),
    ],
)
@pytest.mark.parametrize("state", ["open", "replaying"])
def test_settle(ledger: Ledger, state: str, wanted: dict[str, str], indexed: set[str], resolution: str | None) -> None:
    """A letter is resolved when its version is served, is no longer wanted, or its document is gone."""
    letter = fail(ledger)
    if state == "replaying":
        ledger.dead_letters.move([letter.dead_letter_id], "replaying", among=("open",))
    assert ledger.dead_letters.settle(A.bucket, wanted, indexed) == (resolution is not None)
    (held,) = ledger.dead_letters.search()
    assert held.state == ("resolved" if resolution else state)
    assert held.resolution == resolution
    assert ledger.dead_letters.settle("another", {}, set()) == 0


def test_a_discarded_letter_blocks_until_the_document_changes(ledger: Ledger) -> None:
    """Discarding keeps the version from being tried; a new version or a deletion ends it."""
    letter = fail(ledger)
    ledger.dead_letters.move([letter.dead_letter_id], "discarded", among=("open",))
    assert ledger.dead_letters.blocking(A.bucket) == {A.document_id: {"v1"}}
    assert ledger.dead_letters.settle(A.bucket, {A.document_id: "v1"}, set()) == 0
    assert ledger.dead_letters.settle(A.bucket, {A.document_id: "v2"}, set()) == 1
    assert ledger.dead_letters.blocking(A.bucket) == {}


def test_search_and_prefix(ledger: Ledger) -> None:
    """Letters are found by state, source and stage, and by a unique prefix of their id (no pattern)."""
    one, two = fail(ledger, "v1", "parse"), fail(ledger, "v2", "embed")
    assert [x.stage for x in ledger.dead_letters.search(stage="embed")] == ["embed"]
    assert len(ledger.dead_letters.search(source="docs", state="open")) == 2
    assert ledger.dead_letters.search(source="other") == []
    assert ledger.dead_letters.get(one.dead_letter_id) == one
    different = next(n for n in range(16) if one.dead_letter_id[:n] != two.dead_letter_id[:n])
    assert ledger.dead_letters.get(one.dead_letter_id[:different]) == one
    assert ledger.dead_letters.get("") is None
    assert ledger.dead_letters.get("%") is None


def test_many_letters_at_once(ledger: Ledger) -> None:
    """Hundreds of failures of one run are recorded in one transaction."""
    failures = [Failure(document(f"{n}"), "v", "parse", EmptyDocument("no text")) for n in range(1100)]
    letters = ledger.dead_letters.record(failures, run_id="r", max_attempts=5, backoff_s=1)
    assert len(letters) == 1100
    assert len(ledger.dead_letters.move([x.dead_letter_id for x in letters], "replaying", among=("open",))) == 1100
