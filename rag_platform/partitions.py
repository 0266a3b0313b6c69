"""Content-hash partitions: static hash buckets of the document's identity (docs/decisions/0001)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import dagster as dg

from rag_platform import identity
from rag_platform.settings import Settings

RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
MAX_RANGES = 4
"""More separate ranges than this become one range over all of them: an unchanged bucket costs a
comparison, a run costs a process."""

document_buckets = dg.StaticPartitionsDefinition(identity.buckets(Settings.from_env().partition_hex_digits))


def range_tags(first: str, last: str) -> dict[str, str]:
    """Return the tags of one run over the partitions ``first`` to ``last``."""
    return {RANGE_START_TAG: first, RANGE_END_TAG: last}


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
