"""Pools of connections to single servers, and one exchange of commands and replies over them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import redis.asyncio
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from rag_platform.backends.caches.patience import LONGEST
from rag_platform.backends.caches.redis_servers.address import Account, Address, Place

Command = tuple[Any, ...]
T = TypeVar("T")

FAILURES = (RedisError, OSError, EOFError)
"""What a server that is away, or refuses us, makes a call raise."""


class UnexpectedReply(Exception):
    """A reply of a kind that the command cannot have: the connection may be out of step."""


class Servers(Protocol):
    """The servers of one cache, as one event loop reaches them. Call inside a deadline."""

    async def send(self, commands: Sequence[Command], *, atomic: bool) -> list[Any]:
        """Return a reply to each command, an error reply as an exception object. ``atomic`` runs them as one
        transaction; their keys are then in one slot."""
        ...

    def distrust(self) -> None:
        """A call failed: look again who serves before the next one."""
        ...

    async def drop_idle(self) -> None:
        """Close the connections that nobody uses now: they may be out of step."""
        ...

    async def aclose(self) -> None: ...


class Pools:
    """Makes clients, each with a pool of its own.

    Args:
        timeout_s: deadline of one operation in seconds; ours comes first, this one is the pool's backstop.
        max_connections: of one client; further calls wait for a free one.

    Raises:
        ConfigurationError: a file that TLS needs cannot be used.
    """

    def __init__(self, address: Address, *, timeout_s: float, max_connections: int) -> None:
        self.address = address
        self._max_connections = max_connections
        self._backstop_s = 2 * LONGEST * timeout_s
        self._context = None if address.tls is None else address.tls.context()
        self.opened = 0
        """Connections opened so far: what was learned about a server holds while this stands still."""

    def client(self, place: Place) -> redis.asyncio.Redis:
        """Return a client of the server at ``place``; connects to nothing."""
        where = {"host": place[0], "port": place[1]}
        return self._client(self.address.account, self.address.db, self._max_connections, where)

    def socket(self) -> redis.asyncio.Redis:
        """Return a client of the server behind the Unix socket."""
        where = {"path": self.address.path}
        return self._client(self.address.account, self.address.db, self._max_connections, where)

    def sentinel(self, place: Place) -> redis.asyncio.Redis:
        """Return a client of a sentinel, which has an account of its own and no databases."""
        return self._client(self.address.sentinel_account, 0, 2, {"host": place[0], "port": place[1]})

    def _client(self, account: Account, db: int, max_connections: int, where: dict[str, Any]) -> redis.asyncio.Redis:
        kind: type[AbstractConnection] = UnixDomainSocketConnection if "path" in where else Connection
        if self._context is not None:
            kind, where = _TlsConnection, where | {"context": self._context}
        # By default redis-py tries ten times, five seconds each. Its socket timeout is off because our
        # deadline is there, and because it sends through asyncio.wait_for, which on Python 3.11 can
        # swallow the cancellation by which the deadline ends the call.
        pool = redis.asyncio.BlockingConnectionPool(
            connection_class=kind,
            max_connections=max_connections,
            timeout=self._backstop_s,
            socket_timeout=None,
            socket_connect_timeout=self._backstop_s,
            retry=Retry(NoBackoff(), 0),
            protocol=2,  # no greeting: one round trip less for each connection
            driver_info=None,
            redis_connect_func=self._connected,
            username=account.username or None,
            password=account.password or None,
            db=db,
            **where,
        )
        return redis.asyncio.Redis.from_pool(pool)

    async def _connected(self, connection: AbstractConnection) -> None:
        self.opened += 1
        if not isinstance(connection, UnixDomainSocketConnection):  # which has already done it
            await connection.on_connect()


class _TlsConnection(SSLConnection):
    """Over a context that all connections share: to build one for each takes 20 ms of every first answer."""

    def __init__(self, *, context: ssl.SSLContext, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ssl_context.context = context


class OneServer:
    """A single server."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def send(self, commands: Sequence[Command], *, atomic: bool) -> list[Any]:
        return await exchange(self._client, commands, atomic=atomic)

    def distrust(self) -> None:
        """There is no other."""

    async def drop_idle(self) -> None:
        await drop_idle([self._client])

    async def aclose(self) -> None:
        await self._client.aclose()


async def exchange(
    client: redis.asyncio.Redis, commands: Sequence[Command], *, atomic: bool = False, asking: bool = False
) -> list[Any]:
    """Send commands to one server in one round trip; returns a reply each, an error reply as an exception object.

    Args:
        asking: say before each that the server shall answer although the slot is still on its way to it.

    Raises:
        ResponseError: a transaction was refused as a whole.
    """
    if len(commands) == 1 and not asking:
        try:
            return [await client.execute_command(*commands[0])]  # type: ignore[no-untyped-call]
        except ResponseError as e:
            return [e]
    if asking and atomic:
        return await _asked_as_one(client, commands)
    sent = [c for command in commands for c in (("ASKING",), command)] if asking else commands
    async with client.pipeline(transaction=atomic) as pipeline:
        for command in sent:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
    if len(replies) != len(sent):
        raise UnexpectedReply
    return replies[1::2] if asking else replies


async def _asked_as_one(client: redis.asyncio.Redis, commands: Sequence[Command]) -> list[Any]:
    """Send a transaction that is allowed to find its keys only half here: redis-py cannot say so before MULTI."""
    sent = [("ASKING",), ("MULTI",), *commands, ("EXEC",)]
    connection = await client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
    try:
        await connection.send_packed_command(connection.pack_commands(sent))
        replies: list[Any] = []
        for _ in sent:
            try:
                replies.append(await connection.read_response())
            except ResponseError as e:
                replies.append(e)
    finally:
        await client.connection_pool.release(connection)
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply
    if not isinstance(replies[-1], list) or len(replies[-1]) != len(commands):
        raise UnexpectedReply
    return replies[-1]


async def first(attempts: Iterable[Coroutine[Any, Any, T]]) -> T:
    """Return the result of the attempt that succeeds first; the others are given up.

    Raises:
        RedisError, OSError, EOFError: none did; of the last one.
    """
    tasks = [asyncio.create_task(a) for a in attempts]
    try:
        error: Exception = ConnectionError("nobody to ask")
        for attempt in asyncio.as_completed(tasks):
            try:
                return await attempt
            except FAILURES as e:
                error = e
        raise error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def drop_idle(clients: Iterable[redis.asyncio.Redis]) -> None:
    """Close the connections of these clients that nobody uses now."""
    for client in clients:
        await client.connection_pool.disconnect(inuse_connections=False)
