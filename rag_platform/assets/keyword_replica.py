"""keyword_replica: what can be found by words while the vector store is away."""

import dagster as dg

from rag_platform.assets.presentation import GROUP, OWNERS, publish, record
from rag_platform.errors import DependencyError
from rag_platform.evaluation.exam import gated
from rag_platform.ingestion.stages.promote import finish
from rag_platform.ingestion.stages.rebuild import begin_replica_rebuild
from rag_platform.ingestion.stages.replica import lagging, replica_of, replicate
from rag_platform.partitions import backfill_policy, document_buckets
from rag_platform.resources import PlatformResource


class ReplicaConfig(dg.Config):
    """How to write the replica."""

    rebuild: bool = False
    """Compare the replica with the ledger first, and write again what is wrong or cannot be read."""
    store: str | None = None
    """The vector store whose replica it is; None: RAG_VECTOR_STORE."""


@dg.asset(
    partitions_def=document_buckets,
    backfill_policy=backfill_policy,
    deps=["vector_index"],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"lancedb"},
    check_specs=[
        dg.AssetCheckSpec(
            "replica_follows_index",
            asset="keyword_replica",
            description="The replica holds the version of every document that the index of its release holds.",
        ),
    ],
    description="The words of what vector_index holds, in LanceDB tables without vectors: questions are answered from "
    "it while a server store is down, and by its ranking where a store has no keyword leg.\n\nDoes nothing for a "
    "store that needs none: an embedded one.",
)
def keyword_replica(
    context: dg.AssetExecutionContext, config: ReplicaConfig, platform: PlatformResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    bench = platform.bench if config.store is None else platform.bench.in_store(config.store)
    try:
        if config.rebuild:
            begin_replica_rebuild(bench)
        report = replicate(bench, context.partition_keys, run_id=context.run.run_id)
        serving = finish(bench, gated=gated(bench.settings))  # a candidate may have waited for its replica
    except DependencyError as e:
        record(context, bench, {"outage": 1})
        raise dg.Failure(
            f"{e} — the index itself is up to date: run again when the replica's place is back",
            allow_retries=e.retryable,
        ) from e
    record(context, bench, {"replica_writes": report.totals.get("index_writes", 0)})
    target = replica_of(bench)
    lag = [] if target is None else lagging(bench, target)
    metadata = publish(context, report, ("indexed", "chunks", "removed", "index_writes"))
    metadata |= {"needed": target is not None, "lag": len(lag), "serving_release": serving or "none"}
    return dg.MaterializeResult(
        metadata=metadata,
        check_results=[
            dg.AssetCheckResult(
                check_name="replica_follows_index",
                passed=not lag,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"lag": len(lag)},
                description=f"{len(lag)} documents differ" if target else f"{bench.store_name} needs no replica",
            )
        ],
    )
