"""Documents that cannot be read, sources that fail, and listings that lost too much."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from rag_platform.errors import DependencyError
from rag_platform.ingestion.stages.audit import conservation
from rag_platform.ingestion.stages.snapshot import guard
from rag_platform.ingestion.workbench import Workbench
from rag_platform.settings import Settings
from rag_platform_tests import harness
from rag_platform_tests.harness import ingest

POISON = {"empty.md": b"", "blank.md": b" \n\t\n", "image.png": b"\x89PNG\r\n\x1a\n" + bytes(range(256))}


def standing(bench: Workbench) -> tuple[int, int, int, int]:
    state = conservation(bench, bench.bucket_names)
    assert state.holds
    return state.received, state.indexed, state.dead_lettered, state.in_flight


def open_uris(bench: Workbench) -> list[str]:
    return sorted(x.uri for x in bench.ledger.dead_letters.search(state="open"))


def test_poison_among_many_costs_one_letter_each(bench: Workbench, tree: harness.Tree) -> None:
    """Unreadable documents cost one dead letter each; all others are indexed (P5), and every document is
    accounted for (P4)."""
    good = {f"d{n}.md": f"Document number {n}." for n in range(30)}
    tree.become(good | POISON)
    counters = ingest(bench, [tree.spec()], "r1")
    assert (counters["dead_lettered"], counters["indexed"]) == (3, 30)
    assert open_uris(bench) == sorted(POISON)
    assert standing(bench) == (33, 30, 3, 0)
    assert harness.uris(bench) == set(good)
    harness.check_invariants(bench)


def test_a_dead_letter_is_tried_again_only_when_told_or_changed(bench: Workbench, tree: harness.Tree) -> None:
    """Later runs leave a dead letter alone; a replay tries it once; a new version settles it."""
    tree.become({"good.md": "Good.", "bad.md": b""})
    assert ingest(bench, [tree.spec()], "r1")["dead_lettered"] == 1
    for n in range(2):
        counters = ingest(bench, [tree.spec()], f"again{n}")
        assert (counters["dead_lettered"], counters["parsed"]) == (0, 0)
    (letter,) = bench.ledger.dead_letters.search(state="open")
    assert letter.attempts == 1
    bench.ledger.dead_letters.move([letter.dead_letter_id], "replaying", among=("open",))
    assert standing(bench) == (2, 1, 0, 1)
    assert ingest(bench, [tree.spec()], "replay")["dead_lettered"] == 1
    (letter,) = bench.ledger.dead_letters.search(state="open")
    assert letter.attempts == 2
    tree.write("bad.md", "Now good.")
    ingest(bench, [tree.spec()], "cured")
    assert bench.ledger.dead_letters.counts() == {"open": 0, "replaying": 0, "resolved": 1, "discarded": 0}
    assert standing(bench) == (2, 2, 0, 0)


def test_a_due_letter_is_replayed_by_itself(settings: Settings, tree: harness.Tree) -> None:
    """When its wait is over the next run replays a letter, until the attempts are used up."""
    tree.become({"bad.md": b"", "good.md": "Good."})
    impatient = replace(settings, dead_letter_backoff_s=0.0, dead_letter_max_attempts=3)
    with Workbench(impatient) as bench:
        failures = [ingest(bench, [tree.spec()], f"r{n}")["dead_lettered"] for n in range(5)]
        assert failures == [1, 1, 1, 0, 0]
        assert bench.ledger.dead_letters.due(time.time() + 1e9) == []


def test_a_letter_of_a_deleted_document_is_resolved(bench: Workbench, tree: harness.Tree) -> None:
    """Deleting the document is the end of its letter; discarding ends the retries of one that stays."""
    tree.become({"bad.md": b"", "worse.md": b"", "good.md": "Good."})
    ingest(bench, [tree.spec()], "r1")
    worse = next(x for x in bench.ledger.dead_letters.search() if x.uri == "worse.md")
    bench.ledger.dead_letters.move([worse.dead_letter_id], "discarded", among=("open",))
    tree.delete("bad.md")
    ingest(bench, [tree.spec()], "r2")
    found = {x.uri: (x.state, x.resolution) for x in bench.ledger.dead_letters.search()}
    assert found == {"bad.md": ("resolved", "document deleted"), "worse.md": ("discarded", None)}
    assert standing(bench) == (2, 1, 1, 0)


def test_the_old_version_is_served_with_the_new_permissions(bench: Workbench, tree: harness.Tree) -> None:
    """A document whose new bytes cannot be read keeps its old text searchable, under its newest ACL."""
    tree.become({"a.md": "The readable version.", "b.md": "Another."})
    ingest(bench, [tree.spec(acl=("staff",))], "r1")
    tree.write("a.md", b"")
    counters = ingest(bench, [tree.spec(acl=("legal",))], "r2")
    assert (counters["dead_lettered"], counters["index_writes"], counters["embedded"]) == (1, 2, 0)
    rows = {r["uri"]: (r["text"], r["acl"]) for r in harness.index_rows(bench, "uri", "text", "acl")}
    assert rows == {"a.md": ("The readable version.", ["legal"]), "b.md": ("Another.", ["legal"])}
    assert standing(bench) == (2, 1, 1, 0)
    # Nothing is left to do, and once more the permissions alone.
    assert ingest(bench, [tree.spec(acl=("legal",))], "r3")["index_writes"] == 0
    ingest(bench, [tree.spec(acl=("board",))], "r4")
    assert {tuple(r["acl"]) for r in harness.index_rows(bench, "acl")} == {("board",)}
    tree.delete("a.md")
    ingest(bench, [tree.spec(acl=("board",))], "r5")
    assert harness.uris(bench) == {"b.md"}
    harness.check_invariants(bench)


def test_a_file_that_may_not_be_read(settings: Settings, tree: harness.Tree) -> None:
    """A file above the size limit is a dead letter that is not fetched; its old version stays served; with a
    higher limit and a replay it is read."""
    tree.become({"a.md": "Small.", "b.md": "Other."})
    small = replace(settings, max_document_bytes=100)
    with Workbench(small) as bench:
        ingest(bench, [tree.spec()], "r1")
        tree.write("a.md", "Large. " * 100)
        counters = ingest(bench, [tree.spec()], "r2")
        assert (counters["changed"], counters["dead_lettered"], counters["index_writes"]) == (1, 1, 0)
        (letter,) = bench.ledger.dead_letters.search(state="open")
        assert (letter.stage, letter.error_code) == ("snapshot", "limit_exceeded")
        # The change token of so young a file moves once more; after that it is left alone.
        ingest(bench, [tree.spec()], "r3")
        counters = ingest(bench, [tree.spec()], "r4")
        assert (counters["unchanged"], counters["dead_lettered"]) == (2, 0)
        assert len(bench.ledger.dead_letters.search()) == 1
        assert {c[3] for c in harness.searchable(bench)} == {"Small.", "Other."}
        assert standing(bench) == (2, 1, 1, 0)
    with Workbench(settings) as bench:
        bench.ledger.dead_letters.move([letter.dead_letter_id], "replaying", among=("open",))
        ingest(bench, [tree.spec()], "r5")
        assert standing(bench) == (2, 2, 0, 0)
        assert bench.ledger.dead_letters.counts()["open"] == 0
        assert any(c[3].startswith("Large.") for c in harness.searchable(bench))
        harness.check_invariants(bench)


def test_a_dangling_link_is_no_document(bench: Workbench, tree: harness.Tree) -> None:
    """A link whose target goes away is a deleted document, not a failure."""
    tree.write("real/a.md", "Linked.")
    tree.write("b.md", "Plain.")
    (tree.root / "link.md").symlink_to(tree.root / "real" / "a.md")
    spec = tree.spec(exclude=("real/",))
    ingest(bench, [spec], "r1")
    assert harness.uris(bench) == {"link.md", "b.md"}
    tree.delete("real/a.md")
    counters = ingest(bench, [spec], "r2")
    assert (counters["deleted"], counters["dead_lettered"]) == (1, 0)
    assert harness.uris(bench) == {"b.md"}


def test_a_source_that_fails_changes_nothing_and_stops_nobody(
    bench: Workbench, tree: harness.Tree, tmp_path: Path
) -> None:
    """A root that is gone is no deletion; the other sources go on; if all fail the run fails (P6)."""
    other = harness.Tree(tmp_path / "other")
    tree.write("a.md", "Stays.")
    other.write("b.md", "Old.")
    specs = [tree.spec(), other.spec("other")]
    ingest(bench, specs, "r1")
    tree.root.rename(tmp_path / "away")
    other.write("b.md", "New.")
    counters = ingest(bench, specs, "r2")
    assert (counters["failed"], counters["changed"], counters["deleted"], counters["dead_lettered"]) == (1, 1, 0, 0)
    assert {c[3] for c in harness.searchable(bench)} == {"Stays.", "New."}
    registered = bench.ledger.sources.get("docs")
    assert registered is not None and registered.problem is not None and "root" in registered.problem
    with pytest.raises(DependencyError, match="root"):
        ingest(bench, specs[:1], "r3")
    (tmp_path / "away").rename(tree.root)
    counters = ingest(bench, specs, "r4")
    assert (counters["unchanged"], counters["failed"]) == (2, 0)
    registered = bench.ledger.sources.get("docs")
    assert registered is not None and registered.problem is None


def test_the_mass_change_guard(bench: Workbench, tree: harness.Tree) -> None:
    """A source that lost more than its share, or everything, waits for approval and changes nothing."""
    documents = {f"d{n}.md": f"Document {n}." for n in range(14)}
    tree.become(documents)
    ingest(bench, [tree.spec()], "r1")
    tree.become({u: t for u, t in documents.items() if u != "d0.md" and u != "d1.md" and u != "d2.md"})
    assert ingest(bench, [tree.spec()], "r2")["deleted"] == 3  # a fifth
    tree.become({"d3.md": "Changed.", "d4.md": "Document 4."})
    for approve, deleted, left in ((False, 0, 11), (True, 9, 2)):
        counters = ingest(bench, [tree.spec()], f"guarded{approve}", approve=approve)
        assert (counters["held"], counters["deleted"]) == (int(not approve), deleted)
        assert len(harness.uris(bench)) == left
    tree.become({})
    counters = ingest(bench, [tree.spec()], "emptied")
    assert (counters["held"], counters["deleted"]) == (1, 0)
    assert len(harness.uris(bench)) == 2
    registered = bench.ledger.sources.get("docs")
    assert registered is not None and "empty" in (registered.problem or "")
    assert ingest(bench, [tree.spec()], "approved", approve=True)["removed"] == 2
    assert harness.searchable(bench) == set()
    harness.check_invariants(bench)


@pytest.mark.parametrize(
    ("known", "missing", "listed", "held"),
    [
        (0, 0, 0, False),  # a new, empty source
        (0, 0, 5, False),
        (1, 1, 0, True),  # emptied, however small
        (9, 8, 1, False),  # small sources may shrink
        (10, 3, 7, False),  # exactly the share
        (10, 4, 6, True),
        (10, 4, 1000, True),  # replaced by others: a wrong mount looks like this
        (1000, 300, 700, False),
        (1000, 301, 699, True),
    ],
)
def test_guard_limits(known: int, missing: int, listed: int, held: bool) -> None:
    """An emptied source always waits; one of at least ten documents when it lost more than 30 %."""
    reason = guard(known=known, missing=missing, listed=listed, max_share=0.3, min_documents=10)
    assert (reason is not None) == held
