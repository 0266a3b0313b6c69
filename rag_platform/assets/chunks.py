"""chunks: spans of parsed text, of a size that the embedder takes."""

import dagster as dg

from rag_platform.assets.presentation import GROUP, OWNERS, publish, record
from rag_platform.ingestion.stages.chunk import chunk
from rag_platform.ingestion.stages.serving import Kept, keep_serving
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
    "path, at most RAG_CHUNK_TOKENS tokens of the embedder long.\n\nWhile the settings make another release than the one "
    "that serves, changed documents are first brought into that one, by its own chunker and embedder.",
)
def chunks(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
    kept = keep_serving(platform.bench, context.partition_keys, run_id=context.run.run_id)
    if kept.problem is not None:
        context.log.warning(f"{kept.release_id} serves, and changed documents do not reach it: {kept.problem}")
    report = chunk(platform.bench, context.partition_keys, run_id=context.run.run_id)
    totals = report.totals
    record(
        context,
        platform.bench,
        {
            "chunked": totals.get("chunked_documents", 0),
            "chunks_made": totals.get("chunks", 0),
            "dead_lettered_chunk": totals.get("dead_lettered", 0),
            **_counters(kept),
        },
    )
    metadata = publish(context, report, ("chunked_documents", "chunks", "tokens", "dead_lettered"))
    if totals.get("chunked_documents"):
        metadata["chunks_per_document"] = round(totals["chunks"] / totals["chunked_documents"], 2)
        metadata["tokens_per_chunk"] = round(totals["tokens"] / max(1, totals["chunks"]), 1)
    if kept.release_id is not None:
        metadata |= {"kept_release": kept.release_id, "kept_problem": kept.problem or "none", **_counters(kept)}
    return dg.MaterializeResult(metadata=metadata)


def _counters(kept: Kept) -> dict[str, float]:
    embedded, indexed = kept.embedded.totals, kept.indexed.totals
    return {
        "kept_embedded": embedded.get("embedded", 0),
        "kept_tokens": embedded.get("tokens", 0),
        "kept_usd": embedded.get("usd", 0.0),
        "kept_indexed": indexed.get("indexed", 0),
    }
