"""The command line moves an index from LanceDB to a real Weaviate, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_platform_tests.backends import weaviate_server
from rag_platform_tests.integration.rag_command import Rag

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cli")]


@pytest.fixture
def rag(tmp_path: Path) -> Iterator[Rag]:
    """LanceDB is chosen; the address of a Weaviate is known."""
    program = weaviate_server.binary()
    if program is None:
        pytest.skip(weaviate_server.CURE)
    with weaviate_server.running(program) as server:
        yield Rag(tmp_path / "home", {"RAG_WEAVIATE_URL": server.url, "RAG_WEAVIATE_GRPC": server.grpc})


def test_there_and_back_without_parsing_or_embedding(rag: Rag, tmp_path: Path) -> None:
    """rag rebuild --store weaviate fills it from the stored chunks and vectors and lets it serve, with its keyword
    replica; a document that changes there is the only one that the way back writes. Each finds what the other finds."""
    docs = tmp_path / "docs"
    docs.mkdir()
    for n in range(6):
        (docs / f"page-{n}.md").write_text(f"# Page {n}\n\nThe harbour crane number {n} lifts {n * 10} tons.\n")
    ingest = ("ingest", "--source", str(docs), "--name", "docs")
    rag.json(*ingest)
    first = rag.json("status")["release_id"]
    in_lancedb = sorted(rag("index", "dump").stdout.splitlines())
    question = ("retrieve", "crane number 3", "-k", "6")
    by_lancedb = rag.json(*question)

    there = rag.json("rebuild", "--store", "weaviate")
    assert (there["documents"], there["index_writes"], there["replica_writes"]) == (6, 6, 6)
    assert (there["parsed"], there["embedded"]) == (0, 0)
    assert there["serving_release"] == there["release_id"] and there["release_id"].endswith("-weaviate")
    assert "error" not in there and "RAG_VECTOR_STORE=weaviate" in there["warning"]
    assert sorted(rag("index", "dump").stdout.splitlines()) == in_lancedb
    by_weaviate = rag.json(*question)
    assert [r["uri"] for r in by_weaviate["results"]][:1] == [r["uri"] for r in by_lancedb["results"]][:1]
    assert {r["chunk_id"] for r in by_weaviate["results"]} == {r["chunk_id"] for r in by_lancedb["results"]}

    rag.env["RAG_VECTOR_STORE"] = "weaviate"
    (docs / "page-5.md").write_text("# Page 5\n\nThe harbour crane number 5 was scrapped.\n")
    changed = rag.json(*ingest)
    assert (changed["changed"], changed["index_writes"], changed["embedded"]) == (1, 1, 1)

    back = rag.json("rebuild", "--store", "lancedb")
    assert (back["documents"], back["index_writes"], back["parsed"], back["embedded"]) == (6, 1, 0, 0)
    assert back["serving_release"] == back["release_id"] == first
    assert "scrapped" in rag.json("retrieve", "crane number 5", "-k", "1")["results"][0]["text"]
