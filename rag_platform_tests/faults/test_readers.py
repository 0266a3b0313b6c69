"""Readers beside a writer."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag_platform.ingestion.workbench import Workbench
from rag_platform_tests import harness
from rag_platform_tests.faults import version_reader
from rag_platform_tests.faults.version_reader import text

EDITIONS = 24


@pytest.mark.slow
def test_a_reader_sees_one_version_of_everything_at_all_times(tmp_path: Path, tree: harness.Tree) -> None:
    """While four documents go through two dozen editions, every search of another process finds each of them
    exactly once: all chunks of one edition, never two editions, never none (P2)."""
    names = [*harness.uris_in("8", 2), *harness.uris_in("b", 2)]
    environment = {"RAG_CHUNK_TOKENS": "32"}
    settings = harness.settings(tmp_path / "home", **environment)
    with Workbench(settings) as bench:
        tree.become({uri: text(1) for uri in names})
        harness.ingest(bench, [tree.spec()], "r1")
        assert len(harness.searchable(bench)) == 2 * len(names)
        with version_reader.reading(settings.root, environment, names) as seen:
            for edition in range(2, EDITIONS + 2):
                changed = names if edition % 2 else names[:3]
                for uri in changed:
                    tree.write(uri, text(edition))
                assert harness.ingest(bench, [tree.spec()], f"r{edition}")["index_writes"] == len(changed)
        assert seen["faults"] == []
        assert seen["searches"] > EDITIONS / 2 and seen["editions"] > EDITIONS / 3
        harness.check_invariants(bench)
