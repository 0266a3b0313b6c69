"""Round trips to a Redis server: one deadline for each operation, every failure a ``DependencyError``."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from rag_platform.backends.caches.patience import LONGEST, answered_within
from rag_platform.errors import DependencyError, DependencyTimeout

DEPENDENCY = "cache:redis"

Command = tuple[Any, ...]

_NONSENSE = (ValueError, TypeError, LookupError, AttributeError, RecursionError, MemoryError, OverflowError)
"""What redis-py raises, beside its own errors, on replies that are no Redis protocol."""


class UnexpectedReply(Exception):
    """A reply of a kind that the command cannot have: the connection may be out of step."""


class Connection:
    """A pool of connections for each event loop.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        timeout_s: deadline of an operation in seconds, however many round trips it takes.
        max_connections: connections of one event loop; further operations wait for a free one.
    """

    def __init__(self, url: str, *, timeout_s: float, max_connections: int) -> None:
        self._url, self._timeout_s, self._max_connections = url, timeout_s, max_connections
        # Connections belong to the event loop that opened them.
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, redis.asyncio.Redis] = (
            weakref.WeakKeyDictionary()
        )
        self.opened = 0
        """Connections opened so far: what was learned about the server holds while this stands still."""

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
            raise DependencyTimeout(DEPENDENCY, f"no answer within {self._timeout_s:.3g} s") from e
        except UnexpectedReply as e:
            await self._drop_idle()
            raise DependencyError(DEPENDENCY, "answered something else than was asked for") from e
        except (RedisError, OSError, EOFError, *_NONSENSE) as e:
            # A reply may repeat what was sent; its first word is a code, such as NOAUTH or OOM.
            code = str(e).split(" ", 1)[0] if isinstance(e, ResponseError) else ""
            detail = f" ({code})" if code.isalpha() and code.isupper() else ""
            raise DependencyError(DEPENDENCY, f"failed: {type(e).__name__}{detail}") from e

    async def send(self, *commands: Command, atomic: bool = False) -> Sequence[Any]:
        """Send commands in one round trip; returns a reply each, an error reply as an exception object.

        Call inside ``operation``. ``atomic`` sends them as one transaction.
        """
        client = self._client()
        if len(commands) == 1:
            try:
                return [await client.execute_command(*commands[0])]  # type: ignore[no-untyped-call]
            except ResponseError as e:
                return [e]
        async with client.pipeline(transaction=atomic) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
        if len(replies) != len(commands):
            raise UnexpectedReply
        return replies

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later call opens new ones."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _client(self) -> redis.asyncio.Redis:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            # By default redis-py tries ten times, five seconds each. Its socket timeout is off because our
            # deadline is there, and because it sends through asyncio.wait_for, which on Python 3.11 can
            # swallow the cancellation by which the deadline ends the call.
            backstop = 2 * LONGEST * self._timeout_s
            pool = redis.asyncio.BlockingConnectionPool.from_url(
                self._url,
                max_connections=self._max_connections,
                timeout=backstop,
                socket_timeout=None,
                socket_connect_timeout=backstop,
                retry=Retry(NoBackoff(), 0),
                protocol=2,  # no greeting: one round trip less for each connection
                driver_info=None,
                redis_connect_func=self._connected,
            )
            client = self._clients[loop] = redis.asyncio.Redis.from_pool(pool)
        return client

    async def _connected(self, connection: AbstractConnection) -> None:
        self.opened += 1
        await connection.on_connect()

    async def _drop_idle(self) -> None:
        client = self._clients.get(asyncio.get_running_loop())
        if client is not None:
            await client.connection_pool.disconnect(inuse_connections=False)


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
