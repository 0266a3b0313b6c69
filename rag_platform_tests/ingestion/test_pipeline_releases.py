"""New pipelines beside the serving one, stored segments, a lost index, and plans that come true."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rag_platform import telemetry
from rag_platform.errors import DependencyError
from rag_platform.ingestion.live_rows import live_rows
from rag_platform.ingestion.plan import plan
from rag_platform.ingestion.stages.audit import audit_index, repair
from rag_platform.ingestion.stages.chunk import chunk
from rag_platform.ingestion.stages.embed import embed
from rag_platform.ingestion.stages.housekeeping import housekeeping
from rag_platform.ingestion.stages.index import index
from rag_platform.ingestion.stages.parse import parse
from rag_platform.ingestion.stages.promote import finish
from rag_platform.ingestion.workbench import Workbench
from rag_platform.settings import Settings
from rag_platform_tests import harness
from rag_platform_tests.harness import ingest

LONG = "\n\n".join(f"Paragraph {n}. " + f"It says a thing about number {n}. " * 12 for n in range(6))


def tree_of(tree: harness.Tree) -> list[str]:
    names = [*harness.uris_in("4", 2), *harness.uris_in("9", 2)]
    tree.become(dict(zip(names, (LONG, "Short one.", "Short two.", LONG + " End."), strict=True)))
    return names


def test_a_new_pipeline_builds_beside_the_old_one(settings: Settings, tree: harness.Tree, tmp_path: Path) -> None:
    """Other chunk sizes make a candidate from the stored text, embed only new texts, and serve when complete;
    until then the old release answers. Going back costs nothing."""
    tree_of(tree)
    with Workbench(settings) as bench:
        ingest(bench, [tree.spec()], "r1")
        old, old_release = harness.identified(bench), bench.release.release_id
    smaller = replace(settings, chunk_tokens=40)
    with Workbench(smaller) as bench:
        for part in (["4"], ["9"]):
            assert harness.identified(bench) == old
            for stage in (parse, chunk, embed, index):
                assert stage(bench, part, run_id="r2").totals.get("parsed", 0) == 0
            serving = finish(bench)
            assert (serving == old_release) == (part == ["4"])
        assert serving == bench.release.release_id
        harness.check_invariants(bench)
        new = harness.identified(bench)
        assert new == harness.expected(tmp_path / "fresh", [tree.spec()], RAG_CHUNK_TOKENS="40")
        vectors = bench.ledger.artifacts.find("embed", live_rows(bench, "embed", bench.bucket_names)[0].to_pylist())
        assert len(vectors) == len({row[-1] for row in new})
        assert [r.state for r in bench.ledger.releases.all()] == ["retired", "serving"]
    with Workbench(settings) as bench:
        counters = ingest(bench, [tree.spec()], "r3")
        assert {n: counters[n] for n in harness.WORK} == dict.fromkeys(harness.WORK, 0)
        assert harness.identified(bench) == old


def test_what_serves_is_kept_up_while_a_candidate_is_built(settings: Settings, tree: harness.Tree) -> None:
    """Deletions, permissions and new text reach the serving release at once, also when the run makes another release
    that is not complete yet."""
    one, two, three, four = tree_of(tree)
    with Workbench(settings) as bench:
        ingest(bench, [tree.spec(acl=("staff",))], "r1")
        old = bench.release.release_id
    tree.delete(two)
    tree.write(one, "New text.")
    spec = tree.spec(acl=("legal",))
    with Workbench(replace(settings, chunk_tokens=40)) as bench:
        ingest(bench, [spec], "r2", buckets=["4"])
        serving = bench.ledger.releases.serving()
        assert serving is not None and serving.release_id == old
        rows = harness.index_rows(bench, "uri", "acl", "text")
        assert {(r["uri"], *r["acl"]) for r in rows} == {(one, "legal"), (three, "staff"), (four, "staff")}
        assert [r["text"] for r in rows if r["uri"] == one] == ["New text."]
        ingest(bench, [spec], "r3")
        assert finish(bench) == bench.release.release_id != old
        assert {(r["uri"], *r["acl"]) for r in harness.index_rows(bench, "uri", "acl")} == {
            (one, "legal"), (three, "legal"), (four, "legal"),
        }  # fmt: skip
        harness.check_invariants(bench)


def test_short_texts_are_not_embedded_again_by_a_new_chunker(settings: Settings, tree: harness.Tree) -> None:
    """A chunk whose text stays the same under new settings keeps its vector."""
    tree.become({"a.md": "Short one.", "b.md": "Short two."})
    with Workbench(settings) as bench:
        ingest(bench, [tree.spec()], "r1")
    with Workbench(replace(settings, chunk_tokens=64)) as bench:
        counters = ingest(bench, [tree.spec()], "r2")
        assert (counters["parsed"], counters["chunked"], counters["embedded"]) == (0, 2, 0)
        assert counters["index_writes"] == 2


def test_a_candidate_that_lost_its_index_does_not_serve(settings: Settings, tree: harness.Tree) -> None:
    """Promotion looks at the index itself: an emptied candidate never replaces a good release."""
    tree_of(tree)
    with Workbench(settings) as bench:
        ingest(bench, [tree.spec()], "r1")
        old = bench.release.release_id
    with Workbench(replace(settings, chunk_tokens=40)) as bench:
        for stage in (parse, chunk, embed, index):
            stage(bench, bench.bucket_names, run_id="r2")
        shutil.rmtree(settings.root / "index" / f"{bench.release.index_name}.lance")
        assert finish(bench) == old
        repair(bench, audit_index(bench).wrong)
        assert ingest(bench, [tree.spec()], "r3")["embedded"] == 0
        assert finish(bench) == bench.release.release_id
        harness.check_invariants(bench)


def test_old_releases_are_dropped(settings: Settings, tree: harness.Tree) -> None:
    """One retired release is kept for a rollback; older ones go with their index, and may come back."""
    tree.become({"a.md": LONG})
    sizes = (32, 40, 48)
    for size in sizes:
        with Workbench(replace(settings, chunk_tokens=size)) as bench:
            ingest(bench, [tree.spec()], f"r{size}")
            indexes = bench.run(bench.store.indexes())
            releases = bench.ledger.releases.all()
    assert len(releases) == 2 and sorted(r.index_name for r in releases) == indexes
    with Workbench(replace(settings, chunk_tokens=sizes[0])) as bench:
        assert ingest(bench, [tree.spec()], "back")["embedded"] == 0
        harness.check_invariants(bench)


def test_an_index_that_was_lost_is_written_again(bench: Workbench, tree: harness.Tree) -> None:
    """The audit finds a deleted index folder; repair and the next run restore it without embedding."""
    tree_of(tree)
    ingest(bench, [tree.spec()], "r1")
    before = harness.identified(bench)
    shutil.rmtree(bench.settings.root / "index")
    with Workbench(bench.settings) as later:
        audit = audit_index(later)
        assert (audit.missing, audit.index_chunks, len(audit.wrong)) == (len(before), 0, 4)
        repair(later, audit.wrong)
        counters = ingest(later, [tree.spec()], "r2")
        assert (counters["embedded"], counters["parsed"], counters["index_writes"]) == (0, 0, 4)
        assert harness.identified(later) == before
        harness.check_invariants(later)


def test_strange_chunks_are_found_and_removed(bench: Workbench, tree: harness.Tree) -> None:
    """Chunks that the ledger knows nothing of, or that are missing, are found and put right."""
    names = tree_of(tree)
    ingest(bench, [tree.spec()], "r1")
    before = harness.identified(bench)
    release = bench.release
    lost = bench.ledger.documents.of_source("docs")[names[0]].document_id
    stranger = bench.ledger.documents.of_source("docs")[names[1]].document_id
    bench.run(bench.store.delete(release.index_name, [lost]))
    bench.ledger.documents.forget_entries(release.release_id, [stranger])
    audit = audit_index(bench)
    assert sorted(audit.wrong) == sorted([lost, stranger]) and audit.ghosts == 1 and audit.missing > 1
    housekeeping(bench)
    assert ingest(bench, [tree.spec()], "r2")["embedded"] == 0
    assert harness.identified(bench) == before
    harness.check_invariants(bench)


def test_the_audit_is_not_repeated_while_nothing_moves(bench: Workbench, tree: harness.Tree) -> None:
    """An index that was found right is read again only after it or the ledger has moved, or by force."""
    tree_of(tree)
    ingest(bench, [tree.spec()], "r1")
    assert not audit_index(bench).checked
    assert audit_index(bench, force=True).checked
    bench.run(bench.store.delete(bench.release.index_name, ["nobody"]))
    assert audit_index(bench).wrong == []
    tree.write("new.md", "New.")
    ingest(bench, [tree.spec()], "r2")
    assert not audit_index(bench).checked


def test_compaction_and_garbage_collection(bench: Workbench, tree: harness.Tree) -> None:
    """Merging segments keeps every row readable, once; only files that nobody refers to are collected."""
    names = tree_of(tree)
    ingest(bench, [tree.spec()], "r1")
    for n, uri in enumerate(names):
        tree.write(uri, f"Edition {n}.")
        ingest(bench, [tree.spec()], f"edit{n}")
    stages = ("parse", "chunk", "embed")
    before = {s: live_rows(bench, s, bench.bucket_names).to_pylist() for s in stages}
    # The same artifact in two segments, as two runs at once leave it.
    rows = live_rows(bench, "chunk", bench.bucket_names)
    bench.segments.write("chunk", rows, [(k, 1, 1) for k in set(rows["chunk_set_key"].to_pylist())])
    with Workbench(bench.settings) as reader:
        for stage in stages:
            live_rows(reader, stage, reader.bucket_names)  # holds the names of the old segments
            assert bench.segments.compact(stage, force=True)["merged"] > 1
            assert len(bench.ledger.artifacts.all_segments(stage)) == 1
        for user in (bench, reader):
            after = {s: live_rows(user, s, user.bucket_names).to_pylist() for s in stages}
            assert all(sorted(after[s], key=repr) == sorted(before[s], key=repr) for s in stages)
    files = {o.key for o in bench.objects.list("segments")}
    assert len(files) > 3
    assert bench.segments.collect_garbage() == 0, "young files may belong to a run that is about to commit them"
    old = time.time() - 7200
    for key in files:
        os.utime(bench.settings.root / "objects" / key, (old, old))
    assert bench.segments.collect_garbage() == len(files) - 3
    known = {s.object_key for s in bench.ledger.artifacts.all_segments()}
    assert {o.key for o in bench.objects.list("segments")} == known
    assert not ingest(bench, [tree.spec()], "after")["index_writes"]
    bench.ledger.releases.reset_entries(bench.release.release_id, bench.bucket_names)
    with Workbench(bench.settings) as later:
        assert ingest(later, [tree.spec()], "rewrite")["index_writes"] == 4
        harness.check_invariants(later)


def test_segments_of_two_models_are_merged_apart(bench: Workbench, tree: harness.Tree) -> None:
    """Vectors of another length do not stop the merging of the others."""
    import pyarrow as pa

    from rag_platform.records import embedding_schema

    for n, dimensions in enumerate((4, 4, 8)):
        table = pa.table({"embedding_key": [f"k{n}"], "vector": [[0.5] * dimensions]}, embedding_schema(dimensions))
        bench.segments.write("embed", table, [(f"k{n}", 1, 1)])
    assert bench.segments.compact("embed", force=True)["merged"] == 2
    read = [t["vector"].to_pylist() for t in bench.segments.read("embed", ["k0", "k1", "k2"])]
    assert sorted(len(v) for part in read for v in part) == [4, 4, 8]


def test_a_lost_segment_is_an_outage_of_the_object_store(bench: Workbench, tree: harness.Tree) -> None:
    """A segment that the ledger knows and the store lost stops the stage; no document is blamed."""
    tree_of(tree)
    ingest(bench, [tree.spec()], "r1")
    shutil.rmtree(bench.settings.root / "objects" / "segments" / "chunk")
    bench.ledger.releases.reset_entries(bench.release.release_id, bench.bucket_names)
    with Workbench(bench.settings) as later, pytest.raises(DependencyError, match="chunk"):
        ingest(later, [tree.spec()], "r2")
    assert bench.ledger.dead_letters.counts()["open"] == 0


def test_housekeeping_keeps_what_is_needed(bench: Workbench, tree: harness.Tree) -> None:
    """Old bytes of a replaced version are deleted, those of live documents and open letters stay."""
    tree.become({"a.md": "First.", "b.md": "Other.", "bad.md": " "})
    ingest(bench, [tree.spec()], "r1")
    tree.write("a.md", "Second.")
    ingest(bench, [tree.spec()], "r2")
    old = time.time() - 2 * 86400
    for item in bench.objects.list("blobs"):
        os.utime(bench.settings.root / "objects" / item.key, (old, old))
    assert housekeeping(bench)["blobs_deleted"] == 1
    assert housekeeping(bench)["blobs_deleted"] == 0
    assert len(list(bench.objects.list("blobs"))) == 3


# ── plans ──

Edit = Callable[[harness.Tree, list[str]], None]


def _poison(tree: harness.Tree, names: list[str]) -> None:
    tree.write(names[0], b"")
    tree.write("blank.md", " \n ")


def _mixture(tree: harness.Tree, names: list[str]) -> None:
    tree.write(names[0], LONG + " More.")
    tree.delete(names[1])
    tree.rename(names[2], "renamed.md")
    tree.write("copy.md", LONG)
    tree.write(names[3], LONG + " End.")  # touched, not changed


SCENARIOS: dict[str, tuple[Edit, dict[str, object], dict[str, object]]] = {
    "nothing": (lambda tree, names: None, {}, {}),
    "mixture": (_mixture, {}, {}),
    "poison": (_poison, {}, {}),
    "permissions": (lambda tree, names: None, {"acl": ("legal",)}, {}),
    "permissions and poison": (_poison, {"acl": ("legal",)}, {}),
    "new chunker": (_mixture, {}, {"chunk_tokens": 40}),
    "too large": (lambda tree, names: tree.write(names[1], "x " * 9000), {}, {"max_document_bytes": 9000}),
    "held": (lambda tree, names: tree.become({}), {}, {}),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_plan_is_what_the_run_does(settings: Settings, tree: harness.Tree, name: str) -> None:
    """The counts of an exact plan are those of the ingestion that follows; planning writes nothing."""
    edit, spec_changes, settings_changes = SCENARIOS[name]
    names = tree_of(tree)
    counted = ("added", "changed", "deleted", "unchanged", "renamed", *harness.WORK)
    with Workbench(settings) as bench:
        first = plan(bench, [tree.spec()])
        counters = ingest(bench, [tree.spec()], "r1")
        assert {n: getattr(first, n) for n in counted} == {n: counters[n] for n in counted}
    edit(tree, names)
    spec = tree.spec(**spec_changes)
    with Workbench(replace(settings, **settings_changes)) as bench:  # type: ignore[arg-type]
        with telemetry.recording() as effects:
            planned = plan(bench, [spec])
        assert effects == []
        counters = ingest(bench, [spec], "r2")
        assert {n: getattr(planned, n) for n in counted} == {n: counters.get(n, 0) for n in counted}
        assert bool(planned.problems) == (name == "held")
        after = plan(bench, [spec])
        assert {n: getattr(after, n) for n in harness.WORK} == dict.fromkeys(harness.WORK, 0)
