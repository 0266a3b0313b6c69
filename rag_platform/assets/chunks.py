"""chunks: spans of parsed text, of a size that the embedder takes."""

import dagster as dg

from rag_platform.assets.presentation import GROUP, OWNERS, publish, record
from rag_platform.ingestion.stages.chunk import chunk
from rag_platform.partitions import backfill_policy, document_buckets
from rag_platform.resources import PlatformResource


@dg.asset(
    partitions_def=document_buckets,
    backfill_policy=backfill_policy,
    deps=["parsed_documents"],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"python", "parquet"},
    io_manager_key="segments",
    description="Chunks of every parsed document: each is an exact span of the parsed text, with page and heading "
    "path, at most RAG_CHUNK_TOKENS tokens of the embedder long.",
)
def chunks(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
    report = chunk(platform.bench, context.partition_keys, run_id=context.run.run_id)
    totals = report.totals
    record(
        context,
        platform.bench,
        {
            "chunked": totals.get("chunked_documents", 0),
            "chunks_made": totals.get("chunks", 0),
            "dead_lettered_chunk": totals.get("dead_lettered", 0),
        },
    )
    metadata = publish(context, report, ("chunked_documents", "chunks", "tokens", "dead_lettered"))
    if totals.get("chunked_documents"):
        metadata["chunks_per_document"] = round(totals["chunks"] / totals["chunked_documents"], 2)
        metadata["tokens_per_chunk"] = round(totals["tokens"] / max(1, totals["chunks"]), 1)
    return dg.MaterializeResult(metadata=metadata)
