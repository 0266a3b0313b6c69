"""The master that sentinels name: found at first use, and again after every failure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import NoPermissionError, ReadOnlyError

from rag_platform.backends.caches.redis_servers.address import Place
from rag_platform.backends.caches.redis_servers.pools import (
    FAILURES,
    Command,
    Pools,
    UnexpectedReply,
    drop_idle,
    exchange,
    first,
)


class SentinelServers:
    """The master of one service, through any of its sentinels."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._sentinels = [pools.sentinel(place) for place in pools.address.places]
        self._known: dict[Place, redis.asyncio.Redis] = {}
        self._master: Place | None = None
        self._looking = asyncio.Lock()

    async def send(self, commands: Sequence[Command], *, atomic: bool) -> list[Any]:
        master = self._master or await self._find()
        replies = await exchange(self._client(master), commands, atomic=atomic)
        if any(isinstance(r, ReadOnlyError) for r in replies):
            # It was told to follow another one. Its connections are of no use any more.
            self.distrust()
            await self.drop_idle()
        return replies

    def distrust(self) -> None:
        self._master = None

    async def drop_idle(self) -> None:
        await drop_idle(self._known.values())

    async def aclose(self) -> None:
        for client in (*self._sentinels, *self._known.values()):
            await client.aclose()

    async def _find(self) -> Place:
        async with self._looking:  # one look for all who wait
            if self._master is None:
                # All are asked at once, and each answer is tried at once: a sentinel that is frozen, or has not
                # heard of the failover yet, costs nothing.
                found = await first(self._confirmed(s) for s in self._sentinels)
                await drop_idle(c for place, c in self._known.items() if place != found)
                self._master = found
            return self._master

    async def _confirmed(self, sentinel: redis.asyncio.Redis) -> Place:
        """Return the master that this sentinel names, after it has said itself that it is one."""
        service = self._pools.address.service
        [named] = await exchange(sentinel, [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)])
        if isinstance(named, Exception):
            raise named
        if not isinstance(named, list) or len(named) != 2:
            raise ConnectionError("the sentinel knows no such master")
        try:
            place = (named[0].decode("ascii"), int(named[1]))
        except (ValueError, AttributeError, TypeError) as e:
            raise ConnectionError("the sentinel does not speak as one") from e
        [role] = await exchange(self._client(place), [("ROLE",)])
        if isinstance(role, NoPermissionError):
            return place  # an account with few rights: it then shows in the first write
        if isinstance(role, FAILURES):
            raise role
        if not isinstance(role, list) or not role:
            raise UnexpectedReply
        if role[0] != b"master":
            raise ConnectionError("the server named is no master")
        return place

    def _client(self, place: Place) -> redis.asyncio.Redis:
        client = self._known.get(place)
        if client is None:
            client = self._known[place] = self._pools.client(place)
        return client
