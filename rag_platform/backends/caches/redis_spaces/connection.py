"""Round trips to a Redis server: one deadline for each operation, every failure a ``DependencyError``."""

from __future__ import annotations

import asyncio
import ssl
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from rag_platform.backends.caches.patience import answered_within
from rag_platform.backends.caches.redis_servers.address import Address
from rag_platform.backends.caches.redis_servers.cluster import ClusterServers
from rag_platform.backends.caches.redis_servers.pools import Command, OneServer, Pools, Servers, UnexpectedReply
from rag_platform.backends.caches.redis_servers.sentinel import SentinelServers
from rag_platform.errors import DependencyError, DependencyTimeout

DEPENDENCY = "cache:redis"

_NONSENSE = (ValueError, TypeError, LookupError, AttributeError, RecursionError, MemoryError, OverflowError)
"""What redis-py raises, beside its own errors, on replies that are no Redis protocol."""


class Connection:
    """The servers of one cache, with connections of its own for each event loop.

    Args:
        address: where they are.
        timeout_s: deadline of an operation in seconds, however many round trips it takes.
        max_connections: connections of one event loop to one server; further operations wait for a free one.

    Raises:
        ConfigurationError: a file that TLS needs cannot be used.
    """

    def __init__(self, address: Address, *, timeout_s: float, max_connections: int) -> None:
        self._address, self._timeout_s = address, timeout_s
        self._pools = Pools(address, timeout_s=timeout_s, max_connections=max_connections)
        # Connections belong to the event loop that opened them.
        self._servers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Servers] = weakref.WeakKeyDictionary()

    @property
    def opened(self) -> int:
        """Connections opened so far: what was learned about the server holds while this stands still."""
        return self._pools.opened

    @asynccontextmanager
    async def operation(self) -> AsyncIterator[None]:
        """Bound the block by the deadline and map what goes wrong in it.

        Raises:
            DependencyTimeout: not done in time.
            DependencyError: unreachable, refuses us, or does not speak Redis. Without keys and values.
        """
        try:
            async with answered_within(self._timeout_s):
                yield
        except (TimeoutError, RedisTimeoutError) as e:
            self._distrust()
            raise DependencyTimeout(DEPENDENCY, f"no answer within {self._timeout_s:.3g} s") from e
        except UnexpectedReply as e:
            self._distrust()
            await self._loop_servers().drop_idle()
            raise DependencyError(DEPENDENCY, "answered something else than was asked for") from e
        except (RedisError, OSError, EOFError, *_NONSENSE) as e:
            self._distrust()
            raise DependencyError(DEPENDENCY, f"failed: {type(e).__name__}{_detail(e)}") from e

    async def send(self, *commands: Command, atomic: bool = False) -> Sequence[Any]:
        """Send commands in one round trip; returns a reply each, an error reply as an exception object.

        Call inside ``operation``. ``atomic`` sends them as one transaction, of keys in one slot.
        """
        return await self._loop_servers().send(commands, atomic=atomic)

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later call opens new ones."""
        servers = self._servers.pop(asyncio.get_running_loop(), None)
        if servers is not None:
            await servers.aclose()

    def _loop_servers(self) -> Servers:
        loop = asyncio.get_running_loop()
        servers = self._servers.get(loop)
        if servers is None:
            servers = self._servers[loop] = self._new_servers()
        return servers

    def _new_servers(self) -> Servers:
        pools = self._pools
        match self._address.kind:
            case "cluster":
                return ClusterServers(pools)
            case "sentinel":
                return SentinelServers(pools)
            case "socket":
                return OneServer(pools.socket())
            case "server":
                return OneServer(pools.client(self._address.places[0]))

    def _distrust(self) -> None:
        servers = self._servers.get(asyncio.get_running_loop())
        if servers is not None:
            servers.distrust()


def _detail(error: BaseException) -> str:
    """What an operator has to know, of which none was sent by us."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (ResponseError, AuthenticationError)):
            # A reply may repeat what was sent; its first word is a code, such as NOAUTH or OOM.
            code = seen.status_code or str(seen).split(" ", 1)[0]
            return f" ({code})" if code.isalpha() and code.isupper() else ""
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f" (TLS: {seen.verify_message})"
        if isinstance(seen, ssl.SSLError):
            return f" (TLS: {seen.reason or 'failed'})"
        seen = seen.__cause__ or seen.__context__
    return ""


def whole(reply: Any) -> int:
    """Return an integer reply.

    Raises:
        UnexpectedReply: it is none.
    """
    if isinstance(reply, ResponseError):
        raise reply
    if not isinstance(reply, int) or isinstance(reply, bool):
        raise UnexpectedReply
    return reply


def is_wrong_type(reply: Any) -> bool:
    """Whether the key holds another kind of value: not ours, so it reads as absent."""
    return isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")


def text(reply: Any) -> bytes:
    """Return a string reply; absent is empty, as is a key of another type.

    Raises:
        UnexpectedReply: it is none.
    """
    if reply is None or is_wrong_type(reply):
        return b""
    if isinstance(reply, ResponseError):
        raise reply
    if not isinstance(reply, bytes):
        raise UnexpectedReply
    return reply
