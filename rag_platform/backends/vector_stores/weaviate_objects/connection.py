"""Clients of a Weaviate server, one an event loop, and one hard deadline around every call.

The client's own timeouts do not hold (with the gRPC port closed and ``Timeout(query=1)`` a query took 63 s), and it
connects when it is made: so it is made at the first call, and every call ends with ``asyncio.timeout``.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rag_platform.errors import ConfigurationError, DependencyError, DependencyTimeout

T = TypeVar("T")
NAME = "vector_store:weaviate"
_UNKNOWN = ("could not find class", "class not found", "not found in schema", "not present in schema")


_RECONNECTING = [("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 1000)]
"""gRPC would leave a server that is back alone for up to two minutes."""


class _Once:
    """In place of the client's retries, which cannot be switched off: with the server gone they sleep 1, 2, 4 and 8 s,
    in a question's time. Who calls this store decides whether to ask again."""

    def __init__(self, n: float = 0) -> None:
        pass

    async def awith_exponential_backoff(
        self, count: int, error: str, f: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any
    ) -> Any:
        return await f(*args, **kwargs)


class Connection:
    """
    Args:
        url: ``http(s)://host:port`` of the REST API.
        grpc: ``host:port`` of the gRPC API; empty: the same host, port 50051.
        api_key: None: anonymous.
        timeout_s: deadline of one call.

    Raises:
        ConfigurationError: an address is none.
    """

    def __init__(self, url: str, grpc: str, api_key: str | None, timeout_s: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError("RAG_WEAVIATE_URL: must be like http://weaviate.example:8080")
        self._secure = parts.scheme == "https"
        self._http = parts.hostname, parts.port or (443 if self._secure else 8080)
        host, _, port = (grpc or f"{parts.hostname}:50051").rpartition(":")
        if not host or not port.isdigit():
            raise ConfigurationError("RAG_WEAVIATE_GRPC: must be like weaviate.example:50051")
        self._grpc = host, int(port)
        self._api_key, self._timeout_s = api_key, timeout_s
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()

    async def call(self, work: Callable[[Any], Awaitable[T]], index: str = "", *, timeout_s: float | None = None) -> T:
        """Do one thing with the running loop's client, within the deadline.

        Raises:
            KeyError: ``index`` does not exist.
            DependencyTimeout: it took too long.
            DependencyError: it failed.
        """
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit_s):
                client = await self._client()
                try:
                    return await work(client)
                except Exception as e:
                    if not (index and _is_unknown(e)):
                        raise
                # A server that starts answers before it has read its schema: it then says so of every index (measured).
                if not await self._is_ready():
                    raise DependencyError(NAME, "the server has only just started")
                return await work(client)
        except TimeoutError as e:
            raise DependencyTimeout(NAME, f"no answer within {limit_s:g} s") from e
        except (KeyError, DependencyError, ConfigurationError):
            raise
        except Exception as e:  # the client raises its own classes, grpc's and httpx's
            raise _named(e, index) from e

    async def aclose(self) -> None:
        """Close the running loop's client; a later call opens a new one."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    async def _is_ready(self) -> bool:
        """Not by the client, which prints what goes wrong."""
        import httpx

        scheme, (host, port) = "https" if self._secure else "http", self._http
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=None) as http:  # the caller's deadline holds
                reply = await http.get(f"{scheme}://{host}:{port}/v1/.well-known/ready")
        except httpx.HTTPError:
            return False
        return reply.status_code == 200

    async def _client(self) -> Any:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            fresh = await asyncio.to_thread(self._new)  # the import takes a second, in which others are served
            try:
                await fresh.connect()
            except BaseException:
                await fresh.close()
                raise
            client = self._clients.setdefault(loop, fresh)
            if client is not fresh:
                await fresh.close()
        return client

    def _new(self) -> Any:
        import weaviate
        import weaviate.connect.v4
        from weaviate.classes.init import AdditionalConfig, Auth, Timeout
        from weaviate.config import GrpcConfig

        setattr(weaviate.connect.v4, "_Retry", _Once)  # noqa: B010 - private, and so unknown to its types
        seconds = max(1, round(self._timeout_s))
        return weaviate.use_async_with_custom(
            http_host=self._http[0],
            http_port=self._http[1],
            http_secure=self._secure,
            grpc_host=self._grpc[0],
            grpc_port=self._grpc[1],
            grpc_secure=self._secure,
            auth_credentials=None if self._api_key is None else Auth.api_key(self._api_key),
            additional_config=AdditionalConfig(
                timeout=Timeout(init=seconds, query=seconds, insert=seconds),
                grpc_config=GrpcConfig(channel_options=_RECONNECTING),
            ),
            skip_init_checks=True,
        )


def _is_unknown(error: Exception) -> bool:
    text = str(error).lower()
    return any(words in text for words in _UNKNOWN)


def _named(error: Exception, index: str) -> Exception:
    """Return the error of ours that this one is. Their messages may quote a filter or a text: the class says enough."""
    if index and _is_unknown(error):
        return KeyError(index)
    text = str(error)
    kind = type(error).__name__
    if kind in ("InsufficientPermissionsError", "AuthenticationFailedError") or "401" in text[:400]:
        return DependencyError(NAME, f"refused the API key ({kind}): check RAG_WEAVIATE_API_KEY", retryable=False)
    return DependencyError(NAME, f"{kind} from Weaviate")
