"""A cache on a Redis server (7 or later), shared by every process that answers questions.

Where the server has vector sets (Redis 8) it looks up the nearest vector itself; elsewhere each process
mirrors the packed vectors. Both are exact.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

from rag_platform.backends.caches.base import Neighbour, Vector
from rag_platform.backends.caches.redis_servers import address
from rag_platform.backends.caches.redis_servers.pools import UnexpectedReply
from rag_platform.backends.caches.redis_spaces.connection import Connection, text, whole
from rag_platform.backends.caches.redis_spaces.packed import PackedSpaces
from rag_platform.backends.caches.redis_spaces.vector_sets import VectorSets
from rag_platform.errors import ConfigurationError
from rag_platform.settings import Settings as PlatformSettings
from rag_platform.settings import setting

NAME = "redis"

_MAGIC = b"rag\x01"


@dataclass(frozen=True)
class Settings:
    """``RAG_REDIS_…``"""

    url: str = setting(
        "redis://127.0.0.1:6379/0",
        "redis://[user:password@]host:port/db, rediss:// (TLS), unix://, redis+sentinel:// or redis+cluster://.",
        secret=True,
    )
    prefix: str = setting("rag:", "Begins every key; different platforms on one server need different ones.")
    timeout_s: float = setting(0.15, "Deadline of one cache operation; a busy event loop may add a third.")
    max_connections: int = setting(32, "Connections of one process to one server.")
    max_members: int = setting(5000, "Questions that one reader group's semantic cache holds.")
    vector_search: str = setting(
        "auto", "auto: the server's vector sets where it has them; on: only these; off: never."
    )

    def validate(self) -> None:
        """Raises ConfigurationError that names the variable."""
        address.parse(self.url)
        if not self.prefix.isascii() or len(self.prefix) > 64 or set(self.prefix) & set("{}"):
            raise ConfigurationError("RAG_REDIS_PREFIX: must be at most 64 ASCII characters, and no braces")
        if self.vector_search not in ("auto", "on", "off"):
            raise ConfigurationError("RAG_REDIS_VECTOR_SEARCH: must be auto, on or off")
        for name, low, high in (("timeout_s", 0.01, 10), ("max_connections", 1, 10_000), ("max_members", 1, 1_000_000)):
            if not low <= getattr(self, name) <= high:
                raise ConfigurationError(f"RAG_REDIS_{name.upper()}: must be between {low} and {high}")


class RedisCache:
    """Values under ``<prefix>k:``, spaces under ``<prefix>v:``, ``d:`` and ``m:``."""

    shared = True

    def __init__(self, own: Settings) -> None:
        self._own = own
        self._connection = Connection(
            address.parse(own.url), timeout_s=own.timeout_s, max_connections=own.max_connections
        )
        self._vector_sets = VectorSets(self._connection, own.prefix, own.max_members)
        self._packed = PackedSpaces(self._connection, own.prefix, own.max_members, catch_up_s=own.timeout_s / 4)
        self._detected: tuple[int, bool] | None = None

    async def get(self, key: str) -> bytes | None:
        name = self._key(key)
        async with self._connection.operation():
            [reply] = await self._connection.send(("GET", name))
            return _unsealed(name, text(reply))

    async def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        name = self._key(key)
        async with self._connection.operation():
            if ttl_s <= 0:
                [reply] = await self._connection.send(("DEL", name))
                whole(reply)
            else:
                await self._store(name, _seal(name, value) + value, ttl_s)

    async def delete(self, *keys: str) -> None:
        if keys:
            async with self._connection.operation():
                # One command each: in a cluster they lie on different nodes.
                for reply in await self._connection.send(*(("DEL", self._key(key)) for key in keys)):
                    whole(reply)

    async def remember(self, space: str, member: str, vector: Vector, *, ttl_s: float) -> None:
        async with self._connection.operation():
            await (await self._spaces(space)).remember(space, member, vector, ttl_s)

    async def nearest(self, space: str, vector: Vector, *, k: int = 1) -> list[Neighbour]:
        async with self._connection.operation():
            return await (await self._spaces(space)).nearest(space, vector, k)

    async def forget(self, space: str, member: str) -> None:
        async with self._connection.operation():
            await (await self._spaces(space)).forget(space, member)

    async def ping(self) -> None:
        """Store a byte: a server that is full or read-only is no cache."""
        async with self._connection.operation():
            await self._store(f"{self._own.prefix}ping", b"1", 1.0)

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later call opens new ones."""
        await self._connection.aclose()

    async def has_vector_search(self) -> bool:
        """Whether the server looks up vectors itself.

        Raises:
            DependencyError: it does not answer.
        """
        async with self._connection.operation():
            return await self._spaces("none") is self._vector_sets

    async def _spaces(self, space: str) -> VectorSets | PackedSpaces:
        """Asked again after every new connection: it may lead to another server than before."""
        if self._own.vector_search != "auto":
            return self._vector_sets if self._own.vector_search == "on" else self._packed
        if self._detected is None or self._detected[0] != self._connection.opened:
            supported = await self._vector_sets.supported(space)
            self._detected = (self._connection.opened, supported)
        return self._vector_sets if self._detected[1] else self._packed

    async def _store(self, name: str, raw: bytes, ttl_s: float) -> None:
        [reply] = await self._connection.send(("SET", name, raw, "PX", max(1, math.ceil(ttl_s * 1000))))
        if isinstance(reply, Exception):
            raise reply
        if reply is not True:  # what redis-py makes of OK
            raise UnexpectedReply

    def _key(self, key: str) -> str:
        return f"{self._own.prefix}k:{key}"


def _seal(name: str, value: bytes) -> bytes:
    """Magic with version, then a checksum over name and value: what is not ours reads as absent, and so does
    the value of another key, which a connection out of step would give."""
    return _MAGIC + zlib.crc32(value, zlib.crc32(name.encode())).to_bytes(4, "big")


def _unsealed(name: str, raw: bytes) -> bytes | None:
    seal, value = raw[:8], raw[8:]
    return value if seal == _seal(name, value) else None


def build(settings: PlatformSettings) -> RedisCache:
    """Build the cache; does no I/O.

    Raises:
        ConfigurationError: a value makes no sense.
    """
    own = settings.vendor(Settings, "RAG_REDIS_")
    own.validate()
    return RedisCache(own)
