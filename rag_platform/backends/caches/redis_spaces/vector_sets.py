"""Spaces as vector sets (Redis 8: ``VADD``, ``VSIM``): the server looks up, nothing is copied.

Exact by ``NOQUANT`` (float32 as sent) and ``TRUTH`` (every member is compared, not a walk through the graph).
A vector set knows no expiry: each member's is an attribute that the look-up filters by, and a sorted set
beside it says which members are due.
"""

from __future__ import annotations

import json
import math
import time
from typing import Any

import numpy as np
from redis.exceptions import NoPermissionError, ResponseError

from rag_platform.backends.caches.base import Neighbour, Vector
from rag_platform.backends.caches.redis_servers.pools import UnexpectedReply
from rag_platform.backends.caches.redis_spaces.connection import Connection, is_wrong_type, whole
from rag_platform.backends.caches.table import is_unit

_SWEEP = 64
"""Expired members removed by one ``remember``: more than it adds, so that they cannot pile up."""


class VectorSets:
    """Spaces of one server with vector sets. Call inside ``Connection.operation``."""

    def __init__(self, connection: Connection, prefix: str, max_members: int) -> None:
        self._connection, self._prefix, self._max_members = connection, prefix, max_members

    async def supported(self, space: str) -> bool:
        """Whether the server that has ``space`` knows vector sets."""
        [reply] = await self._connection.send(("VCARD", self._keys(space)[0]))
        if type(reply) not in (ResponseError, NoPermissionError):
            whole(reply)  # a node that is no part of its cluster now says nothing about commands
            return True
        return is_wrong_type(reply)

    async def remember(self, space: str, member: str, vector: Vector, ttl_s: float) -> None:
        if not is_unit(vector):
            return
        vectors, due = self._keys(space)
        now = time.time()
        ttl_ms = max(1, math.ceil(ttl_s * 1000))
        blob = np.asarray(vector, dtype="<f4").tobytes()
        add = ("VADD", vectors, "FP32", blob, member, "NOQUANT", "SETATTR", json.dumps({"e": now + ttl_s}))
        keep = [("PEXPIRE", key, ttl_ms, when) for key in (vectors, due) for when in ("NX", "GT")]
        look = [
            ("VCARD", vectors),
            ("ZCARD", due),
            ("ZRANGEBYSCORE", due, "-inf", repr(now), "LIMIT", 0, _SWEEP),
        ]
        replies = await self._connection.send(add, ("ZADD", due, repr(now + ttl_s), member), *keep, *look, atomic=True)
        if isinstance(replies[0], ResponseError):  # another kind of value, or vectors of another length
            replies = await self._connection.send(
                ("DEL", vectors, due), add, ("ZADD", due, repr(now + ttl_s), member), *keep, *look, atomic=True
            )
            replies = replies[1:]
            whole(replies[0])
        known, listed = whole(replies[-3]), whole(replies[-2])
        if known > listed:  # the list was evicted: nobody would ever remove what is missing from it
            await self._connection.send(("DEL", vectors, due))
            return
        surplus = list(replies[-1])
        if listed - len(surplus) > self._max_members:
            [oldest] = await self._connection.send(("ZRANGE", due, 0, listed - self._max_members - 1))
            surplus = list(oldest)
        if surplus:
            await self._connection.send(*(("VREM", vectors, m) for m in surplus), ("ZREM", due, *surplus), atomic=True)

    async def nearest(self, space: str, vector: Vector, k: int) -> list[Neighbour]:
        if not is_unit(vector):
            return []
        blob = np.asarray(vector, dtype="<f4").tobytes()
        [reply] = await self._connection.send(
            (
                *("VSIM", self._keys(space)[0], "FP32", blob, "WITHSCORES", "COUNT", k),
                *("FILTER", f".e > {time.time()!r}", "TRUTH"),
            )
        )
        if isinstance(reply, ResponseError) and not _is_refusal(reply):
            return []  # another kind of value, or vectors of another length
        return _neighbours(reply)

    async def forget(self, space: str, member: str) -> None:
        vectors, due = self._keys(space)
        await self._connection.send(("VREM", vectors, member), ("ZREM", due, member), atomic=True)

    def _keys(self, space: str) -> tuple[str, str]:
        # Braces: in a cluster what stands between them decides the slot, and both are changed together.
        return f"{self._prefix}v:{{{space}}}", f"{self._prefix}d:{{{space}}}"


def _is_refusal(reply: ResponseError) -> bool:
    return str(reply).startswith(("NOAUTH", "NOPERM", "unknown command", "LOADING", "BUSY"))


def _neighbours(reply: Any) -> list[Neighbour]:
    """Read [member, score, …]; a score is (1 + cosine) / 2."""
    if isinstance(reply, ResponseError):
        raise reply
    if not isinstance(reply, list) or len(reply) % 2:
        raise UnexpectedReply
    return [
        Neighbour(member.decode("ascii"), max(-1.0, min(1.0, 2 * float(score) - 1)))
        for member, score in zip(reply[::2], reply[1::2], strict=True)
    ]
