"""How stage reports become run metadata that a person reads in the Dagster UI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from rag_platform.ingestion.stages.report import StageReport
from rag_platform.ledger.dead_letters import DeadLetter

OWNERS = ["team:data-platform"]
GROUP = "ingestion"
QUALITY = "quality"
MAX_ROWS = 20


def publish(context: dg.AssetExecutionContext, report: StageReport, order: Sequence[str]) -> dict[str, Any]:
    """Attach per-partition counts to each partition and return the metadata of the whole run.

    Args:
        context: the asset's context.
        report: what the stage did.
        order: the counts to show, most important first; absent ones are shown as 0.
    """
    for bucket in context.partition_keys if len(context.partition_keys) > 1 else ():
        counts: Mapping[str, float] = report.counts.get(bucket, {})
        context.add_asset_metadata(
            {f"bucket_{name}": number(counts.get(name, 0)) for name in order}, partition_key=bucket
        )
    totals = report.totals
    metadata: dict[str, Any] = {name: number(totals.get(name, 0)) for name in order}
    seconds = sum(report.seconds.values())
    metadata["seconds"] = round(seconds, 2)
    if report.slowest:
        metadata["slowest_documents"] = table(
            ("seconds", "document"), ((round(s, 3), uri) for s, uri in report.slowest_documents)
        )
    if report.dead_letters:
        metadata["failed_documents"] = failures(report.dead_letters)
    return metadata


def failures(letters: Iterable[DeadLetter]) -> dg.TableMetadataValue:
    """Show dead letters: what failed, where, why, and the id to type."""
    return table(
        ("document", "source", "stage", "error", "reason", "attempts", "dead_letter_id"),
        ((x.uri, x.source, x.stage, x.error_code, x.message, x.attempts, x.dead_letter_id) for x in letters),
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> dg.TableMetadataValue:
    """Return the first rows as a metadata table."""
    records = [
        dg.TableRecord(dict(zip(columns, row, strict=True))) for _, row in zip(range(MAX_ROWS), rows, strict=False)
    ]
    schema = dg.TableSchema(columns=[dg.TableColumn(c, _kind([r.data[c] for r in records])) for c in columns])
    return dg.MetadataValue.table(records=records, schema=schema)


def number(value: float) -> int | float:
    """Show whole numbers as such."""
    return int(value) if float(value).is_integer() else round(float(value), 6)


def record(context: dg.AssetExecutionContext, bench: Any, counters: Mapping[str, float]) -> None:
    """Write a run's counters to the ledger, where ``rag status`` reads them."""
    bench.ledger.runs.set_counters(context.run.run_id, counters)


def _kind(values: Sequence[Any]) -> str:
    if values and all(isinstance(v, int) for v in values):
        return "int"
    if values and all(isinstance(v, int | float) for v in values):
        return "float"
    return "string"
