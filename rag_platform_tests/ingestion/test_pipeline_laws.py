"""Laws of ingestion: what is searchable is a function of the sources, and getting there costs no more than it must."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from rag_platform import identity, telemetry
from rag_platform.ingestion.stages.audit import conservation
from rag_platform.ingestion.workbench import Workbench
from rag_platform.settings import Settings
from rag_platform_tests import harness
from rag_platform_tests.harness import ingest

NO_WORK = dict.fromkeys(("parsed", "chunked", "embedded", "index_writes", "dead_lettered", "calls"), 0)
LONG = "\n\n".join(f"## Part {n}\n\n" + f"Sentence number {n} of a longer document. " * 40 for n in range(4))


def work(counters: dict[str, float]) -> dict[str, float]:
    return {name: counters[name] for name in NO_WORK}


def small_tree(tree: harness.Tree) -> None:
    tree.become({"a.md": LONG, "b.txt": "The second document.", "sub/c.html": "<h1>Third</h1><p>Of three.</p>"})


def test_an_unchanged_corpus_costs_nothing(bench: Workbench, tree: harness.Tree) -> None:
    """A second pass parses, chunks, embeds and writes nothing, and opens neither model nor index (P3)."""
    small_tree(tree)
    first = ingest(bench, [tree.spec()], "r1")
    assert (first["added"], first["parsed"], first["index_writes"]) == (3, 3, 3)
    before = harness.identified(bench)
    with Workbench(bench.settings) as again:
        with telemetry.recording() as effects:
            second = ingest(again, [tree.spec()], "r2")
        assert again.store.__dict__.get("_connection") is None
        assert not again.embedder.__dict__.get("_pool")
    assert work(second) == NO_WORK
    assert (second["unchanged"], second["added"], second["changed"], second["deleted"]) == (3, 0, 0, 0)
    # The run and its listing are written down; a change token that was too fresh to trust is settled once.
    assert set(effects) - {"ledger:touch"} == {"ledger:run_start", "ledger:note_listing", "ledger:run_finish"}
    assert harness.identified(bench) == before
    harness.check_invariants(bench)


def test_touching_a_file_reads_it_and_does_nothing_else(bench: Workbench, tree: harness.Tree) -> None:
    """A new modification time with the same bytes is a hash comparison."""
    small_tree(tree)
    ingest(bench, [tree.spec()], "r1")
    tree.write("a.md", LONG)
    counters = ingest(bench, [tree.spec()], "r2")
    assert (work(counters), counters["unchanged"], counters["changed"]) == (NO_WORK, 3, 0)


def test_add_change_rename_delete(bench: Workbench, tree: harness.Tree, tmp_path: Path) -> None:
    """Each edit costs its own document only, and the result is a fresh ingestion, chunk for chunk, id for id (P4)."""
    small_tree(tree)
    ingest(bench, [tree.spec()], "r1")
    tree.write("d.md", "A new document.")
    tree.write("b.txt", "The second document, changed.")
    tree.rename("sub/c.html", "sub/renamed.html")
    counters = ingest(bench, [tree.spec()], "r2")
    assert {n: counters[n] for n in ("added", "changed", "deleted", "renamed", "unchanged")} == {
        "added": 2, "changed": 1, "deleted": 1, "renamed": 1, "unchanged": 1,
    }  # fmt: skip
    # The renamed file has the same bytes and suffix: neither parsed nor embedded again.
    assert work(counters) == NO_WORK | {"parsed": 2, "chunked": 2, "embedded": 2, "index_writes": 4, "calls": 2}
    assert harness.identified(bench) == harness.expected(tmp_path / "fresh", [tree.spec()])
    tree.delete("a.md")
    counters = ingest(bench, [tree.spec()], "r3")
    assert (counters["deleted"], counters["removed"], counters["embedded"]) == (1, 1, 0)
    assert harness.uris(bench) == {"b.txt", "d.md", "sub/renamed.html"}
    harness.check_invariants(bench)


def test_a_revert_brings_the_old_version_back_for_nothing(bench: Workbench, tree: harness.Tree) -> None:
    """A → B → A ends with exactly the chunks and ids of A; nothing is parsed or embedded the second time."""
    tree.become({"a.md": LONG})
    ingest(bench, [tree.spec()], "r1")
    first = harness.identified(bench)
    tree.write("a.md", "Short.")
    ingest(bench, [tree.spec()], "r2")
    assert {c[3] for c in harness.searchable(bench)} == {"Short."}
    tree.write("a.md", LONG)
    counters = ingest(bench, [tree.spec()], "r3")
    assert harness.identified(bench) == first
    assert work(counters) == NO_WORK | {"index_writes": 1}


def test_a_deleted_document_returns(bench: Workbench, tree: harness.Tree) -> None:
    """Deleting and restoring a document ends where it began, without new embeddings."""
    small_tree(tree)
    ingest(bench, [tree.spec()], "r1")
    first = harness.identified(bench)
    tree.delete("a.md")
    ingest(bench, [tree.spec()], "r2")
    assert "a.md" not in harness.uris(bench)
    tree.write("a.md", LONG)
    counters = ingest(bench, [tree.spec()], "r3")
    assert (counters["added"], counters["parsed"], counters["embedded"]) == (1, 0, 0)
    assert harness.identified(bench) == first


def test_identical_text_is_embedded_once(bench: Workbench, tree: harness.Tree) -> None:
    """Two documents of equal bytes, and a third with an equal passage, share parse and vectors."""
    first, second, third = (harness.uris_in(b, 1)[0] for b in "0f7")
    tree.become({first: "The same text.", second: "The same text.", third.replace(".md", ".txt"): "The same text."})
    counters = ingest(bench, [tree.spec()], "r1")
    assert (counters["parsed"], counters["embedded"], counters["indexed"]) == (2, 1, 3)
    assert len(harness.searchable(bench)) == 3


def test_permissions_and_tags_cost_neither_parse_nor_embedding(bench: Workbench, tree: harness.Tree) -> None:
    """A changed ACL, tag or tenant rewrites the rows, and the index holds the new ones."""
    small_tree(tree)
    ingest(bench, [tree.spec(acl=("staff",), tags=("x",))], "r1")
    counters = ingest(bench, [tree.spec(acl=("legal", "board"), tags=("y", "x"), tenant="acme")], "r2")
    assert work(counters) == NO_WORK | {"index_writes": 3}
    assert counters["changed"] == 3
    rows = harness.index_rows(bench, "acl", "tags", "tenant")
    assert all((r["acl"], r["tags"], r["tenant"]) == (["board", "legal"], ["x", "y"], "acme") for r in rows)
    harness.check_invariants(bench)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_any_history_of_edits_equals_a_fresh_ingestion(
    bench: Workbench, tree: harness.Tree, tmp_path: Path, seed: int
) -> None:
    """After each of 26 random batches of edits the index is that of a fresh ingestion, ids included, and
    conservation holds; no text is embedded twice in the whole history."""
    rng = random.Random(seed)
    names = [*harness.uris_in("3", 3), *harness.uris_in("a", 2), *harness.uris_in("a", 1, ".txt")]
    texts = ["One.", "Two.", LONG, LONG.replace("longer", "shorter"), "# Title\n\nThree.", ""]  # the last is poison
    content: dict[str, str] = {}
    acl = ("public",)
    seen: set[str] = set()
    for step in range(26):
        for _ in range(rng.randint(1, 3)):
            uri = rng.choice(names)
            action = rng.choice(("write", "write", "delete", "rename", "acl"))
            if action == "write" or (action == "delete" and len(content) < 2):
                content[uri] = rng.choice(texts)
            elif action == "delete":
                content.pop(rng.choice(sorted(content)))
            elif action == "rename" and content:
                content[uri] = content.pop(rng.choice(sorted(content)))
            else:
                acl = rng.choice((("public",), ("staff",)))
        tree.become(content)
        spec = tree.spec(acl=acl)
        counters = ingest(bench, [spec], f"r{step}", approve=True)
        state = conservation(bench, bench.bucket_names)
        assert state.holds and state.in_flight == 0 and state.received == len(content), (seed, step)
        rows = harness.identified(bench)
        # Where the newest bytes are a dead letter the version before goes on being served.
        readable = {u for u, text in content.items() if text}
        live = {r for r in rows if r[4 + 1] in readable}
        assert {r[5] for r in rows} <= set(content), (seed, step)
        if step % 5 == 0 or step == 25:
            fresh = harness.expected(tmp_path / f"fresh{step}", [spec])
            assert live == fresh, (seed, step)
        else:
            assert {r[5] for r in live} == readable, (seed, step)
        texts_now = {r[-1] for r in rows}
        assert counters["embedded"] <= len(texts_now - seen), (seed, step)
        seen |= texts_now
    harness.check_invariants(bench)


def test_a_run_over_some_buckets_changes_only_those(bench: Workbench, tree: harness.Tree) -> None:
    """A partial run looks at its own partitions only; another run does the rest."""
    (mine,), (other, gone) = harness.uris_in("1", 1), harness.uris_in("c", 2)
    tree.become({mine: "Mine one.", other: "Other one.", gone: "Gone."})
    ingest(bench, [tree.spec()], "r1")
    tree.become({mine: "Mine two.", other: "Other two."})
    counters = ingest(bench, [tree.spec()], "r2", buckets=["1"])
    assert (counters["changed"], counters["deleted"]) == (1, 0)
    assert {c[3] for c in harness.searchable(bench)} == {"Mine two.", "Other one.", "Gone."}
    counters = ingest(bench, [tree.spec()], "r3", buckets=["c", "d"])
    assert (counters["changed"], counters["deleted"]) == (1, 1)
    assert {c[3] for c in harness.searchable(bench)} == {"Mine two.", "Other two."}
    harness.check_invariants(bench)


def test_a_changed_bucket_count_migrates(settings: Settings, tree: harness.Tree) -> None:
    """Going from 16 to 256 partitions and back loses nothing and does no work again."""
    small_tree(tree)
    with Workbench(settings) as bench:
        ingest(bench, [tree.spec()], "r1")
        before = harness.identified(bench)
    for digits in (2, 1):
        with Workbench(replace(settings, partition_hex_digits=digits)) as bench:
            assert work(ingest(bench, [tree.spec()], f"digits{digits}")) == NO_WORK
            assert harness.identified(bench) == before
            harness.check_invariants(bench)


def test_two_ingestions_at_once_end_in_the_right_state(settings: Settings, tree: harness.Tree, tmp_path: Path) -> None:
    """Two runs over the same buckets, each on its own connections, wait for each other and agree."""
    names = [*harness.uris_in("2", 3), *harness.uris_in("b", 3)]
    tree.become({uri: f"Text of {uri}." for uri in names})
    failures: list[BaseException] = []
    for round_ in range(3):
        start = threading.Barrier(2)

        def run(name: str, start: threading.Barrier = start) -> None:
            try:
                with Workbench(settings) as own:
                    start.wait()
                    ingest(own, [tree.spec()], name)
            except BaseException as e:
                failures.append(e)

        threads = [threading.Thread(target=run, args=(f"r{round_}-{n}",)) for n in range(2)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert failures == []
        with Workbench(settings) as bench:
            harness.check_invariants(bench)
            assert harness.identified(bench) == harness.expected(tmp_path / f"fresh{round_}", [tree.spec()])
        tree.become({uri: f"Text {round_} of {uri}." for uri in names[round_:]})


def test_sources_are_separate(bench: Workbench, tree: harness.Tree, tmp_path: Path) -> None:
    """The same path in two sources is two documents, each with its source's permissions; retiring one
    source's documents leaves the other's."""
    other = harness.Tree(tmp_path / "other")
    tree.write("a.md", "Shared name.")
    other.write("a.md", "Shared name.")
    specs = [tree.spec(acl=("staff",)), other.spec("other", acl=("legal",))]
    assert ingest(bench, specs, "r1")["embedded"] == 1
    assert {(r["source"], *r["acl"]) for r in harness.index_rows(bench, "source", "acl")} == {
        ("docs", "staff"), ("other", "legal"),
    }  # fmt: skip
    live = bench.ledger.documents.of_source("other").values()
    bench.ledger.documents.retire({d.document_id: d.generation for d in live}, run_id="sources remove")
    bench.ledger.sources.remove("other")
    assert ingest(bench, specs[:1], "r2")["removed"] == 1
    assert {c[0] for c in harness.searchable(bench)} == {"docs"}
    harness.check_invariants(bench)


def test_the_bucket_manifest_follows_the_documents(bench: Workbench, tree: harness.Tree) -> None:
    """The ledger's bucket versions are the Merkle hashes that any other home computes for the same tree."""
    small_tree(tree)
    ingest(bench, [tree.spec()], "r1")
    states = bench.ledger.documents.buckets()
    assert set(states) == set(bench.bucket_names)
    documents = bench.ledger.documents.of_source("docs").values()
    for bucket, state in states.items():
        rows = [(d.document_id, d.content_hash, d.metadata_hash) for d in documents if d.bucket == bucket]
        assert state.manifest_hash == identity.manifest_hash(rows)
