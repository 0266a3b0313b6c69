"""embeddings: one vector for every distinct chunk text."""

import dagster as dg

from rag_platform.assets.presentation import GROUP, OWNERS, publish, record
from rag_platform.errors import DependencyError
from rag_platform.ingestion.stages.embed import embed
from rag_platform.ingestion.stages.index import index
from rag_platform.ingestion.stages.report import StageReport
from rag_platform.partitions import backfill_policy, document_buckets
from rag_platform.resources import PlatformResource


@dg.asset(
    partitions_def=document_buckets,
    backfill_policy=backfill_policy,
    deps=["chunks"],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"python", "parquet", "onnx"},
    io_manager_key="segments",
    description="A vector for every distinct chunk text, cached by text and model: identical text is embedded once, "
    "in whatever document it stands.\n\nWhen the embedder is down this asset fails and is retried; no document "
    "becomes a dead letter, and what is served stays served.",
)
def embeddings(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
    bench, run_id = platform.bench, context.run.run_id
    report = StageReport("embed")
    outage: DependencyError | None = None
    try:
        embed(bench, context.partition_keys, run_id=run_id, report=report)
    except DependencyError as e:
        outage = e
    totals = report.totals
    record(
        context,
        bench,
        {
            "embedded": totals.get("embedded", 0),
            "embeddings_reused": totals.get("reused", 0),
            "tokens": totals.get("tokens", 0),
            "usd": totals.get("usd", 0.0),
            "dead_lettered_embed": totals.get("dead_lettered", 0),
            "outage": 0 if outage is None else 1,
        },
    )
    if outage is not None:
        # Deletions and permission changes must not wait for the embedder.
        written = index(bench, context.partition_keys, run_id=run_id)
        record(context, bench, {"index_writes": written.totals.get("index_writes", 0)})
        raise dg.Failure(
            f"{outage} — nothing is lost: {totals.get('embedded', 0):g} texts were embedded, the rest waits for "
            "the next run; see docs/runbooks/embedder-down.md",
            allow_retries=outage.retryable,
        ) from outage
    metadata = publish(context, report, ("embedded", "reused", "tokens", "calls", "usd", "dead_lettered"))
    spec = bench.pipeline.embedder
    metadata |= {"model": spec.model, "dimensions": spec.dimensions}
    seconds = metadata["seconds"]
    if totals.get("embedded") and seconds:
        metadata["texts_per_second"] = round(totals["embedded"] / seconds, 1)
    if spec.usd_per_million_tokens is None:
        metadata["usd"] = "unknown: the model has no price, set RAG_OPENAI_USD_PER_MILLION_TOKENS"
    return dg.MaterializeResult(metadata=metadata)
