"""Which release serves: promotion of a complete one, and the end of those that nothing needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from rag_platform import telemetry
from rag_platform.errors import ConfigurationError, DependencyError, DependencyTimeout
from rag_platform.ingestion.stages.audit import audit_index, conservation
from rag_platform.ingestion.stages.exchange import ensure, index_of, locked
from rag_platform.ingestion.stages.index import settled
from rag_platform.ingestion.stages.replica import lagging, replica_of
from rag_platform.ingestion.stages.report import StageReport
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.releases import Release

KEEP_RETIRED_RELEASES = 1
DROP_TIMEOUT_S = 30.0


def finish(bench: Workbench, indexed: StageReport | None = None, *, gated: bool = False) -> str | None:
    """Promote this pipeline's release when it may serve, and drop releases that nothing needs.

    The first release serves at once, there is nothing better. A later one serves when it is ``ready``; until
    then the old one goes on answering. One that was rolled back serves again only when somebody promotes it.

    Args:
        indexed: what the index stage did; its outage, that of a store that goes on serving, is raised.
        gated: a later release is not promoted here even when it is ready: somebody above decides.

    Returns:
        The id of the release that serves.
    """
    releases = bench.ledger.releases
    serving = releases.serving()
    if serving is None:
        ensure(bench, index_of(bench))
        releases.promote(bench.release.release_id, by="ingest", reasons=["the first release"])
    elif serving.release_id != bench.release.release_id:
        may_serve = not rolled_back(bench) and ready(bench)
        if may_serve and not gated:
            releases.promote(bench.release.release_id, by="ingest", reasons=["complete; no gate asked for more"])
        elif not may_serve and indexed is not None and indexed.outage is not None:
            raise indexed.outage
    drop_retired(bench)
    now = releases.serving()
    return None if now is None else now.release_id


def ready(bench: Workbench) -> bool:
    """Whether this pipeline's release could serve: it is ``complete``, and its index holds what the ledger says.

    Raises:
        DependencyError: the store failed.
    """
    if not complete(bench) or audit_index(bench).wrong:
        return False
    ensure(bench, index_of(bench))
    return True


def rolled_back(bench: Workbench) -> bool:
    """Whether the last that was decided about this pipeline's release is that it shall not serve."""
    newest = bench.ledger.releases.decisions(bench.release_id, limit=1)
    return bool(newest) and newest[0].decision == "rolled_back"


def complete(bench: Workbench) -> bool:
    """Whether every live document is indexed in this release or is a dead letter, no more of them are dead
    letters than ``max_dead_letter_share`` allows, no deletion or permission waits, and what must answer in the
    place of its store is ready too."""
    state = conservation(bench, bench.bucket_names)
    lost = state.dead_lettered / state.received if state.received else 0.0
    if state.in_flight or not state.indexed or lost > bench.settings.max_dead_letter_share or not settled(bench):
        return False
    replica = replica_of(bench)
    return replica is None or not lagging(bench, replica)


def drop_retired(bench: Workbench) -> list[str]:
    """Drop all retired releases but the last, each in the store that holds it; return the ids of those whose
    store does not let go of them now: they are tried again by the next run."""
    releases = bench.ledger.releases
    retired = sorted(
        (r for r in releases.all() if r.state == "retired" and r.release_id != bench.release_id),
        key=lambda r: r.promoted_at or 0.0,
        reverse=True,
    )
    return _drop_all(bench, retired[KEEP_RETIRED_RELEASES:])


def drop_abandoned(bench: Workbench, before: float) -> int:
    """Drop releases that never served, that were made before a time (seconds since the epoch), and that this pipeline
    does not make; return how many."""
    abandoned = [
        r
        for r in bench.ledger.releases.all()
        if r.state == "candidate" and r.release_id != bench.release_id and r.created_at < before
    ]
    return len(abandoned) - len(_drop_all(bench, abandoned))


def _drop_all(bench: Workbench, releases: Sequence[Release]) -> list[str]:
    left: list[str] = []
    for old in releases:
        try:
            _drop(bench, old)
        except (DependencyError, ConfigurationError):
            if old.store == bench.store_name:
                raise
            left.append(old.release_id)  # a store that is gone must not stop the others
    return left


def _drop(bench: Workbench, old: Release) -> None:
    """Drop a release with its index and its keyword replica, while nobody writes to it."""
    view = bench.of_release(old)
    index, replica = index_of(view), replica_of(view)
    releases = bench.ledger.releases
    with locked(bench, index, *([replica] if replica else [])):
        # Dirty first: should this die half-way and its pipeline come back, nothing is believed of it.
        releases.reset_entries(old.release_id, bench.bucket_names)
        with telemetry.effect("store:drop"):
            bench.run(_in_time(old.store, index.store.drop(index.index)))
        if replica is not None:
            releases.reset_entries(replica.entries_id, bench.bucket_names)
            with telemetry.effect("replica:drop"):
                bench.run(_in_time("keyword_replica", replica.store.drop(replica.index)))
        releases.forget(old.release_id)


async def _in_time(store: str, work: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(DROP_TIMEOUT_S):
            await work
    except TimeoutError as e:
        raise DependencyTimeout(f"vector_store:{store}", f"did not drop an index within {DROP_TIMEOUT_S:g} s") from e
