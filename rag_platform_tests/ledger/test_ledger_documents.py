"""Documents of the ledger: compare-and-swap, bucket manifests, entries of an index."""

from __future__ import annotations

import threading
from dataclasses import replace

from rag_platform import identity
from rag_platform.ledger import Ledger
from rag_platform.ledger.documents import DocumentChange, IndexEntry
from rag_platform_tests.ledger.documents import commit, document


def test_a_change_on_an_old_generation_is_dropped(ledger: Ledger) -> None:
    """Of two writers that read the same state only the first commits; a later one on the new state does."""
    first, second = document("a", "one"), document("a", "two")
    commit(ledger, first)
    assert ledger.documents.commit([DocumentChange(second, 0)]) == set()
    held = ledger.documents.get(first.document_id)
    assert held is not None and (held.content_hash, held.generation) == (first.content_hash, 1)
    assert ledger.documents.commit([DocumentChange(second, 1)]) == {second.document_id}
    held = ledger.documents.get(first.document_id)
    assert held is not None and (held.content_hash, held.generation) == (second.content_hash, 2)


def test_of_many_writers_at_once_one_wins(ledger: Ledger) -> None:
    """Compare-and-swap holds between threads that commit at the same time."""
    commit(ledger, document("a"))
    won: list[str] = []
    start = threading.Barrier(6)

    def write(n: int) -> None:
        start.wait()
        if ledger.documents.commit([DocumentChange(document("a", str(n)), 1)]):
            won.append(identity.text_hash(str(n)))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    held = ledger.documents.get(document("a").document_id)
    assert held is not None and held.generation == 2
    assert won == [held.content_hash]


def test_retire_needs_the_generation_that_was_read(ledger: Ledger) -> None:
    """A document that somebody changed meanwhile is not deleted by an older view; deleting twice is nothing."""
    a, b = document("a"), document("b")
    commit(ledger, a, b)
    assert ledger.documents.retire({a.document_id: 7, b.document_id: 1}, run_id="r2") == {b.document_id}
    assert ledger.documents.retire({b.document_id: 2}, run_id="r2") == set()
    found = ledger.documents.of_source("docs")
    assert (found["a"].live, found["b"].live, found["b"].generation) == (True, False, 2)
    assert ledger.documents.totals(None)["live"] == 1


def test_a_deleted_document_comes_back(ledger: Ledger) -> None:
    """A document that returns is committed on the generation of its tombstone."""
    a = document("a")
    commit(ledger, a)
    ledger.documents.retire({a.document_id: 1}, run_id="r2")
    assert ledger.documents.commit([DocumentChange(a, 0)]) == set()
    assert ledger.documents.commit([DocumentChange(a, 2)]) == {a.document_id}
    assert ledger.documents.of_source("docs")["a"].live


def test_touch_records_the_token_only(ledger: Ledger) -> None:
    """A new change token is no new generation."""
    a = document("a")
    commit(ledger, a)
    ledger.documents.touch({a.document_id: "2"})
    held = ledger.documents.get(a.document_id)
    assert held is not None and (held.change_token, held.generation) == ("2", 1)


def test_bucket_generation_moves_with_its_manifest(ledger: Ledger) -> None:
    """A bucket's generation rises with content, metadata, additions and deletions, and with nothing else."""
    a = document("a")
    commit(ledger, a)
    states = [ledger.documents.refresh_buckets([a.bucket])[a.bucket]]

    def refreshed() -> None:
        states.append(ledger.documents.refresh_buckets([a.bucket])[a.bucket])

    refreshed()
    assert states[1] == states[0]
    ledger.documents.commit([DocumentChange(replace(a, content_hash="other"), 1)])
    refreshed()
    ledger.documents.commit([DocumentChange(replace(a, content_hash="other", metadata_hash="new"), 2)])
    refreshed()
    ledger.documents.retire({a.document_id: 3}, run_id="r")
    refreshed()
    assert [s.generation for s in states] == [1, 1, 2, 3, 4]
    assert len({s.manifest_hash for s in states}) == 4 and states[-1].documents == 0
    ledger.documents.commit([DocumentChange(a, 4)])
    refreshed()
    assert states[-1].manifest_hash == states[0].manifest_hash, "a revert gives the same manifest"
    assert states[-1].generation == 5, "but never an old generation"
    assert ledger.documents.buckets() == {a.bucket: states[-1]}


def test_rebucket_moves_everything_and_loses_nothing(ledger: Ledger) -> None:
    """A changed bucket count moves documents, index entries and dead letters together."""
    documents = [document(f"{n}") for n in range(40)]
    commit(ledger, *documents)
    ledger.documents.mark_dirty("rel", documents, "r")
    assert ledger.documents.rebucket(1) == 0
    ledger.documents.refresh_buckets(identity.buckets(1))
    assert ledger.documents.rebucket(2) == 40
    assert ledger.documents.buckets() == {}
    standing = {
        s.document.document_id: s for bucket in identity.buckets(2) for s in ledger.documents.standing("rel", bucket)
    }
    assert len(standing) == 40
    assert all(s.document.bucket == identity.bucket(i, 2) and s.entry is not None for i, s in standing.items())
    assert not any(ledger.documents.standing("rel", bucket) for bucket in identity.buckets(1))
    ledger.documents.retire({documents[0].document_id: 1}, run_id="r")
    retired = ledger.documents.retired_entries("rel", identity.bucket(documents[0].document_id, 2))
    assert [e.document_id for e in retired] == [documents[0].document_id]


def test_index_entries_are_dirty_between_the_marks(ledger: Ledger) -> None:
    """Marking dirty keeps what was known to be served; marking indexed makes it current; forgetting ends it."""
    a = document("a")
    commit(ledger, a)
    ledger.documents.mark_dirty("rel", [a], "r1")
    assert ledger.documents.entries("rel") == {a.document_id: IndexEntry(a.document_id, None, "", "", 0)}
    entry = IndexEntry(a.document_id, "v1", "c1", "m1", 3)
    ledger.documents.mark_indexed("rel", [(entry, a.bucket)], "r1")
    assert ledger.documents.entries("rel") == {a.document_id: entry}
    assert ledger.documents.totals("rel") == {"live": 1, "deleted": 0, "indexed": 1, "chunks": 3}
    ledger.documents.mark_dirty("rel", [a], "r2")
    assert ledger.documents.entries("rel")[a.document_id] == replace(entry, version_id=None)
    assert ledger.documents.totals("rel")["chunks"] == 0
    assert ledger.documents.entries("other") == {}
    ledger.documents.forget_entries("rel", [a.document_id])
    assert ledger.documents.entries("rel") == {}


def test_more_documents_than_one_statement_takes(ledger: Ledger) -> None:
    """Commits and look-ups of thousands of ids are cut into statements that every database takes."""
    documents = [document(f"{n}") for n in range(1300)]
    commit(ledger, *documents)
    assert len(ledger.documents.of_source("docs")) == 1300
    ledger.documents.mark_dirty("rel", documents, "r")
    ledger.documents.forget_entries("rel", [d.document_id for d in documents[:1200]])
    assert len(ledger.documents.entries("rel")) == 100
    assert len(ledger.documents.content_hashes()) == 2  # one content, and the empty one of dirty entries
