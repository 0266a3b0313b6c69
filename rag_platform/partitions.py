"""Content-hash partitions: static hash buckets of the document's identity (docs/decisions/0001)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import dagster as dg

from rag_platform import identity
from rag_platform.settings import Settings

RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
MAX_RANGES = 4
"""More separate ranges than this become one range over all of them: an unchanged bucket costs a
comparison, a run costs a process."""

_settings = Settings.from_env()
document_buckets = dg.StaticPartitionsDefinition(identity.buckets(_settings.partition_hex_digits))

backfill_policy = (
    dg.BackfillPolicy.multi_run(_settings.buckets_per_run)
    if _settings.buckets_per_run
    else dg.BackfillPolicy.single_run()
)
"""How a backfill started in the UI is cut into runs: as the sensor's work is."""


def range_tags(first: str, last: str) -> dict[str, str]:
    """Return the tags of one run over the partitions ``first`` to ``last``."""
    return {RANGE_START_TAG: first, RANGE_END_TAG: last}


def all_ranges() -> list[tuple[str, str]]:
    """Return the ranges of the runs that together cover every bucket."""
    keys = document_buckets.get_partition_keys()
    return ranges_to_run(keys, keys, Settings.from_env().buckets_per_run)


def ranges_to_run(buckets: Iterable[str], universe: Sequence[str], per_run: int = 0) -> list[tuple[str, str]]:
    """Return the ranges of the runs that cover ``buckets``.

    Args:
        universe: every bucket, in order.
        per_run: at most so many buckets in one run: one for each machine. 0: few runs, for one machine.
    """
    if per_run:
        return _blocks(set(buckets), universe, per_run)
    return contiguous_ranges(buckets, universe)


def _blocks(buckets: Collection[str], universe: Sequence[str], size: int) -> list[tuple[str, str]]:
    """Blocks are always cut at the same places: two runs have all their buckets in common, or none."""
    blocks = (universe[i : i + size] for i in range(0, len(universe), size))
    return [(block[0], block[-1]) for block in blocks if not set(block).isdisjoint(buckets)]


def contiguous_ranges(buckets: Iterable[str], universe: Sequence[str]) -> list[tuple[str, str]]:
    """Cover ``buckets`` by at most ``MAX_RANGES`` contiguous ranges of ``universe``."""
    position = {name: number for number, name in enumerate(universe)}
    numbers = sorted({position[b] for b in buckets})
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    if len(ranges) > MAX_RANGES:
        ranges = [[numbers[0], numbers[-1]]]
    return [(universe[a], universe[b]) for a, b in ranges]
