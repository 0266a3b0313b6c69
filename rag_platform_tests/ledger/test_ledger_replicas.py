"""What a keyword replica lacks, on SQLite and PostgreSQL."""

from __future__ import annotations

from rag_platform.ledger import Ledger
from rag_platform.ledger.documents import IndexEntry
from rag_platform.ledger.releases import release_id, replica_id


def entry(document: str, version: str | None) -> tuple[IndexEntry, str]:
    return IndexEntry(document, version, "c", "m", 1), document[0]


def test_the_lag_is_what_differs(ledger: Ledger) -> None:
    """Missing, outdated and dirty documents are to be written, gone ones removed; one that is being replaced in the
    index is left alone. Other releases, and replicas in other places, do not count."""
    release, replica = "r-1", replica_id("r-1")
    index = {"a-same": "1", "a-new": "1", "b-old": "2", "b-dirty": "1", "c-busy": None}
    held = {"a-same": "1", "b-old": "1", "b-dirty": None, "c-busy": "1", "c-gone": "1"}
    ledger.documents.mark_indexed(release, [entry(d, v) for d, v in index.items()], "r")
    ledger.documents.mark_indexed(replica, [entry(d, v) for d, v in held.items()], "r")
    ledger.documents.mark_indexed("r-2", [entry("a-other", "1")], "r")
    ledger.documents.mark_indexed(replica_id("r-1", "elsewhere"), [entry("a-else", "1")], "r")
    found = {
        (x.document_id, x.bucket, x.entry and x.entry.version_id, x.held) for x in ledger.replicas.lag(release, replica)
    }
    assert found == {
        ("a-new", "a", "1", False), ("b-old", "b", "2", True), ("b-dirty", "b", "1", True), ("c-gone", "c", None, True),
    }  # fmt: skip
    assert [x.document_id for x in ledger.replicas.lag(release, replica, "a")] == ["a-new"]
    assert [x.document_id for x in ledger.replicas.lag(release, replica, "c")] == ["c-gone"]


def test_a_release_goes_with_its_replicas(ledger: Ledger) -> None:
    """Ids of the embedded store are as they always were, those of others name it; forgetting a release forgets its
    replicas in every place, and no other release whose id begins alike."""
    assert (release_id("f", "lancedb"), release_id("f", "weaviate")) == ("r-f", "r-f-weaviate")
    a = ledger.releases.ensure("f", {}, "lancedb")
    b = ledger.releases.ensure("f", {}, "weaviate")
    assert (a.store, b.store, a.index_name) == ("lancedb", "weaviate", b.index_name)
    ids = [r for x in (a, b) for r in (x.release_id, replica_id(x.release_id), replica_id(x.release_id, "p"))]
    for one in ids:
        ledger.documents.mark_indexed(one, [entry("d", "1")], "r")
    ledger.releases.forget(a.release_id)
    assert [bool(ledger.documents.entries(one)) for one in ids] == [False] * 3 + [True] * 3
