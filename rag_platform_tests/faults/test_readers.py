"""Readers beside a writer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rag_platform.ingestion.workbench import Workbench
from rag_platform_tests import harness

EDITIONS = 24


def text(edition: int) -> str:
    """Text of one to three chunks, each of which says its edition; the last ends with ``finis``."""
    part = f"This part belongs to edition {edition} and says a few more words about nothing in particular at all."
    return "\n\n".join([part] * (edition % 3 + 1)) + " finis"


@pytest.mark.slow
def test_a_reader_sees_one_version_of_everything_at_all_times(tmp_path: Path, tree: harness.Tree) -> None:
    """While four documents go through two dozen editions, every search of another process finds each of them
    exactly once: all chunks of one edition, never two editions, never none (P2)."""
    names = [*harness.uris_in("8", 2), *harness.uris_in("b", 2)]
    settings = harness.settings(tmp_path / "home", RAG_CHUNK_TOKENS="32")
    with Workbench(settings) as bench:
        tree.become({uri: text(1) for uri in names})
        harness.ingest(bench, [tree.spec()], "r1")
        assert len(harness.searchable(bench)) == 2 * len(names)
        arguments = [sys.executable, "-m", "rag_platform_tests.faults.version_reader", str(settings.root), *names]
        reader = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        try:
            assert reader.stdout is not None and reader.stdout.readline() == "reading\n"
            for edition in range(2, EDITIONS + 2):
                changed = names if edition % 2 else names[:3]
                for uri in changed:
                    tree.write(uri, text(edition))
                assert harness.ingest(bench, [tree.spec()], f"r{edition}")["index_writes"] == len(changed)
            told, _ = reader.communicate(timeout=60)
        finally:
            reader.kill()
            reader.wait()
        seen = json.loads(told)
        assert seen["faults"] == []
        assert seen["searches"] > EDITIONS / 2 and seen["editions"] > EDITIONS / 3
        harness.check_invariants(bench)
