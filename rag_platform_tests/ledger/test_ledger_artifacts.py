"""Artifacts, releases, runs and sources of the ledger."""

from __future__ import annotations

from dataclasses import replace

from rag_platform.ledger import Ledger
from rag_platform.ledger.documents import IndexEntry
from rag_platform.records import SourceSpec

PIPELINE = {"embedder": {"model": "m"}}


def test_artifacts_are_found_among_thousands_of_keys(ledger: Ledger) -> None:
    """A look-up of more keys than one statement takes finds all that exist, by stage."""
    keys = [f"k{n}" for n in range(2500)]
    ledger.artifacts.add_segment("embed", "o1", rows=2500, size=10, entries=[(k, 1, 7) for k in keys])
    found = ledger.artifacts.find("embed", (k for k in [*keys, "unknown"]))
    assert set(found) == set(keys)
    assert (found["k0"].items, found["k0"].tokens) == (1, 7)
    assert ledger.artifacts.find("chunk", keys) == {}
    assert ledger.artifacts.find("embed", []) == {}
    ledger.artifacts.drop_artifacts("embed", keys[:1500])
    assert len(ledger.artifacts.find("embed", keys)) == 1000


def test_an_artifact_stays_with_its_first_segment(ledger: Ledger) -> None:
    """When two runs make the same artifact the second segment does not take it over."""
    ledger.artifacts.add_segment("chunk", "o1", rows=1, size=1, entries=[("k", 1, 1)])
    ledger.artifacts.add_segment("chunk", "o2", rows=2, size=1, entries=[("k", 1, 1), ("other", 1, 1)])
    first, second = (s.segment_id for s in ledger.artifacts.all_segments("chunk"))
    assert ledger.artifacts.find("chunk", ["k"])["k"].segment_id == first
    assert ledger.artifacts.keys_of([second]) == {"other"}


def test_replace_segments(ledger: Ledger) -> None:
    """Compaction points every artifact of the old segments at the new one and forgets the old."""
    for n in range(3):
        ledger.artifacts.add_segment("chunk", f"o{n}", rows=1, size=100, entries=[(f"k{n}", 1, 1)])
    old = [s.segment_id for s in ledger.artifacts.all_segments("chunk")]
    ledger.artifacts.replace_segments("chunk", old[:2], "merged", rows=2, size=150)
    segments = ledger.artifacts.all_segments()
    assert [s.object_key for s in segments] == ["o2", "merged"]
    found = ledger.artifacts.find("chunk", ["k0", "k1", "k2"])
    assert [found[f"k{n}"].segment_id for n in range(3)] == [segments[1].segment_id] * 2 + [old[2]]
    assert ledger.artifacts.sizes() == {"chunk": 250}
    assert set(ledger.artifacts.segments(old)) == {old[2]}


def test_embedded_sets_belong_to_an_embedder(ledger: Ledger) -> None:
    """A chunk set is embedded for one embedder; dropping the chunks forgets it; marking twice is once."""
    for _ in range(2):
        ledger.artifacts.mark_embedded("e1", ["s1", "s2"])
    assert ledger.artifacts.embedded("e1", ["s1", "s2", "s3"]) == {"s1", "s2"}
    assert ledger.artifacts.embedded("e2", ["s1"]) == set()
    ledger.artifacts.drop_artifacts("chunk", ["s1"])
    assert ledger.artifacts.embedded("e1", ["s1", "s2"]) == {"s2"}


def test_one_release_serves(ledger: Ledger) -> None:
    """A release begins as a candidate; promoting it retires the one that served; rolling back is the same."""
    a, b = ledger.releases.ensure("aa", PIPELINE, "lancedb"), ledger.releases.ensure("bb", PIPELINE, "lancedb")
    assert ledger.releases.ensure("aa", PIPELINE, "lancedb") == a
    assert (a.state, a.pipeline, ledger.releases.serving()) == ("candidate", PIPELINE, None)
    for release in (a, b, a, a):
        ledger.releases.promote(release.release_id, by="cli", reasons=[])
        serving = [r for r in ledger.releases.all() if r.state == "serving"]
        assert [r.release_id for r in serving] == [release.release_id]
        assert serving == [ledger.releases.serving()]
    assert [r.state for r in ledger.releases.all()] == ["serving", "retired"]


