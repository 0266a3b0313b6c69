"""parsed_documents: normalised text with element spans, for every distinct document content."""

import dagster as dg

from rag_platform.assets.presentation import GROUP, OWNERS, publish, record
from rag_platform.ingestion.stages.parse import parse
from rag_platform.partitions import backfill_policy, document_buckets
from rag_platform.resources import PlatformResource


@dg.asset(
    partitions_def=document_buckets,
    backfill_policy=backfill_policy,
    deps=["source_snapshots"],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"python", "parquet"},
    io_manager_key="segments",
    description="Text, headings, tables and pages of every document, read in jailed parser processes with limits on "
    "CPU, memory and time; pages without text by OCR. Equal bytes are parsed once.\n\nA document that cannot be "
    "read becomes a dead letter; the others go on.",
)
def parsed_documents(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
    report = parse(platform.bench, context.partition_keys, run_id=context.run.run_id)
    totals = report.totals
    record(
        context,
        platform.bench,
        {"parsed": totals.get("parsed", 0), "dead_lettered_parse": totals.get("dead_lettered", 0)},
    )
    return dg.MaterializeResult(
        metadata=publish(context, report, ("parsed", "dead_lettered", "characters", "pages", "ocr_pages", "warnings"))
    )
