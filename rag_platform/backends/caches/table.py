"""Unit vectors of named members in one contiguous matrix: the nearest is one pass over it.

10,000 × 384 take 0.7 ms, against 25 ms for a dict of lists (DESIGN §13).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rag_platform.backends.caches.base import Neighbour, Vector

_FIRST_CAPACITY = 16
_MEMBER_OVERHEAD = 250
"""Bytes that a member costs beside its vector: name, list slot and map entry."""


def is_unit(vector: Vector) -> bool:
    """Whether a vector is finite and of unit length, but for rounding."""
    with np.errstate(all="ignore"):  # bytes that were no vector may be any number
        return math.isclose(float(vector @ vector), 1.0, abs_tol=0.02)


class VectorTable:
    """At most ``max_members`` vectors of one length; the oldest makes room. Not thread-safe.

    Times are seconds of whatever clock the caller uses.
    """

    def __init__(self, dimensions: int, max_members: int) -> None:
        self.dimensions = dimensions
        self._max_members = max_members
        self._matrix = np.empty((min(_FIRST_CAPACITY, max_members), dimensions), dtype=np.float32)
        self._expires = np.empty(len(self._matrix), dtype=np.float64)
        self._born = np.empty(len(self._matrix), dtype=np.int64)
        self._members: list[str] = []
        self._row: dict[str, int] = {}
        self._births = 0
        self._first_expiry = math.inf

    def __len__(self) -> int:
        return len(self._members)

    @property
    def nbytes(self) -> int:
        """Bytes, by capacity: moves only in ``put``."""
        return int(self._matrix.nbytes) + len(self._matrix) * _MEMBER_OVERHEAD

    def put(self, member: str, vector: Vector, expires_at: float) -> None:
        """Add or replace a member; what is not a unit vector with an end to its life removes it."""
        if not is_unit(vector) or not math.isfinite(expires_at):
            self.remove(member)
            return
        row = self._row.get(member)
        if row is None:
            if len(self._members) == self._max_members:
                self._remove_row(int(self._born[: len(self._members)].argmin()))
            row = len(self._members)
            if row == len(self._matrix):
                self._grow()
            self._members.append(member)
            self._row[member] = row
        self._matrix[row] = vector
        self._expires[row] = expires_at
        self._births += 1
        self._born[row] = self._births
        self._first_expiry = min(self._first_expiry, expires_at)

    def remove(self, member: str) -> None:
        """Remove a member; absent is a no-op."""
        row = self._row.get(member)
        if row is not None:
            self._remove_row(row)

    def nearest(self, vector: Vector, k: int, now: float) -> list[Neighbour]:
        """Return the ``k`` most similar members that have not expired, best first."""
        if now >= self._first_expiry:
            self._drop_expired(now)
        count = len(self._members)
        if count == 0 or len(vector) != self.dimensions or not is_unit(vector):
            return []
        # Not ``@``: that takes 0.2 ms on two idle cores, and 13 ms on busy ones, where the threads of the BLAS
        # library wait for each other.
        similarities = np.vecdot(self._matrix[:count], vector)
        if k == 1:
            rows: Any = [int(similarities.argmax())]
        elif k < count:
            rows = np.argpartition(similarities, count - k)[count - k :]
            rows = rows[np.argsort(-similarities[rows], kind="stable")]
        else:
            rows = np.argsort(-similarities, kind="stable")
        # Rounding may carry a product of unit vectors a little beyond one.
        return [Neighbour(self._members[r], max(-1.0, min(1.0, float(similarities[r])))) for r in rows]

    def _drop_expired(self, now: float) -> None:
        for row in np.flatnonzero(self._expires[: len(self._members)] <= now)[::-1]:
            self._remove_row(int(row))
        left = self._expires[: len(self._members)]
        self._first_expiry = float(left.min()) if len(left) else math.inf

    def _remove_row(self, row: int) -> None:
        """The last row moves into the gap."""
        last = len(self._members) - 1
        del self._row[self._members[row]]
        if row != last:
            self._matrix[row], self._expires[row] = self._matrix[last], self._expires[last]
            self._born[row] = self._born[last]
            self._members[row] = self._members[last]
            self._row[self._members[row]] = row
        self._members.pop()

    def _grow(self) -> None:
        capacity = min(2 * len(self._matrix), self._max_members)
        for name in ("_matrix", "_expires", "_born"):
            old = getattr(self, name)
            new = np.empty((capacity, *old.shape[1:]), dtype=old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)
