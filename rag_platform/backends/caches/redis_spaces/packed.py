"""Spaces on a plain Redis: one string a space, a log of fixed-size records that readers mirror.

A writer appends a record. A reader asks for what lies behind the part that it already has, and compares in
its own memory. The log begins with a random generation: when that changes (the log was trimmed, flushed,
evicted or written anew) the mirror starts again. So a look-up transfers each vector once, not each time
(DESIGN §13: 154 ms to fetch 10,000 vectors for every question).
"""

from __future__ import annotations

import math
import os
import struct
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from redis.exceptions import ResponseError

from rag_platform.backends.caches.base import MAX_NAME_BYTES, Neighbour, Vector
from rag_platform.backends.caches.redis_spaces.connection import Connection, is_wrong_type, text, whole
from rag_platform.backends.caches.table import VectorTable, is_unit

_HEADER = struct.Struct("<8sI16s4x")  # magic with version, dimensions, generation
_MAGIC = b"ragvec\x00\x01"
_PUT, _FORGET = 1, 0

_PAGE_BYTES = 1 << 18
_MIRROR_BYTES = 256 << 20
"""Memory of all mirrors of a process; the least recently used makes room."""

_TRIM = """
local n = redis.call('STRLEN', KEYS[1])
if n > tonumber(ARGV[2]) then
  local kept = redis.call('GETRANGE', KEYS[1], n - tonumber(ARGV[3]), -1)
  redis.call('SET', KEYS[1], ARGV[1] .. kept, 'KEEPTTL')
end
return n
"""


@dataclass(slots=True)
class _Mirror:
    """What this process has read of a log: up to ``offset`` of one generation."""

    generation: bytes
    offset: int
    table: VectorTable


