"""Jobs: what can be started by a person, a schedule or the sensor."""

import time

import dagster as dg

from rag_platform.evaluation.regression import regressions
from rag_platform.ingestion.stages.housekeeping import housekeeping
from rag_platform.partitions import RANGE_END_TAG, RANGE_START_TAG
from rag_platform.resources import PlatformResource

INGESTION = dg.AssetSelection.assets(
    "source_snapshots", "parsed_documents", "chunks", "embeddings", "vector_index", "keyword_replica", "dead_letters",
    "evaluation_report", "index_release",
)  # fmt: skip

ingest_sources = dg.define_asset_job(
    "ingest_sources",
    selection=INGESTION,
    executor_def=dg.in_process_executor,
    description="List every source, and bring the index up to it. Unchanged documents cost a comparison.",
)

replay_dead_letters = dg.define_asset_job(
    "replay_dead_letters",
    selection=INGESTION,
    config={"ops": {"source_snapshots": {"config": {"replay": ["all"]}}}},
    executor_def=dg.in_process_executor,
    description="Try every open dead letter of the chosen partitions again.",
)

rebuild_vector_index = dg.define_asset_job(
    "rebuild_vector_index",
    selection=dg.AssetSelection.assets(
        "vector_index", "keyword_replica", "dead_letters", "evaluation_report", "index_release"
    ),
    config={"ops": {name: {"config": {"rebuild": True}} for name in ("vector_index", "keyword_replica")}},
    executor_def=dg.in_process_executor,
    description="Write the index again, or into another store, from the stored chunks and embeddings; nothing is "
    "parsed or embedded.",
)

evaluate_serving = dg.define_asset_job(
    "evaluate_serving",
    selection=dg.AssetSelection.assets("evaluation_report", "evaluation_samples"),
    config={"ops": {"evaluation_report": {"config": {"of": "serving"}}}},
    executor_def=dg.in_process_executor,
    description="Ask the release that serves every question of the golden sets, with RAGAS, and judge a sample of last "
    "week's answers.",
)

export_query_log = dg.define_asset_job(
    "export_query_log",
    selection=dg.AssetSelection.assets("query_log"),
    executor_def=dg.in_process_executor,
    description="Write the questions of one day as Parquet, without texts.",
)

MAX_WAITING_RUNS = 1000
TO_BEGIN = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING)


def waits_in_queue(instance: dg.DagsterInstance, first: str, last: str) -> bool:
    """Whether an ingestion of these buckets waits to begin: it will list the sources itself, so that another one
    would find nothing to do. Without this a bulk load of hours would fill the queue."""
    waiting = instance.get_run_records(
        dg.RunsFilter(job_name=ingest_sources.name, statuses=list(TO_BEGIN)), limit=MAX_WAITING_RUNS
    )
    ranges = ((r.dagster_run.tags.get(RANGE_START_TAG), r.dagster_run.tags.get(RANGE_END_TAG)) for r in waiting)
    return any(start and end and start <= first and last <= end for start, end in ranges)


@dg.op(description="Fail with what has become worse, when something has.")
def compare_evaluations(context: dg.OpExecutionContext, platform: PlatformResource) -> None:
    found = regressions(platform.bench.settings, platform.bench.ledger)
    if found:
        raise dg.Failure(
            "what serves has become worse: "
            + " · ".join(str(r) for r in found)
            + " — see docs/runbooks/quality-regression.md",
            allow_retries=False,
        )


@dg.job(executor_def=dg.in_process_executor, description="Fails when what serves is worse than what served before.")
def report_regression() -> None:
    compare_evaluations()


@dg.op(description="Delete old runs, unreferenced bytes and the litter of crashed attempts; compare index and ledger.")
def clean_up_platform(context: dg.OpExecutionContext, platform: PlatformResource) -> None:
    report = housekeeping(platform.bench)
    days = platform.bench.settings.run_retention_days
    before = time.time() - days * 86400
    finished = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    )
    deleted = 0
    for item in context.instance.get_run_records(finished, ascending=True, limit=5000):
        if item.create_timestamp.timestamp() < before:
            context.instance.delete_run(item.dagster_run.run_id)
            deleted += 1
    context.add_output_metadata({"runs_deleted": deleted, **report})


@dg.job(executor_def=dg.in_process_executor, description="Daily housekeeping; safe beside anything else.")
def clean_up() -> None:
    clean_up_platform()
