"""vector_index: what can be found."""

import dagster as dg

from rag_platform.assets.presentation import GROUP, OWNERS, publish, record
from rag_platform.errors import DependencyError
from rag_platform.evaluation.exam import gated
from rag_platform.ingestion.stages.audit import IndexAudit, audit_index, conservation
from rag_platform.ingestion.stages.index import index
from rag_platform.ingestion.stages.promote import finish
from rag_platform.ingestion.stages.rebuild import begin_rebuild
from rag_platform.partitions import backfill_policy, document_buckets
from rag_platform.resources import PlatformResource
from rag_platform.settings import Settings


class IndexConfig(dg.Config):
    """How to write the index."""

    rebuild: bool = False
    """Write every document of the partitions again, from the stored chunks and embeddings."""
    store: str | None = None
    """The vector store to write to; None: RAG_VECTOR_STORE."""


@dg.asset(
    partitions_def=document_buckets,
    backfill_policy=backfill_policy,
    deps=["embeddings"],
    group_name=GROUP,
    owners=OWNERS,
    kinds={Settings.from_env().vector_store},
    check_specs=[
        dg.AssetCheckSpec(
            "conservation",
            asset="vector_index",
            description="received = indexed + dead-lettered + in flight, document by document, and nothing is in "
            "flight after a complete run.",
        ),
        dg.AssetCheckSpec(
            "no_ghost_chunks",
            asset="vector_index",
            description="The index holds no chunk of a document or version that should not be served.",
        ),
        dg.AssetCheckSpec(
            "index_matches_ledger",
            asset="vector_index",
            description="The index holds exactly as many chunks, of exactly the documents, as the ledger says.",
        ),
    ],
    description="The searchable chunks: BM25 and vectors, with tenant and ACL. A document is exchanged in one commit, "
    "so a query sees its old version or its new one, never both and never none; deletions arrive in the same run.",
)
def vector_index(
    context: dg.AssetExecutionContext, config: IndexConfig, platform: PlatformResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    bench = platform.bench if config.store is None else platform.bench.in_store(config.store)
    try:
        if config.rebuild:
            begin_rebuild(bench, context.partition_keys)
        report = index(bench, context.partition_keys, run_id=context.run.run_id)
        audit = audit_index(bench)
        serving = finish(bench, report, gated=gated(bench.settings))
    except DependencyError as e:
        record(context, bench, {"outage": 1})
        raise dg.Failure(
            f"{e} — nothing is lost: run again when it is back; see docs/runbooks/store-corrupt-or-lost.md",
            allow_retries=e.retryable,
        ) from e
    balance = conservation(bench, bench.bucket_names)
    totals = report.totals
    # Litter of crashed attempts goes on every pass; small segments are merged when there are many.
    orphans = bench.segments.collect_garbage()
    merged = sum(bench.segments.compact(stage)["merged"] for stage in ("parse", "chunk", "embed"))
    record(
        context,
        bench,
        {
            "indexed": totals.get("indexed", 0),
            "removed": totals.get("removed", 0),
            "index_writes": totals.get("index_writes", 0),
            "in_flight": balance.in_flight,
            "ghost_chunks": audit.ghosts,
            "missing_chunks": audit.missing,
        },
    )
    metadata = publish(context, report, ("indexed", "chunks", "removed", "index_writes"))
    metadata |= {
        "index_chunks": audit.index_chunks,
        "release": bench.release_id,
        "store": bench.store_name,
        "serving_release": serving or "none",
        "orphan_segments_deleted": orphans,
        "segments_merged": merged,
    }
    return dg.MaterializeResult(
        metadata=metadata,
        check_results=[
            dg.AssetCheckResult(
                check_name="conservation",
                passed=balance.holds and balance.in_flight == 0,
                severity=dg.AssetCheckSeverity.WARN if balance.holds else dg.AssetCheckSeverity.ERROR,
                metadata={
                    "received": balance.received,
                    "indexed": balance.indexed,
                    "dead_lettered": balance.dead_lettered,
                    "in_flight": balance.in_flight,
                },
                description=f"{balance.received} = {balance.indexed} indexed + {balance.dead_lettered} dead-lettered "
                f"+ {balance.in_flight} in flight",
            ),
            dg.AssetCheckResult(
                check_name="no_ghost_chunks",
                passed=audit.ghosts == 0,
                metadata=_audit_metadata(audit),
            ),
            dg.AssetCheckResult(
                check_name="index_matches_ledger",
                passed=audit.missing == 0 and audit.ledger_chunks == audit.index_chunks,
                metadata=_audit_metadata(audit),
                description=None if audit.checked else "the index has not moved since it was last compared",
            ),
        ],
    )


def _audit_metadata(audit: IndexAudit) -> dict[str, int | str]:
    return {
        "ledger_chunks": audit.ledger_chunks,
        "index_chunks": audit.index_chunks,
        "ghosts": audit.ghosts,
        "missing": audit.missing,
        "documents": ", ".join(audit.examples) or "none",
    }