def test_decisions_are_kept_in_their_order(ledger: Ledger) -> None:
    """The newest first, also after the release is gone; the same refusal twice is kept once; a rollback says of both
    releases why."""
    a, b = (ledger.releases.ensure(name, PIPELINE, "lancedb").release_id for name in ("aa", "bb"))
    ledger.releases.promote(a, by="ingest", reasons=["the first"])
    assert ledger.releases.refuse(b, by="gate", reasons=["recall_at_5 0.61 < 0.80", "mrr"])
    assert not ledger.releases.refuse(b, by="gate", reasons=["recall_at_5 0.61 < 0.80", "mrr"])
    ledger.releases.promote(b, by="cli", reasons=["forced"])
    assert ledger.releases.refuse(b, by="gate", reasons=["mrr"])
    ledger.releases.promote(a, by="cli", reasons=["wrong answers"], rolled_back=b)
    ledger.releases.forget(b)
    assert [(d.release_id, d.decision, d.by, d.reasons) for d in ledger.releases.decisions()] == [
        (a, "promoted", "cli", ("wrong answers",)),
        (b, "rolled_back", "cli", ("wrong answers",)),
        (b, "refused", "gate", ("mrr",)),
        (b, "promoted", "cli", ("forced",)),
        (b, "refused", "gate", ("recall_at_5 0.61 < 0.80", "mrr")),
        (a, "promoted", "ingest", ("the first",)),
    ]
    assert [d.decision for d in ledger.releases.decisions(a)] == ["promoted", "promoted"]
    assert [d.release_id for d in ledger.releases.decisions(limit=1)] == [a]


def test_reset_and_forget_a_release(ledger: Ledger) -> None:
    """Resetting makes the entries of its buckets dirty; forgetting removes it with all its entries."""
    a, b = ledger.releases.ensure("aa", PIPELINE, "lancedb"), ledger.releases.ensure("bb", PIPELINE, "lancedb")
    for release in (a, b):
        entries = [(IndexEntry(f"d{n}", "v", "c", "m", 1), str(n)) for n in range(2)]
        ledger.documents.mark_indexed(release.release_id, entries, "r")
    ledger.releases.reset_entries(a.release_id, ["0"])
    versions = {i: e.version_id for i, e in ledger.documents.entries(a.release_id).items()}
    assert versions == {"d0": None, "d1": "v"}
    ledger.releases.forget(a.release_id)
    assert ledger.documents.entries(a.release_id) == {}
    assert len(ledger.documents.entries(b.release_id)) == 2
    assert [r.release_id for r in ledger.releases.all()] == [b.release_id]


def test_verified_state(ledger: Ledger) -> None:
    """The state token of the last verification is kept with the release."""
    a = ledger.releases.ensure("aa", PIPELINE, "lancedb")
    ledger.releases.note_verified(a.release_id, "token")
    assert ledger.releases.ensure("aa", PIPELINE, "lancedb") == replace(a, verified_state="token")


def test_runs_and_counters(ledger: Ledger) -> None:
    """A run is started once, counters of the same name are overwritten, the last run is found."""
    ledger.runs.start("r1", ["docs"])
    ledger.runs.set_counters("r1", {"added": 3, "usd": 0.25})
    ledger.runs.set_counters("r1", {"added": 4})
    ledger.runs.set_counters("r1", {})
    ledger.runs.start("r1", ["other"])
    record = ledger.runs.get("r1")
    assert record is not None
    assert (record.sources, record.counters, record.finished_at) == (("docs",), {"added": 4.0, "usd": 0.25}, None)
    ledger.runs.finish("r1")
    ledger.runs.start("r2", [])
    assert [r.run_id for r in ledger.runs.recent(5)] == ["r2", "r1"]
    last = ledger.runs.last()
    assert last is not None and last.run_id == "r2"
    assert ledger.runs.get("unknown") is None


def test_sources(ledger: Ledger) -> None:
    """A source survives the round trip, a new definition replaces the old, a good listing clears a problem."""
    spec = SourceSpec("docs", "/data", acl=("legal",), tags=("x",), options={"a": {"b": 1}})
    ledger.sources.register(spec, "command")
    ledger.sources.note_problem("docs", "it is away")
    held = ledger.sources.get("docs")
    assert held is not None and (held.spec, held.origin, held.problem) == (spec, "command", "it is away")
    ledger.sources.note_listing("docs", count=2, size=5_000_000_000)
    changed = replace(spec, acl=("board",))
    ledger.sources.register(changed, "file")
    held = ledger.sources.get("docs")
    assert held is not None and (held.spec, held.origin, held.problem, held.listed_count) == (changed, "file", None, 2)
    ledger.sources.remove("docs")
    assert ledger.sources.all() == []
