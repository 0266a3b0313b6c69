"""Two editions of a few documents that take turns, and one ingestion of them that may fail."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from rag_platform.errors import DependencyError
from rag_platform.ingestion.workbench import Workbench
from rag_platform.records import SourceSpec
from rag_platform.settings import Settings
from rag_platform_tests import harness
from rag_platform_tests.faults import version_reader

STAYING = [*harness.uris_in("8", 2), *harness.uris_in("b", 2)]
COMING, GOING = harness.uris_in("3", 2)
POISON = "empty.md"
EDITIONS: list[dict[str, str]] = [
    {**{uri: version_reader.text(1) for uri in STAYING}, GOING: version_reader.text(1), POISON: ""},
    {**{uri: version_reader.text(2) for uri in STAYING}, COMING: version_reader.text(2), POISON: ""},
]
"""Four documents that change, one that goes, one that comes, one that is a dead letter; and back."""
ACLS = (("staff",), ("legal", "public"))
SMALL_CHUNKS = {"RAG_CHUNK_TOKENS": "32"}

Row = tuple[Any, ...]
"""As ``harness.identified`` returns them."""


def by_uri(rows: set[Row]) -> dict[str, set[Row]]:
    grouped: dict[str, set[Row]] = defaultdict(set)
    for row in rows:
        grouped[row[5]].add(row)
    return grouped


def run(settings: Settings, spec: SourceSpec, run_id: str) -> DependencyError | None:
    """Ingest as one run does; returns how it failed."""
    with Workbench(settings) as bench:
        try:
            harness.ingest(bench, [spec], run_id)
        except DependencyError as e:
            return e
    return None
