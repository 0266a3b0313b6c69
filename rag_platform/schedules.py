"""Schedules: the fallback for what the sensor may miss, and what is due by the clock."""

import dagster as dg

from rag_platform.ingestion import source_catalog
from rag_platform.jobs import clean_up, ingest_sources
from rag_platform.partitions import document_buckets, range_tags
from rag_platform.records import SourceSpec
from rag_platform.settings import Settings


def _all_buckets() -> dict[str, str]:
    keys = document_buckets.get_partition_keys()
    return range_tags(keys[0], keys[-1])


@dg.schedule(
    job=ingest_sources,
    cron_schedule="17 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Looks at every source once an hour, also when the sensor is off. Replays dead letters that are due.",
)
def hourly_ingest_sources(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    return dg.RunRequest(tags=_all_buckets())


@dg.schedule(
    job=clean_up,
    cron_schedule="43 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Housekeeping, once a day.",
)
def daily_clean_up(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    return dg.RunRequest()


def _source_schedule(name: str, cron: str) -> dg.ScheduleDefinition:
    @dg.schedule(
        job=ingest_sources,
        name=f"source_{''.join(c if c.isalnum() else '_' for c in name)}",
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"The schedule of source {name!r} in sources.yaml.",
    )
    def of_source(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        config = {"ops": {"source_snapshots": {"config": {"sources": [name]}}}}
        return dg.RunRequest(tags=_all_buckets(), run_config=config)

    return of_source


def _scheduled_sources() -> list[SourceSpec]:
    path = Settings.from_env().resolved_sources_file
    return [s for s in source_catalog.load(path) if s.schedule] if path.exists() else []


schedules = [
    hourly_ingest_sources,
    daily_clean_up,
    *(_source_schedule(s.name, s.schedule or "") for s in _scheduled_sources()),
]
