"""RAG_BUCKETS_PER_RUN: how the work of a growing corpus is cut into runs for many machines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from rag_platform.errors import ConfigurationError
from rag_platform.ingestion.workbench import Workbench
from rag_platform.jobs import ingest_sources, waits_in_queue
from rag_platform.partitions import RANGE_END_TAG, RANGE_START_TAG, all_ranges, range_tags, ranges_to_run
from rag_platform.records import SourceSpec
from rag_platform.schedules import hourly_ingest_sources
from rag_platform.sensors import source_changes
from rag_platform.settings import Settings, quota_cores

BUCKETS = list("0123456789abcdef")


@pytest.mark.parametrize("size", [1, 3, 4, 16, 100])
def test_blocks_cover_what_changed_and_never_overlap(size: int) -> None:
    """Each changed bucket is in exactly one run of at most so many; blocks without a change are left out."""
    changed = {"0", "3", "4", "b"}
    ranges = ranges_to_run(changed, BUCKETS, size)
    covered = [BUCKETS[BUCKETS.index(a) : BUCKETS.index(b) + 1] for a, b in ranges]
    flat = [bucket for block in covered for bucket in block]
    assert changed <= set(flat) and len(flat) == len(set(flat))
    assert all(len(block) <= size and changed & set(block) for block in covered)
    others = ranges_to_run({"5"}, BUCKETS, size)
    assert {*others} <= {*ranges_to_run(BUCKETS, BUCKETS, size)}, "always cut at the same places"


def test_without_a_limit_runs_are_few() -> None:
    """0 keeps what is right for one machine: neighbours together, everything when there are many pieces."""
    assert ranges_to_run({"3", "4", "9"}, BUCKETS) == [("3", "4"), ("9", "9")]
    assert ranges_to_run(set("02468a"), BUCKETS) == [("0", "a")]


def _queue(instance: dg.DagsterInstance, first: str, last: str, status: dg.DagsterRunStatus) -> None:
    from rag_platform.definitions import defs

    instance.create_run_for_job(
        job_def=defs.resolve_job_def(ingest_sources.name), tags=range_tags(first, last), status=status
    )


def test_schedule_asks_for_every_block_but_those_in_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hourly look is one run a block; a bulk load of many hours does not pile up looks behind it."""
    monkeypatch.setenv("RAG_BUCKETS_PER_RUN", "4")
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        context = dg.build_schedule_context(instance=instance)
        asked = hourly_ingest_sources(context)
        assert [(r.tags[RANGE_START_TAG], r.tags[RANGE_END_TAG]) for r in asked] == all_ranges()
        assert len(asked) == 4
        _queue(instance, "4", "7", dg.DagsterRunStatus.NOT_STARTED)
        _queue(instance, "8", "b", dg.DagsterRunStatus.STARTED)
        assert waits_in_queue(instance, "5", "6") and not waits_in_queue(instance, "6", "8")
        assert [r.tags[RANGE_START_TAG] for r in hourly_ingest_sources(context)] == ["0", "8", "c"]
        _queue(instance, "0", "f", dg.DagsterRunStatus.NOT_STARTED)
        assert isinstance(hourly_ingest_sources(context), dg.SkipReason)


def test_sensor_asks_for_blocks_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ingestion of a corpus is one run a block; what waits in the queue is not asked for again."""
    monkeypatch.setenv("RAG_BUCKETS_PER_RUN", "8")
    documents = tmp_path / "docs"
    documents.mkdir()
    for number in range(40):
        (documents / f"{number}.md").write_text(f"# {number}\n")
    with Workbench(Settings.from_env()) as bench:
        bench.ledger.sources.register(SourceSpec("docs", str(documents)), "command")
    from rag_platform.definitions import defs

    with dg.DagsterInstance.ephemeral() as instance:

        def look() -> list[tuple[str, str]]:
            resources = {"platform": defs.resources["platform"]}
            with dg.build_sensor_context(instance=instance, definitions=defs, resources=resources) as context:
                found = list(source_changes(context))  # type: ignore[call-overload]
            return [(r.tags[RANGE_START_TAG], r.tags[RANGE_END_TAG]) for r in found if isinstance(r, dg.RunRequest)]

        assert look() == [("0", "7"), ("8", "f")]
        _queue(instance, "0", "7", dg.DagsterRunStatus.NOT_STARTED)
        assert look() == [("8", "f")]


def test_backfills_are_cut_alike() -> None:
    """A backfill started in the UI makes runs of as many partitions; without the setting, one run."""
    program = (
        "from rag_platform.definitions import defs; from rag_platform.partitions import document_buckets;"
        "g = defs.resolve_asset_graph();"
        "print({g.get(k).backfill_policy.max_partitions_per_run for k in g.get_all_asset_keys()"
        " if g.get(k).partitions_def == document_buckets})"
    )
    for value, expected in (("4", "{4}"), ("0", "{None}")):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAG_")} | {"RAG_BUCKETS_PER_RUN": value}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=True
        )
        assert done.stdout.strip() == expected


def test_a_negative_number_is_refused() -> None:
    """It says which variable is wrong."""
    with pytest.raises(ConfigurationError, match="RAG_BUCKETS_PER_RUN"):
        Settings.from_env({"RAG_BUCKETS_PER_RUN": "-1"})


@pytest.mark.parametrize(
    ("content", "cores"), [("max 100000\n", None), ("200000 100000\n", 2), ("150000 100000\n", 2), ("5000 100000\n", 1)]
)
def test_a_containers_quota_counts_as_cores(content: str, cores: int | None, tmp_path: Path) -> None:
    """Workers and bulkheads follow what the container may use, not the cores of its host."""
    file = tmp_path / "cpu.max"
    assert quota_cores(file) is None
    file.write_text(content)
    assert quota_cores(file) == cores
