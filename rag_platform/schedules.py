"""Schedules: the fallback for what the sensor may miss, and what is due by the clock."""

from datetime import UTC, timedelta

import dagster as dg

from rag_platform.ingestion import source_catalog
from rag_platform.jobs import clean_up, evaluate_serving, export_query_log, ingest_sources, waits_in_queue
from rag_platform.partitions import all_ranges, range_tags
from rag_platform.records import SourceSpec
from rag_platform.settings import Settings


def _whole_corpus(
    context: dg.ScheduleEvaluationContext, run_config: dict[str, object] | None = None
) -> list[dg.RunRequest] | dg.SkipReason:
    """One run over everything, or as many as RAG_BUCKETS_PER_RUN asks for; none of those that wait in the queue."""
    wanted = [r for r in all_ranges() if run_config or not waits_in_queue(context.instance, *r)]
    if not wanted:
        return dg.SkipReason("the runs of an earlier look still wait in the queue")
    return [dg.RunRequest(tags=range_tags(first, last), run_config=run_config) for first, last in wanted]


@dg.schedule(
    job=ingest_sources,
    cron_schedule="17 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Looks at every source once an hour, also when the sensor is off. Replays dead letters that are due.",
)
def hourly_ingest_sources(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
    return _whole_corpus(context)


@dg.schedule(
    job=clean_up,
    cron_schedule="43 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Housekeeping, once a day.",
)
def daily_clean_up(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    return dg.RunRequest()


@dg.schedule(
    job=evaluate_serving,
    cron_schedule=Settings.from_env().evaluation_schedule,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="The serving release and a sample of its traffic, evaluated once a week (RAG_EVALUATION_SCHEDULE).",
)
def weekly_evaluation(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    return dg.RunRequest()


@dg.schedule(
    job=export_query_log,
    cron_schedule="7 1 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Yesterday's questions as Parquet.",
)
def daily_query_log(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    yesterday = context.scheduled_execution_time.astimezone(UTC) - timedelta(days=1)
    return dg.RunRequest(partition_key=yesterday.strftime("%Y-%m-%d"))


def _source_schedule(name: str, cron: str) -> dg.ScheduleDefinition:
    @dg.schedule(
        job=ingest_sources,
        name=f"source_{''.join(c if c.isalnum() else '_' for c in name)}",
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"The schedule of source {name!r} in sources.yaml.",
    )
    def of_source(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        return _whole_corpus(context, {"ops": {"source_snapshots": {"config": {"sources": [name]}}}})

    return of_source


def _scheduled_sources() -> list[SourceSpec]:
    path = Settings.from_env().resolved_sources_file
    return [s for s in source_catalog.load(path) if s.schedule] if path.exists() else []


schedules = [
    hourly_ingest_sources,
    daily_clean_up,
    weekly_evaluation,
    daily_query_log,
    *(_source_schedule(s.name, s.schedule or "") for s in _scheduled_sources()),
]
