"""The command line as programs use it: real processes, real Dagster runs, real models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag_platform_tests.integration.rag_command import Rag

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cli")]

INGEST_KEYS = {
    "run_id", "added", "changed", "deleted", "unchanged", "parsed", "chunked", "embedded", "index_writes",
    "dead_lettered", "seconds",
}  # fmt: skip


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def corpus(folder: Path, count: int = 12) -> Path:
    """Write a few small Markdown documents about different things."""
    return write(
        folder,
        {
            f"guide/page-{n:02}.md": f"# Page {n}\n\nThe harbour crane number {n} lifts {n * 10} tons.\n"
            for n in range(count)
        },
    )


@pytest.fixture
def rag(tmp_path: Path) -> Rag:
    return Rag(tmp_path / "home")


def test_a_folder_becomes_searchable_and_a_second_run_does_nothing(rag: Rag, tmp_path: Path) -> None:
    """Ingest, status, retrieve (single and batch) and dump agree with each other; ingesting again is free."""
    docs = corpus(tmp_path / "docs")
    first = rag.json("ingest", "--source", str(docs), "--name", "docs")
    assert set(first) >= INGEST_KEYS
    assert (first["added"], first["parsed"], first["chunked"], first["embedded"]) == (12, 12, 12, 12)

    second = rag.json("ingest", "--source", str(docs), "--name", "docs")
    assert second["unchanged"] == 12
    assert not any(second[k] for k in ("added", "changed", "deleted", "parsed", "chunked", "embedded", "index_writes"))

    status = rag.json("status")
    assert (status["documents"], status["chunks"], status["dead_letters"]["open"]) == (12, 12, 0)
    assert status["release_id"]
    assert status["last_run"]["run_id"] == second["run_id"]

    found = rag.json("retrieve", "crane number 7", "-k", "3")
    assert found["mode"] == "hybrid"
    assert found["results"][0]["uri"] == "guide/page-07.md"
    assert {"chunk_id", "document_id", "uri", "title", "page", "start", "end", "score", "text"} <= set(
        found["results"][0]
    )

    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"id": f"q{n}", "text": f"crane number {n}"}) + "\n" for n in (3, 9)))
    answers = rag.lines("retrieve", "--batch", str(questions), "-k", "1")
    assert [(a["id"], a["results"][0]["uri"]) for a in answers] == [
        ("q3", "guide/page-03.md"),
        ("q9", "guide/page-09.md"),
    ]

    dump = rag.lines("index", "dump", "--jsonl")
    assert {row["chunk_id"] for row in dump} >= {found["results"][0]["chunk_id"]}
    keys = {
        "chunk_id",
        "document_id",
        "source",
        "uri",
        "version_id",
        "content_hash",
        "ordinal",
        "start",
        "end",
        "text_hash",
    }
    assert len(dump) == 12 and all(set(row) == keys for row in dump)


def test_plan_says_what_ingest_then_does(rag: Rag, tmp_path: Path) -> None:
    """The counters of the plan are those of the run; the plan itself changes nothing."""
    docs = corpus(tmp_path / "docs")
    planned = rag.json("plan", "--source", str(docs), "--name", "docs")
    assert rag.json("status")["documents"] == 0
    done = rag.json("ingest", "--source", str(docs), "--name", "docs")
    same = (
        "added",
        "changed",
        "deleted",
        "unchanged",
        "parsed",
        "chunked",
        "embedded",
        "index_writes",
        "dead_lettered",
        "tokens",
    )
    assert {k: planned[k] for k in same} == {k: done[k] for k in same}


def test_the_guard_stops_an_emptied_source_until_it_is_approved(rag: Rag, tmp_path: Path) -> None:
    """Exit code 4, nothing deleted; with approval the documents go."""
    docs = corpus(tmp_path / "docs")
    rag.json("ingest", "--source", str(docs), "--name", "docs")
    for path in docs.rglob("*.md"):
        path.unlink()
    stopped = rag.json("ingest", code=4)
    assert "--approve-mass-change" in stopped["error"]
    assert rag.json("status")["documents"] == 12
    assert rag.json("retrieve", "crane")["results"]
    approved = rag.json("ingest", "--approve-mass-change")
    assert approved["deleted"] == 12
    assert rag.json("retrieve", "crane")["results"] == []


def test_dead_letters_are_listed_shown_discarded_and_replayed(rag: Rag, tmp_path: Path) -> None:
    """A share above the limit is exit code 3, and the good documents are indexed all the same."""
    docs = write(
        tmp_path / "docs", {"good.md": "# Good\n\nA readable page.", "empty.txt": "", "bad.docx": b"PK\x03\x04 no zip"}
    )
    run = rag.json("ingest", "--source", str(docs), "--name", "docs", code=3)
    assert run["dead_lettered"] == 2
    letters = rag.json("dead-letters", "list")
    assert {x["uri"] for x in letters} == {"empty.txt", "bad.docx"}
    assert all(x["message"] and x["stage"] == "parse" and x["state"] == "open" for x in letters)
    assert rag.json("retrieve", "readable page")["results"][0]["uri"] == "good.md"

    by_uri = {x["uri"]: x["dead_letter_id"] for x in letters}
    assert rag.json("dead-letters", "show", by_uri["empty.txt"][:8])["stored_bytes"]
    assert rag.json("dead-letters", "discard", by_uri["empty.txt"])["discarded"] == [by_uri["empty.txt"]]
    replayed = rag.json("dead-letters", "replay", "--all", code=None)
    assert (replayed["replayed"], replayed["resolved"]) == (1, 0)
    assert {x["uri"]: x["attempts"] for x in rag.json("dead-letters", "list")} == {"bad.docx": 2}

    write(docs, {"empty.txt": "no longer empty", "bad.docx": ""})
    (docs / "bad.docx").unlink()
    assert rag.json("ingest")["dead_letters_open"] == 0
    assert rag.json("retrieve", "no longer empty")["results"][0]["uri"] == "empty.txt"


def test_a_source_that_cannot_be_listed_is_a_failed_dependency(rag: Rag, tmp_path: Path) -> None:
    """Exit code 1, its documents stay, and other sources go on."""
    one, two = corpus(tmp_path / "one", 11), corpus(tmp_path / "two", 3)
    rag.json("ingest", "--source", str(one), "--name", "one")
    rag.json("ingest", "--source", str(two), "--name", "two")
    one.rename(tmp_path / "moved")
    write(two, {"new.md": "# New\n\nA brand-new lighthouse."})
    run = rag.json("ingest", code=1)
    assert "one" in run["error"]
    assert run["added"] == 1
    assert rag.json("status")["documents"] == 15
    assert rag.json("retrieve", "lighthouse")["results"][0]["uri"] == "new.md"


def test_readers_see_only_what_they_may(rag: Rag, tmp_path: Path) -> None:
    """Tenant and ACL hold on the command line too, and a permission change needs no embedding."""
    docs = corpus(tmp_path / "docs", 3)
    rag.json("ingest", "--source", str(docs), "--name", "docs", "--tenant", "acme", "--acl", "legal")
    ask = ("retrieve", "crane", "--tenant", "acme")
    assert rag.json(*ask)["results"] == []
    assert len(rag.json(*ask, "--group", "legal")["results"]) == 3
    changed = rag.json("ingest", "--source", str(docs), "--name", "docs", "--tenant", "acme", "--acl", "board")
    assert (changed["changed"], changed["parsed"], changed["embedded"], changed["index_writes"]) == (3, 0, 0, 3)
    assert rag.json(*ask, "--group", "legal")["results"] == []
    assert len(rag.json(*ask, "--group", "board")["results"]) == 3


def test_bad_usage_is_exit_code_2_and_names_the_cure(rag: Rag, tmp_path: Path) -> None:
    """Every wrong call ends with 2 and one line that helps."""
    assert "rag ingest --source" in rag("ingest", code=2).stderr
    assert "does not exist" in rag("ingest", "--source", str(tmp_path / "nowhere"), code=2).stderr
    assert "rag ingest" in rag("retrieve", "anything", code=2).stderr
    assert "--batch" in rag("retrieve", code=2).stderr
    broken = Rag(rag.home, {"RAG_CHUNK_TOKENS": "many"})
    assert "RAG_CHUNK_TOKENS" in broken("status", code=2).stderr


def test_sources_yaml_is_ingested_and_a_source_can_be_removed(rag: Rag, tmp_path: Path) -> None:
    """Several sources in one file; one that is removed leaves the index."""
    corpus(tmp_path / "a", 2), corpus(tmp_path / "b", 2)
    rag.home.mkdir()
    (rag.home / "sources.yaml").write_text(
        f"sources:\n  - name: a\n    uri: {tmp_path / 'a'}\n    tags: [first]\n  - name: b\n    uri: {tmp_path / 'b'}\n"
    )
    assert rag.json("ingest")["added"] == 4
    assert {r["source"] for r in rag.json("retrieve", "crane", "--filter", 'tags has "first"')["results"]} == {"a"}
    (rag.home / "sources.yaml").unlink()
    rag("sources", "remove", "a", "--yes")
    rag.json("ingest")
    assert {r["source"] for r in rag.json("retrieve", "crane")["results"]} == {"b"}


def test_two_homes_never_touch_each_other(tmp_path: Path) -> None:
    """All state, Dagster's included, is below RAG_HOME; nothing is left beside it."""
    docs = corpus(tmp_path / "docs", 2)
    before = {p for p in tmp_path.iterdir()}
    one, two = Rag(tmp_path / "one"), Rag(tmp_path / "two")
    one.json("ingest", "--source", str(docs), "--name", "docs")
    assert two.json("status")["documents"] == 0
    assert {p for p in tmp_path.iterdir()} - before == {tmp_path / "one", tmp_path / "two"}
    assert (tmp_path / "one" / "dagster" / "dagster.yaml").exists()


