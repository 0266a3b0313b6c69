"""The definitions graph: what a data engineer sees, and what loading it costs."""

from __future__ import annotations

import subprocess
import sys

import dagster as dg
import pytest

EXPECTED_GRAPH = {
    "source_snapshots": (set(), 16),
    "parsed_documents": ({"source_snapshots"}, 16),
    "chunks": ({"parsed_documents"}, 16),
    "embeddings": ({"chunks"}, 16),
    "vector_index": ({"embeddings"}, 16),
    "keyword_replica": ({"vector_index"}, 16),
    "dead_letters": (
        {"source_snapshots", "parsed_documents", "chunks", "embeddings", "vector_index", "keyword_replica"},
        0,
    ),
    "evaluation_report": ({"vector_index", "keyword_replica"}, 0),
    "index_release": ({"evaluation_report"}, 0),
    "evaluation_samples": (set(), 0),
}
QUALITY = {"query_log", "evaluation_report", "index_release", "evaluation_samples"}
EXPECTED_CHECKS = {
    ("source_snapshots", "mass_change_guard", True),
    ("source_snapshots", "listings_complete", False),
    ("source_snapshots", "sources_fresh", False),
    ("vector_index", "conservation", False),
    ("vector_index", "no_ghost_chunks", False),
    ("vector_index", "index_matches_ledger", False),
    ("keyword_replica", "replica_follows_index", False),
    ("dead_letters", "dead_letter_share", False),
    ("evaluation_report", "gate", True),
    ("evaluation_report", "every_question_answered", False),
}


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    from rag_platform.definitions import defs

    return defs


def test_the_graph_is_what_it_was(definitions: dg.Definitions) -> None:
    """Names, parents, partitions, checks, jobs, schedules and sensors: a change here is meant or a mistake."""
    graph = definitions.resolve_asset_graph()
    assets = {
        key.to_user_string(): (
            {p.to_user_string() for p in graph.get(key).parent_keys},
            len(graph.get(key).partitions_def.get_partition_keys()) if graph.get(key).partitions_def else 0,
        )
        for key in graph.get_all_asset_keys()
    }
    assert assets.pop("query_log")[1] > 300, "a partition a day"
    assert assets == EXPECTED_GRAPH
    checks = {(k.asset_key.to_user_string(), k.name, graph.get_check_spec(k).blocking) for k in graph.asset_check_keys}
    assert checks == EXPECTED_CHECKS
    repository = definitions.get_repository_def()
    assert {j.name for j in repository.get_all_jobs() if not j.name.startswith("__")} == {
        "ingest_sources", "replay_dead_letters", "rebuild_vector_index", "clean_up", "evaluate_serving", "report_regression",
        "export_query_log",
    }  # fmt: skip
    assert {(s.name, s.cron_schedule) for s in repository.schedule_defs} == {
        ("hourly_ingest_sources", "17 * * * *"), ("daily_clean_up", "43 3 * * *"), ("weekly_evaluation", "23 4 * * 1"),
        ("daily_query_log", "7 1 * * *"),
    }  # fmt: skip
    assert {s.name for s in repository.sensor_defs} == {"source_changes", "quality_regression"}


def test_every_asset_explains_itself(definitions: dg.Definitions) -> None:
    """Description, group, owners and kinds on every asset."""
    graph = definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description and len(node.description) > 60, key
        assert node.group_name == ("quality" if key.to_user_string() in QUALITY else "ingestion"), key
        assert node.owners and node.kinds, key


def test_loading_the_definitions_imports_no_heavy_library() -> None:
    """Dagster starts a process per run: parser, model and index libraries load where they are used."""
    program = (
        "import sys, rag_platform.definitions;"
        "print(sorted(m for m in ('unstructured', 'ragas', 'onnxruntime', 'lancedb', 'spacy', 'openai', 'rapidocr')"
        " if m in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout.strip() == "[]"
