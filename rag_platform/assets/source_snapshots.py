"""source_snapshots: the documents of every source, as last seen, by content hash."""

import time
from datetime import timedelta

import dagster as dg

from rag_platform.assets.presentation import GROUP, OWNERS, publish, record, table
from rag_platform.ingestion.source_registry import registered_sources
from rag_platform.ingestion.stages.quarantine import release_due
from rag_platform.ingestion.stages.snapshot import SourceOutcome, snapshot
from rag_platform.partitions import backfill_policy, document_buckets
from rag_platform.resources import PlatformResource
from rag_platform.settings import Settings


class SnapshotConfig(dg.Config):
    """What to look at in this run."""

    sources: list[str] | None = None
    """Names of the sources to list; None: all of them."""
    approve_mass_change: bool = False
    """Let the mass-change guard pass this once."""
    replay: list[str] = []  # noqa: RUF012 - a pydantic field, copied for each instance
    """Dead letters to try again: their ids, or ``all``. Those whose back-off is over always are."""


@dg.asset(
    partitions_def=document_buckets,
    backfill_policy=backfill_policy,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"filesystem", "s3"},
    # On the scan, which every run does: a correct, idle corpus must not look stale.
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=Settings.from_env().freshness_hours)),
    check_specs=[
        dg.AssetCheckSpec(
            "mass_change_guard",
            asset="source_snapshots",
            blocking=True,
            description="A source that is suddenly empty, or lost a large share of its documents, stops the "
            "flow before anything is deleted. Approve with `rag ingest --approve-mass-change`.",
        ),
        dg.AssetCheckSpec(
            "listings_complete",
            asset="source_snapshots",
            description="Every source was listed and fetched to its end. One that was not changes nothing; "
            "the others go on.",
        ),
    ],
    description="Every document of every source, as last seen: listed completely or not at all, fetched only when "
    "its change token moved, stored under the SHA-256 of its bytes.\n\nPartitions are hash buckets of the "
    "document's identity; a bucket's version is the Merkle hash of its documents' content hashes.",
)
def source_snapshots(
    context: dg.AssetExecutionContext, config: SnapshotConfig, platform: PlatformResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    bench = platform.bench
    run_id = context.run.run_id
    specs = registered_sources(bench.ledger, bench.settings)
    if config.sources is not None:
        unknown = sorted(set(config.sources) - {s.name for s in specs})
        if unknown:
            raise dg.Failure(f"unknown sources: {', '.join(unknown)}; known: {', '.join(s.name for s in specs)}")
        specs = [s for s in specs if s.name in config.sources]
    bench.ledger.runs.start(run_id, [s.name for s in specs])
    moved = bench.ledger.documents.rebucket(bench.settings.partition_hex_digits)
    if moved:
        context.log.info(f"moved {moved} documents to new buckets")
    _replay(bench, config.replay)

    report = snapshot(
        bench, specs, context.partition_keys, run_id=run_id, approve_mass_change=config.approve_mass_change
    )
    totals = report.totals
    held = [o for o in report.sources if o.held]
    failed = [o for o in report.sources if o.failed]
    record(
        context,
        bench,
        {name: totals.get(name, 0) for name in ("added", "changed", "deleted", "dead_lettered")}
        | {
            "unchanged": sum(o.unchanged for o in report.sources),
            "renamed": sum(o.renamed for o in report.sources),
            "dead_lettered_snapshot": totals.get("dead_lettered", 0),
            "held_sources": len(held),
            "failed_sources": len(failed),
        },
    )
    for outcome in (*held, *failed):
        context.log.error(f"source {outcome.source}: {outcome.held or outcome.failed}")
    if failed and len(failed) == len(report.sources):
        raise dg.Failure(
            "no source could be listed: " + "; ".join(f"{o.source}: {o.failed}" for o in failed), allow_retries=True
        )
    metadata = publish(context, report, ("added", "changed", "deleted", "unchanged", "bytes", "dead_lettered"))
    metadata["unchanged"] = sum(o.unchanged for o in report.sources)  # of whole sources, not of this run's buckets
    metadata["seconds"] = round(sum(o.seconds for o in report.sources), 2)
    metadata["sources"] = _sources_table(report.sources)
    states = bench.ledger.documents.buckets()
    return dg.MaterializeResult(
        metadata=metadata,
        data_version=_data_version(context, {b: s.manifest_hash for b, s in states.items()}),
        check_results=[
            dg.AssetCheckResult(
                check_name="mass_change_guard",
                passed=not held,
                severity=dg.AssetCheckSeverity.ERROR,
                metadata={"held": "; ".join(f"{o.source}: {o.held}" for o in held) or "none"},
                description="approve with `rag ingest --approve-mass-change`" if held else None,
            ),
            dg.AssetCheckResult(
                check_name="listings_complete",
                passed=not failed,
                severity=dg.AssetCheckSeverity.ERROR,
                metadata={"failed": "; ".join(f"{o.source}: {o.failed}" for o in failed) or "none"},
            ),
        ],
    )


@dg.asset_check(
    asset=source_snapshots,
    description="Every source was listed completely within RAG_FRESHNESS_HOURS.",
)
def sources_fresh(platform: PlatformResource) -> dg.AssetCheckResult:
    bench = platform.bench
    limit_s = bench.settings.freshness_hours * 3600
    rows = []
    for source in bench.ledger.sources.all():
        age = None if source.listed_at is None else time.time() - source.listed_at
        rows.append((source.spec.name, "never" if age is None else round(age / 3600, 2), source.problem or ""))
    late = [r for r in rows if r[1] == "never" or float(r[1]) * 3600 > limit_s]
    return dg.AssetCheckResult(
        passed=not late,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"sources": table(("source", "hours_since_listing", "problem"), rows), "late": len(late)},
    )


def _replay(bench: object, letters: list[str]) -> None:
    from rag_platform.ingestion.workbench import Workbench

    assert isinstance(bench, Workbench)
    release_due(bench, time.time())
    if letters == ["all"]:
        letters = [x.dead_letter_id for x in bench.ledger.dead_letters.search(state="open")]
    if letters:
        bench.ledger.dead_letters.move(letters, "replaying", among=("open",))


def _sources_table(outcomes: list[SourceOutcome]) -> dg.TableMetadataValue:
    return table(
        ("source", "documents", "bytes", "fetched", "missing", "renamed", "seconds", "problem"),
        (
            (
                o.source,
                o.listed,
                o.bytes,
                o.fetched,
                o.missing,
                o.renamed,
                round(o.seconds, 2),
                o.held or o.failed or "",
            )
            for o in outcomes
        ),
    )


def _data_version(context: dg.AssetExecutionContext, manifests: dict[str, str]) -> dg.DataVersion | None:
    """A run over one bucket can say the bucket's version; one over a range would give all the same."""
    keys = context.partition_keys
    if len(keys) != 1 or keys[0] not in manifests:
        return None
    return dg.DataVersion(manifests[keys[0]][:32])
