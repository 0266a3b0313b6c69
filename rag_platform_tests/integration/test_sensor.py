"""The source_changes sensor, evaluated as the daemon does, against real sources and a real ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from rag_platform import identity
from rag_platform.commands.dagster_run import run_job
from rag_platform.ingestion.workbench import Workbench
from rag_platform.partitions import RANGE_END_TAG, RANGE_START_TAG, contiguous_ranges, document_buckets
from rag_platform.records import SourceSpec
from rag_platform.sensors import source_changes
from rag_platform.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sensor")]


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in ("one.md", "two.md"):
        (folder / name).write_text(f"# {name}\n\nText of {name}.\n")
    return folder


@pytest.fixture
def platform(tmp_path: Path, docs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setenv("RAG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home" / "dagster"))
    settings = Settings.from_env()
    with Workbench(settings) as bench:
        bench.ledger.sources.register(SourceSpec("docs", str(docs)), "command")
    yield settings


def look(settings: Settings) -> list[dg.RunRequest | dg.SkipReason]:
    """Evaluate the sensor once on the instance of this home."""
    from rag_platform.commands.dagster_home import prepare_dagster_home
    from rag_platform.definitions import defs

    prepare_dagster_home(settings)
    with (
        dg.DagsterInstance.get() as instance,
        dg.build_sensor_context(
            instance=instance, definitions=defs, resources={"platform": defs.resources["platform"]}
        ) as context,
    ):
        return list(source_changes(context))  # type: ignore[call-overload]


def requests(settings: Settings) -> list[dg.RunRequest]:
    return [r for r in look(settings) if isinstance(r, dg.RunRequest)]


def test_changes_are_requested_until_the_ledger_holds_them(platform: Settings, docs: Path) -> None:
    """A request repeats under the same key until a run has done it; then nothing; an edit is one bucket;
    a revert is a new key; a failed run raises the attempt."""
    first = requests(platform)
    assert first and [r.run_key for r in first] == [r.run_key for r in requests(platform)]
    assert run_job(platform, "ingest_sources").success
    assert requests(platform) == []

    (docs / "one.md").write_text("# one\n\nAnother text.\n")
    [edited] = requests(platform)
    bucket = identity.bucket(identity.document_id("docs", "one.md"), 1)
    assert (edited.tags[RANGE_START_TAG], edited.tags[RANGE_END_TAG]) == (bucket, bucket)
    assert run_job(platform, "ingest_sources", partitions=(bucket, bucket)).success
    assert requests(platform) == []

    (docs / "one.md").write_text("# one.md\n\nText of one.md.\n")
    [reverted] = requests(platform)
    assert reverted.run_key not in {edited.run_key, *(r.run_key for r in first)}


def test_nothing_to_look_at_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without sources the sensor skips and names the cure."""
    monkeypatch.setenv("RAG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home" / "dagster"))
    [skip] = look(Settings.from_env())
    assert isinstance(skip, dg.SkipReason) and "rag ingest --source" in (skip.skip_message or "")


def test_ranges_cover_the_buckets_and_are_few() -> None:
    """Contiguous buckets are one range; scattered ones become one range over all."""
    universe = list(document_buckets.get_partition_keys())
    assert contiguous_ranges({"3", "4", "5"}, universe) == [("3", "5")]
    assert contiguous_ranges({"0", "7", "f"}, universe) == [("0", "0"), ("7", "7"), ("f", "f")]
    assert contiguous_ranges({"0", "2", "4", "6", "8", "a"}, universe) == [("0", "a")]
