"""The one check that every reranker's scores pass."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rag_platform.errors import DependencyError


def checked(scores: Sequence[float], count: int, dependency: str) -> list[float]:
    """Return ``scores`` as floats.

    Raises:
        DependencyError: there are not ``count`` of them, or one is not finite.
    """
    if len(scores) != count:
        raise DependencyError(dependency, f"answered {len(scores)} scores for {count} passages")
    try:
        found = [float(s) for s in scores]
        finite = all(map(math.isfinite, found))
    except OverflowError:  # JSON has integers beyond any float
        finite = False
    if not finite:
        raise DependencyError(dependency, "answered a score that is not finite")
    return found
