"""The default cache: this process's memory, least recently used first out. Thread-safe, never suspends."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from rag_platform.backends.caches.base import Neighbour, Vector
from rag_platform.backends.caches.table import VectorTable
from rag_platform.errors import ConfigurationError
from rag_platform.settings import Settings as PlatformSettings
from rag_platform.settings import setting

NAME = "in_process"

_ENTRY_OVERHEAD = 300
"""Bytes that an entry costs beside its value: key, tuple and the map's node."""


@dataclass(frozen=True)
class Settings:
    """``RAG_IN_PROCESS_…``"""

    max_mb: int = setting(256, "Memory that values, and as much again that vectors, may take, in MiB.")

    def validate(self) -> None:
        if self.max_mb < 1:
            raise ConfigurationError("RAG_IN_PROCESS_MAX_MB: must be at least 1")


class InProcessCache:
    """Values and vector spaces of one process.

    Args:
        max_entries: values.
        max_members: members of one space.
        max_bytes: bytes of all values; and, separately, of all spaces.
    """

    shared = False

    def __init__(self, max_entries: int, max_members: int, max_bytes: int) -> None:
        self._max_entries, self._max_members, self._max_bytes = max_entries, max_members, max_bytes
        self._values: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._value_bytes = 0
        self._spaces: OrderedDict[str, VectorTable] = OrderedDict()
        self._space_bytes = 0
        self._lock = threading.Lock()

    async def get(self, key: str) -> bytes | None:
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            value, expires_at = found
            if expires_at <= time.monotonic():
                self._drop(key)
                return None
            self._values.move_to_end(key)
            return value

    async def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        size = len(value) + _ENTRY_OVERHEAD
        with self._lock:
            self._drop(key)
            if size > self._max_bytes or ttl_s <= 0:
                return
            self._values[key] = (bytes(value), time.monotonic() + ttl_s)
            self._value_bytes += size
            while len(self._values) > self._max_entries or self._value_bytes > self._max_bytes:
                self._drop(next(iter(self._values)))

    async def delete(self, *keys: str) -> None:
        with self._lock:
            for key in keys:
                self._drop(key)

    async def remember(self, space: str, member: str, vector: Vector, *, ttl_s: float) -> None:
        with self._lock:
            table = self._spaces.pop(space, None)
            self._space_bytes -= 0 if table is None else table.nbytes
            if table is None or table.dimensions != len(vector):
                table = VectorTable(len(vector), self._max_members)
            table.put(member, vector, time.monotonic() + ttl_s)
            self._spaces[space] = table
            self._space_bytes += table.nbytes
            while self._space_bytes > self._max_bytes:
                self._space_bytes -= self._spaces.popitem(last=False)[1].nbytes

    async def nearest(self, space: str, vector: Vector, *, k: int = 1) -> list[Neighbour]:
        with self._lock:
            table = self._spaces.get(space)
            if table is None:
                return []
            self._spaces.move_to_end(space)
            return table.nearest(vector, k, time.monotonic())

    async def forget(self, space: str, member: str) -> None:
        with self._lock:
            if space in self._spaces:
                self._spaces[space].remove(member)

    async def ping(self) -> None:
        """Memory is always there."""

    async def aclose(self) -> None:
        """Keeps what it holds: it belongs to the process, not to an event loop."""

    def _drop(self, key: str) -> None:
        found = self._values.pop(key, None)
        if found is not None:
            self._value_bytes -= len(found[0]) + _ENTRY_OVERHEAD


def build(settings: PlatformSettings) -> InProcessCache:
    """Build the cache. An answer and the vector of its question are two entries.

    Raises:
        ConfigurationError: a value makes no sense.
    """
    own = settings.vendor(Settings, "RAG_IN_PROCESS_")
    own.validate()
    return InProcessCache(2 * settings.cache_entries, settings.cache_entries, own.max_mb * 2**20)
