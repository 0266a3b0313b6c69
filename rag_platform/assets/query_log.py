"""query_log: what was asked on a day, without texts, for whoever analyses traffic with other tools."""

from typing import Any

import dagster as dg

from rag_platform.assets.presentation import OWNERS, QUALITY, table
from rag_platform.errors import DependencyError
from rag_platform.evaluation.query_log_export import export_day
from rag_platform.resources import PlatformResource

days = dg.DailyPartitionsDefinition(start_date="2026-01-01", timezone="UTC")


@dg.asset(
    partitions_def=days,
    group_name=QUALITY,
    owners=OWNERS,
    kinds={"parquet"},
    description="The questions of one day (UTC) as Parquet beside the other objects: times, modes, caches, releases, "
    "documents, tokens, dollars and thumbs. Texts stay in the ledger. A day can be exported again, for thumbs that "
    "came later, as long as RAG_QUERY_LOG_DAYS keeps its rows.",
)
def query_log(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
    bench = platform.bench
    try:
        found = export_day(
            bench.ledger, bench.objects, context.partition_key, context.partition_time_window.start.timestamp()
        )
    except DependencyError as e:
        raise dg.Failure(f"{e} — nothing is lost: run again", allow_retries=e.retryable) from e
    answers = max(1, found.rows - found.failed)
    metadata: dict[str, Any] = {
        "dagster/row_count": found.rows,
        "failed": found.failed,
        "refused": found.refused,
        "degraded_share": round(found.degraded_answers / answers, 4),
        "cache_hit_rate": round(found.cached / answers, 4),
        "thumbs_up": found.thumbs_up,
        "thumbs_down": found.thumbs_down,
        "tokens": found.tokens,
        "cost_usd": round(found.usd, 6),
        "files": found.files,
        "path": dg.MetadataValue.path(found.uri),
    }
    for name, value in (("p50_ms", found.p50_ms), ("p95_ms", found.p95_ms)):
        if value is not None:
            metadata[name] = round(value, 1)
    if found.degraded:
        metadata["degraded"] = table(("stage:reason", "answers"), found.degraded)
    return dg.MaterializeResult(metadata=metadata)
