"""The nodes of a cluster: each command goes where its key's slot is, also while slots move and nodes fail.

Not redis-py's own cluster client: it begins by reading the description of all commands, sleeps between its
tries, and refuses a call where a pool is used up, all of which a deadline of 150 ms does not allow.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import redis.asyncio
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError, TryAgainError

from rag_platform.backends.caches.redis_servers.address import Place
from rag_platform.backends.caches.redis_servers.pools import Command, Pools, drop_idle, exchange, first

SLOTS = 16384
_REDIRECTIONS = 4
_ASKED_AT_ONCE = 3
_MOVING_S = 0.01
"""Wait for the second key of a slot that is just moving."""


class ClusterServers:
    """A cluster of which some nodes are known."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._nodes: dict[Place, redis.asyncio.Redis] = {}
        self._owners: list[Place | None] = []
        self._stale = True
        self._looking = asyncio.Lock()

    async def send(self, commands: Sequence[Command], *, atomic: bool) -> list[Any]:
        if self._stale:
            await self._learn()
        by_slot: dict[int, list[int]] = defaultdict(list)
        for number, command in enumerate(commands):
            by_slot[_slot(command)].append(number)
        if len(by_slot) > 1 and atomic:
            raise AssertionError("keys of one transaction lie in several slots")
        replies: list[Any] = [None] * len(commands)
        for slot, numbers in by_slot.items():
            answered = await self._in_slot(slot, [commands[n] for n in numbers], atomic)
            for number, reply in zip(numbers, answered, strict=True):
                replies[number] = reply
        return replies

    def distrust(self) -> None:
        self._stale = True

    async def drop_idle(self) -> None:
        await drop_idle(self._nodes.values())

    async def aclose(self) -> None:
        for client in self._nodes.values():
            await client.aclose()

    async def _in_slot(self, slot: int, commands: Sequence[Command], atomic: bool) -> list[Any]:
        """Send commands of one slot, and those of them again that are redirected."""
        place, asking = self._owners[slot], False
        if place is None:
            self._stale = True
            raise ClusterDownError("Hash slot not served")
        replies: list[Any] = [None] * len(commands)
        open_ = list(range(len(commands)))
        for _ in range(_REDIRECTIONS):
            sent = [commands[n] for n in open_]
            try:
                got = await exchange(self._node(place), sent, atomic=atomic, asking=asking)
            except ResponseError as e:
                got = [e] * len(sent)
            for number, reply in zip(open_, got, strict=True):
                replies[number] = reply
            open_ = [n for n in open_ if isinstance(replies[n], (AskError, TryAgainError))]  # Moved is an Ask
            if not open_:
                break
            said = replies[open_[0]]
            if isinstance(said, AskError):
                place = (said.host or place[0], int(said.port))
                asking = not isinstance(said, MovedError)
                if not asking:
                    self._owners[slot] = place
                    self._stale = True  # where one slot has gone others have, too
            else:
                await asyncio.sleep(_MOVING_S)
        if any(isinstance(r, (AskError, TryAgainError, ClusterDownError)) for r in replies):
            self._stale = True
        return replies

    async def _learn(self) -> None:
        async with self._looking:  # one look for all who wait
            if not self._stale:
                return
            known = [p for p in self._nodes if p not in self._pools.address.places]
            some = random.sample(known, min(_ASKED_AT_ONCE, len(known)))
            self._owners = await first(self._described(p) for p in dict.fromkeys((*self._pools.address.places, *some)))
            self._stale = False
            serving = set(self._owners)
            await drop_idle(c for place, c in self._nodes.items() if place not in serving)

    async def _described(self, place: Place) -> list[Place | None]:
        """Return the owner of each slot, as the node at ``place`` sees it."""
        [ranges] = await exchange(self._node(place), [("CLUSTER", "SLOTS")])
        if isinstance(ranges, Exception):
            raise ranges
        owners: list[Place | None] = [None] * SLOTS
        try:
            for start, end, master, *_ in ranges:
                # A node that does not say how it is called is reached as we reached the one that we ask.
                host = (master[0] or b"").decode("ascii")
                owner = (place[0] if host in ("", "?") else host, int(master[1]))
                owners[start : end + 1] = [owner] * (end + 1 - start)
        except (TypeError, ValueError, LookupError, AttributeError) as e:
            raise ConnectionError("the node does not speak as one of a cluster") from e
        if len(owners) != SLOTS or not any(owners):
            raise ConnectionError("the node knows no slots")
        return owners

    def _node(self, place: Place) -> redis.asyncio.Redis:
        client = self._nodes.get(place)
        if client is None:
            client = self._nodes[place] = self._pools.client(place)
        return client


def _slot(command: Command) -> int:
    key = command[3 if command[0] == "EVAL" else 1]
    return key_slot(str(key).encode())
