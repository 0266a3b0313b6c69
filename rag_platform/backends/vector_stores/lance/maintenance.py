"""Keeping a table fast: when to compact, to refresh search indices and to drop old versions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from rag_platform.backends.vector_stores.lance.rows import SEARCH_TEXT

FTS_INDEX = f"{SEARCH_TEXT}_idx"
VECTOR_INDEX = "vector_idx"
SCALAR_COLUMNS = ("document_id", "chunk_id")


PARTITION_ROWS = 4096
"""Rows of one IVF partition. Few and large: sentence embeddings do not cluster well (20 of 80 partitions
gave recall@50 .951 on 41,000 documentation chunks), so a search should look into most of them, and
what an index gains at this size is that its vectors stay in memory. Building one with the library's
defaults took 16 CPU seconds, with 80 partitions and a sample of 32 rows each under two."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Thresholds of ``maintain``.

    Attributes:
        max_unindexed_rows: rows outside the word index; each search reads them one by one.
        max_small_fragments: data files that are smaller than they should be; each write adds one.
        max_old_versions: versions older than the retention, which a clean-up would drop.
        retention_s: age in seconds below which a version is never dropped, for readers that hold it.
        vector_index_rows: tables with more rows get an IVF index; smaller ones are scanned exactly.

    The defaults keep a search within twice its best time: on 41,000 chunks the keyword leg took 16 ms,
    30 ms with 12 small fragments, 54 with 32, and 137 with 3,400 unindexed rows (two busy cores), while
    one optimisation took 1 s.
    """

    max_unindexed_rows: int = 500
    max_small_fragments: int = 10
    max_old_versions: int = 20
    retention_s: float = 600.0
    vector_index_rows: int = 10_000


async def create_indices(table: Any) -> list[str]:
    """Create the indices that a table always has; return the names of the new ones."""
    from lancedb.index import FTS, BTree

    existing = {i.name for i in await table.list_indices()}
    made = []
    for column in SCALAR_COLUMNS:
        if f"{column}_idx" not in existing:
            await table.create_index(column, config=BTree())
            made.append(f"{column}_idx")
    if FTS_INDEX not in existing:
        await table.create_index(SEARCH_TEXT, config=FTS(**WORDS))
        made.append(FTS_INDEX)
    return made


WORDS: dict[str, Any] = {
    "with_position": False,
    "base_tokenizer": "simple",
    "language": "English",
    "stem": True,
    "remove_stop_words": True,
    "ascii_folding": True,
    "lower_case": True,
}
"""How prepared text (``words.indexed``) becomes words. nDCG@10 on 1,000 SQuAD / 100 documentation questions: this
.887/.796, stop words kept .880/.770, not stemmed .869/–, ICU words .882/.762, ICU split .882/.791."""


async def maintain(table: Any, policy: Policy, *, force: bool) -> dict[str, Any]:
    """Do what has become necessary and report it: keys ``created``, ``optimized``, ``vector_index``, …"""
    report: dict[str, Any] = {"created": await create_indices(table)}
    rows = await table.count_rows()
    indices = {i.name: i for i in await table.list_indices()}
    stats = await table.stats()
    oldest_kept = datetime.now() - timedelta(seconds=policy.retention_s)
    versions = [v["timestamp"] for v in await table.list_versions()]
    old_versions = sum(made < oldest_kept for made in versions)
    fragments = stats["fragment_stats"]["num_small_fragments"]
    unindexed = indices[FTS_INDEX].num_unindexed_rows or 0
    report |= {"rows": rows, "small_fragments": fragments, "unindexed_rows": unindexed, "versions": len(versions)}
    if "vector" in (await table.schema()).names:
        report["vector_index"] = await _vector_index(table, rows, indices.get(VECTOR_INDEX), policy)
    due = (
        unindexed > policy.max_unindexed_rows
        or fragments > policy.max_small_fragments
        or old_versions > policy.max_old_versions
    )
    report["optimized"] = bool(due or force)
    if due or force:
        done = await table.optimize(cleanup_older_than=timedelta(seconds=max(0.001, policy.retention_s)))
        report["fragments_removed"] = done.compaction.fragments_removed
        report["versions_removed"] = done.prune.old_versions_removed
    return report


async def _vector_index(table: Any, rows: int, existing: Any, policy: Policy) -> str:
    if existing is not None:
        return "kept"  # ``optimize`` adds new rows to it and rebalances its partitions
    if rows < policy.vector_index_rows:
        return "exact"
    from lancedb.index import IvfFlat

    partitions = math.ceil(rows / PARTITION_ROWS)
    config = IvfFlat(distance_type="cosine", num_partitions=partitions, sample_rate=32, max_iterations=20)
    await table.create_index("vector", config=config)
    return "built"