def test_doctor_finds_a_working_installation(rag: Rag) -> None:
    """Every part answers; a missing source is only a warning."""
    report = rag.json("doctor")
    assert report["ok"], report
    assert {f["check"] for f in report["findings"]} >= {"ledger", "vector store", "embedder", "parsers"}


def test_the_index_can_be_lost_and_rebuilt_without_embedding(rag: Rag, tmp_path: Path) -> None:
    """rag rebuild restores the same chunks from the stored embeddings; what it cannot do it says, with the code of a
    mistake or of a failed dependency."""
    import shutil

    docs = corpus(tmp_path / "docs", 4)
    rag.json("ingest", "--source", str(docs), "--name", "docs")
    before = sorted(rag("index", "dump").stdout.splitlines())
    shutil.rmtree(rag.home / "index")
    report = rag.json("rebuild")
    assert (report["store"], report["documents"], report["index_writes"]) == ("lancedb", 4, 4)
    assert (report["parsed"], report["embedded"], report["serving_release"]) == (0, 0, report["release_id"])
    assert "error" not in report and "warning" not in report
    assert sorted(rag("index", "dump").stdout.splitlines()) == before
    status = rag.json("status")
    assert (status["vector_store"], status["keyword_replica"], status["warning"]) == ("lancedb", None, None)
    assert "known: " in rag("rebuild", "--store", "lancebd", code=2).stderr
    shutil.rmtree(rag.home / "objects" / "segments" / "embed")
    assert "`rag doctor --repair` and then `rag ingest`" in " ".join(rag("rebuild", code=1).stderr.split())
