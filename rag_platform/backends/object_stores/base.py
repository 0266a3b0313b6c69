"""What an object store promises: immutable bytes under keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One listed object; ``modified_at`` in seconds since the epoch."""

    key: str
    size: int
    modified_at: float


class ObjectStore(Protocol):
    """Keys are relative POSIX paths. A reader sees an object whole or not at all."""

    def put(self, key: str, data: bytes) -> None:
        """Store ``data``. Overwrites."""
        ...

    def get(self, key: str) -> bytes:
        """Return the bytes. Raises ``KeyError`` when absent, ``DependencyError`` on failure."""
        ...

    def exists(self, key: str) -> bool: ...

    def delete(self, keys: Iterable[str]) -> None:
        """Delete; an absent key is a no-op."""
        ...

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """List every object below ``prefix`` (a folder), complete or an error."""
        ...

    def uri(self, key: str) -> str:
        """Return an address that a person can open."""
        ...
