"""What a cache promises: little. It may forget anything at any time and it decides nothing.

Scope, admission, freshness and what a key holds are the query pipeline's business. A cache never makes a
question slower than ``timeout_s`` of its settings, and after one failure the pipeline stops asking it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Vector = np.ndarray[Any, np.dtype[np.float32]]

MAX_NAME_BYTES = 96
"""Longest key, space or member."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A member of a space and its cosine similarity to what was asked."""

    member: str
    similarity: float


class Cache(Protocol):
    """Asynchronous; construction does no I/O. Every method raises ``DependencyError`` when the cache fails.

    Keys, spaces and members are ASCII strings of at most ``MAX_NAME_BYTES`` (hex digests with a prefix),
    never user text. What somebody else wrote under a key of ours reads as absent.
    """

    @property
    def shared(self) -> bool:
        """Whether other processes see what is stored here."""
        ...

    async def get(self, key: str) -> bytes | None: ...

    async def set(self, key: str, value: bytes, *, ttl_s: float) -> None: ...

    async def delete(self, *keys: str) -> None: ...

    async def remember(self, space: str, member: str, vector: Vector, *, ttl_s: float) -> None:
        """Put ``member`` with its unit vector, float32 (dimensions,), into a space; replaces an older one.

        All vectors of a space have one length: one of another length starts the space anew. What is no
        unit vector is not kept, and has no neighbours. A space keeps a bounded number of members, the newest.
        """
        ...

    async def nearest(self, space: str, vector: Vector, *, k: int = 1) -> list[Neighbour]:
        """Return the ``k`` members of a space most similar to a unit vector, best first; exact over the
        members that the cache still knows. Expired members are not returned; a vector of another length
        than the space's has no neighbours."""
        ...

    async def forget(self, space: str, member: str) -> None: ...

    async def ping(self) -> None:
        """Raise ``DependencyError`` unless something can be stored now."""
        ...

    async def aclose(self) -> None: ...
