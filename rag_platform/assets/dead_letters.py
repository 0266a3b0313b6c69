"""dead_letters: what could not be read, and why."""

import dataclasses
from collections.abc import Iterator

import dagster as dg
import pyarrow as pa

from rag_platform.assets.presentation import GROUP, OWNERS, failures
from rag_platform.resources import PlatformResource

DeadLetterEvents = dg.Output[pa.Table] | dg.AssetCheckResult

_COLUMNS = (
    "dead_letter_id", "document_id", "version_id", "stage", "source", "uri", "content_hash", "error_code", "message",
    "state", "run_id",
)  # fmt: skip


@dg.asset(
    deps=[
        dg.AssetDep(name, partition_mapping=dg.AllPartitionMapping())
        for name in ("source_snapshots", "parsed_documents", "chunks", "embeddings", "vector_index", "keyword_replica")
    ],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"parquet"},
    io_manager_key="segments",
    check_specs=[
        dg.AssetCheckSpec(
            "dead_letter_share",
            asset="dead_letters",
            description="Open dead letters are at most RAG_MAX_DEAD_LETTER_SHARE of the live documents. Warns when "
            "there are any.",
        )
    ],
    description="Documents that could not be read: one row per document version and stage, with the reason, the "
    "number of attempts and the next automatic replay. `rag dead-letters` works on them; the job "
    "`replay_dead_letters` tries them all again.",
)
def dead_letters(context: dg.AssetExecutionContext, platform: PlatformResource) -> Iterator[DeadLetterEvents]:
    ledger = platform.bench.ledger
    letters = [x for x in ledger.dead_letters.search() if x.state in ("open", "replaying")]
    rows = [{c: v for c, v in dataclasses.asdict(x).items() if c in _COLUMNS} for x in letters]
    live = ledger.documents.totals(None)["live"]
    limit = platform.bench.settings.max_dead_letter_share
    share = len({x.document_id for x in letters}) / live if live else 0.0
    ledger.runs.finish(context.run.run_id)
    yield dg.Output(
        pa.Table.from_pylist(rows, schema=pa.schema([pa.field(c, pa.string()) for c in _COLUMNS])),
        metadata={
            "open": len(letters),
            "share": round(share, 5),
            "limit": limit,
            "dead_letters": failures(letters),
            **{f"stage_{s}": sum(x.stage == s for x in letters) for s in sorted({x.stage for x in letters})},
        },
    )
    yield dg.AssetCheckResult(
        check_name="dead_letter_share",
        passed=not letters,
        severity=dg.AssetCheckSeverity.ERROR if share > limit else dg.AssetCheckSeverity.WARN,
        metadata={"open": len(letters), "live_documents": live, "share": round(share, 5), "limit": limit},
        description=f"{len(letters)} open for {live} live documents ({share:.2%}, limit {limit:.0%})",
    )