class PackedSpaces:
    """Spaces of one plain server. Call inside ``Connection.operation``; safe in several event loops.

    Args:
        max_members: members that a look-up knows; the log is trimmed at twice as many records.
        catch_up_s: seconds after which a look-up stops to fetch pages: a mirror far behind catches up over
            several look-ups, and knows until then what it has read.
    """

    def __init__(self, connection: Connection, prefix: str, max_members: int, *, catch_up_s: float) -> None:
        self._connection, self._prefix, self._max_members = connection, prefix, max_members
        self._catch_up_s = catch_up_s
        self._mirrors: OrderedDict[str, _Mirror] = OrderedDict()
        self._lock = threading.Lock()

    async def remember(self, space: str, member: str, vector: Vector, ttl_s: float) -> None:
        if is_unit(vector):
            await self._append(space, _PUT, member, vector, ttl_s)

    async def forget(self, space: str, member: str) -> None:
        with self._lock:
            mirror = self._mirrors.get(space)
        if mirror is not None:  # otherwise nobody here can have met the member
            none = np.zeros(mirror.table.dimensions, dtype=np.float32)
            await self._append(space, _FORGET, member, none, 0.0)

    async def nearest(self, space: str, vector: Vector, k: int) -> list[Neighbour]:
        key = self._key(space)
        until = time.monotonic() + self._catch_up_s
        caught_up = False
        while not caught_up and time.monotonic() < until:
            with self._lock:
                mirror = self._mirrors.get(space)
            offset = _HEADER.size if mirror is None else mirror.offset
            head, page = await self._connection.send(
                ("GETRANGE", key, 0, _HEADER.size - 1), ("GETRANGE", key, offset, offset + _PAGE_BYTES - 1)
            )
            caught_up = self._caught_up(space, text(head), offset, text(page))
        with self._lock:
            mirror = self._mirrors.get(space)
            if mirror is None:
                return []
            self._mirrors.move_to_end(space)
            return mirror.table.nearest(vector, k, time.time())

    async def _append(self, space: str, kind: int, member: str, vector: Vector, ttl_s: float) -> None:
        key, dimensions = self._key(space), len(vector)
        row = np.zeros(1, dtype=_record(dimensions))
        row["kind"], row["member"], row["expires"], row["vector"] = (
            kind,
            member.encode("ascii"),
            time.time() + ttl_s,
            vector,
        )
        size, record = row.dtype.itemsize, row.tobytes()
        header = _HEADER.pack(_MAGIC, dimensions, os.urandom(16))
        # A forgotten member must not prolong the life of a space, nor start one.
        ttl_ms = max(1, math.ceil(ttl_s * 1000))
        start = [("SET", key, header, "NX", "PX", ttl_ms)] if kind == _PUT else []
        keep = [("PEXPIRE", key, ttl_ms, "GT")] if kind == _PUT else []
        look = ("GETRANGE", key, 0, _HEADER.size - 1)
        for _ in range(2):
            replies = await self._connection.send(*start, ("APPEND", key, record), *keep, look, atomic=True)
            appended, head = replies[len(start)], replies[-1]
            if not is_wrong_type(appended):
                length = whole(appended)
                known = _header(text(head))
                if known is not None and known[0] == dimensions and (length - _HEADER.size) % size == 0:
                    break
            # Not a log of ours, or of vectors of another length.
            await self._connection.send(("DEL", key))
            if kind == _FORGET:
                return
        else:
            return  # somebody else keeps writing there
        if length > _HEADER.size + 2 * self._max_members * size:
            await self._trim(key, header, size)

    async def _trim(self, key: str, header: bytes, size: int) -> None:
        """Keep the newest ``max_members`` records, under a new generation."""
        limit = _HEADER.size + 2 * self._max_members * size
        [reply] = await self._connection.send(("EVAL", _TRIM, 1, key, header, limit, self._max_members * size))
        if isinstance(reply, ResponseError):  # scripts are not allowed to us
            await self._connection.send(("DEL", key))

    def _caught_up(self, space: str, head: bytes, offset: int, page: bytes) -> bool:
        """Apply a page that was read at ``offset``; returns whether the mirror has all there was."""
        known = _header(head)
        with self._lock:
            mirror = self._mirrors.get(space)
            if known is None:
                self._mirrors.pop(space, None)
                return True
            dimensions, generation = known
            if mirror is None or mirror.generation != generation:
                mirror = _Mirror(generation, _HEADER.size, VectorTable(dimensions, self._max_members))
                self._mirrors[space] = mirror
            if mirror.offset != offset:
                return False  # another generation, or another look-up was faster: ask again from where we are
            record = _record(dimensions)
            whole_records = len(page) // record.itemsize
            _apply(mirror.table, np.frombuffer(page, dtype=record, count=whole_records))
            mirror.offset += whole_records * record.itemsize
            self._mirrors.move_to_end(space)
            while len(self._mirrors) > 1 and sum(m.table.nbytes for m in self._mirrors.values()) > _MIRROR_BYTES:
                self._mirrors.popitem(last=False)
            return len(page) < _PAGE_BYTES

    def _key(self, space: str) -> str:
        return f"{self._prefix}m:{space}"


def _record(dimensions: int) -> np.dtype[Any]:
    return np.dtype(
        [("kind", "u1"), ("member", f"S{MAX_NAME_BYTES}"), ("expires", "<f8"), ("vector", "<f4", (dimensions,))]
    )


def _header(raw: bytes) -> tuple[int, bytes] | None:
    """Return (dimensions, generation), or None when this is no log of ours."""
    if len(raw) != _HEADER.size:
        return None
    magic, dimensions, generation = _HEADER.unpack(raw)
    return (dimensions, generation) if magic == _MAGIC and 0 < dimensions <= 2**16 else None


def _apply(table: VectorTable, rows: np.ndarray[Any, Any]) -> None:
    for kind, name, expires, vector in rows:
        member = bytes(name).decode("ascii", "replace")
        if kind == _PUT:
            table.put(member, vector, float(expires))
        else:
            table.remove(member)
