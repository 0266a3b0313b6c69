"""source_changes: compares every source with the ledger and asks for runs over the buckets that moved.

The comparison is with what the ledger has committed, not with a cursor or the event log: a run that
failed has not happened, and the difference is still there at the next look. A run key holds what moved
and the number of failed attempts on exactly that, so a revert is new and a failure is tried again,
later each time.
"""

import time
from collections.abc import Iterator

import dagster as dg

from rag_platform import identity
from rag_platform.ingestion.changes import changed_buckets, difference, waiting_buckets
from rag_platform.ingestion.source_registry import registered_sources
from rag_platform.jobs import TO_BEGIN, ingest_sources, waits_in_queue
from rag_platform.partitions import document_buckets, range_tags, ranges_to_run
from rag_platform.resources import PlatformResource
from rag_platform.settings import Settings

CHANGE_TAG = "rag/change"
MAX_BACKOFF_S = 3600.0
_RUNNING = (*TO_BEGIN, dg.DagsterRunStatus.STARTED)


@dg.sensor(
    job=ingest_sources,
    minimum_interval_seconds=Settings.from_env().sensor_interval_s,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Lists every source, compares it with the ledger and requests one run for each range of hash buckets "
    "that moved, or that an earlier run left unfinished.",
)
def source_changes(
    context: dg.SensorEvaluationContext, platform: PlatformResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    bench = platform.bench
    settings = bench.settings
    specs = registered_sources(bench.ledger, settings)
    if not specs:
        yield dg.SkipReason("no source yet: `rag ingest --source DIR --name NAME`, or write sources.yaml")
        return
    differences = [difference(bench, spec) for spec in specs]
    for one in differences:
        if one.failed or one.held:
            context.log.warning(f"source {one.spec.name}: {one.failed or one.held}")
    held = any(d.held for d in differences)
    moved = changed_buckets(bench, differences)
    busy = bool(_runs(context, _RUNNING))
    waiting = {} if busy else waiting_buckets(bench)
    generations = bench.ledger.documents.buckets()
    work = {b: (moved.get(b, ""), waiting.get(b, "")) for b in {*moved, *waiting}}
    if not work:
        yield dg.SkipReason(f"{len(specs)} sources, nothing moved" + (", a run is under way" if busy else ""))
        return
    universe = list(document_buckets.get_partition_keys())
    requested = 0
    for first, last in ranges_to_run(work, universe, settings.buckets_per_run):
        if waits_in_queue(context.instance, first, last):
            continue
        covered = universe[universe.index(first) : universe.index(last) + 1]
        parts = [
            f"{b}:{generations[b].generation if b in generations else 0}:{':'.join(work[b])}"
            for b in covered
            if b in work
        ]
        change = identity.digest(*parts)[:16]
        failures = _runs(context, (dg.DagsterRunStatus.FAILURE,), change)
        if failures and (held or not _may_retry(failures, settings.sensor_interval_s)):
            continue
        requested += 1
        key = f"{first}-{last}:{change}:{len(failures)}"
        yield dg.RunRequest(run_key=key, tags={**range_tags(first, last), CHANGE_TAG: change})
    if not requested:
        yield dg.SkipReason("a run for these changes waits in the queue, or failed and is tried again later")


def _runs(
    context: dg.SensorEvaluationContext, statuses: tuple[dg.DagsterRunStatus, ...], change: str | None = None
) -> list[dg.RunRecord]:
    tags = {} if change is None else {CHANGE_TAG: change}
    return list(
        context.instance.get_run_records(
            dg.RunsFilter(job_name=ingest_sources.name, statuses=list(statuses), tags=tags), limit=20
        )
    )


def _may_retry(failures: list[dg.RunRecord], interval_s: float) -> bool:
    last: float = max(r.update_timestamp.timestamp() for r in failures)
    return bool(time.time() - last >= min(interval_s * 2 ** len(failures), MAX_BACKOFF_S))
