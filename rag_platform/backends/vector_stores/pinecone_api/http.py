"""Requests to Pinecone's REST interface, with every failure as an error of ours.

Not through the vendor's SDK: its index client retries by itself and sleeps a ``Retry-After`` out inside the call,
with no way to switch that off, so neither a deadline nor the wait that was asked for would reach the caller.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rag_platform.backends.retry_after import retry_after_s
from rag_platform.errors import (
    DependencyError,
    DependencyTimeout,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
)

if TYPE_CHECKING:
    import httpx

NAME = "vector_store:pinecone"
API_VERSION = "2026-07"
_MAX_ANSWER_BYTES = 64 * 2**20


class NotFound(DependencyError):
    """HTTP 404: no such index, host or namespace."""


class AlreadyExists(DependencyError):
    """HTTP 409."""


class Http:
    """One request at a time a call, no second try. Clients belong to the event loop that opened them.

    Args:
        api_key: goes into a header and nowhere else.
        attempt_s: longest time of one request.
    """

    def __init__(self, api_key: str, attempt_s: float) -> None:
        self._api_key, self._attempt_s = api_key, attempt_s
        self._trust: ssl.SSLContext | None = None
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = (
            weakref.WeakKeyDictionary()
        )

    async def send(
        self,
        method: str,
        url: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | bytes | None = None,
    ) -> Mapping[str, Any]:
        """Send one request, with ``body`` as JSON (bytes: it is JSON already), and return the answer's object.

        Raises:
            DependencyError: any failure; ``NotFound`` and ``AlreadyExists`` tell these two apart.
        """
        client = await self._client()
        import httpx  # imported with the client

        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            # A client's own timeouts are per read, and dripped bytes outlive them.
            async with asyncio.timeout(self._attempt_s):
                async with client.stream(method, url, params=query, content=content) as response:
                    raw = await _read(response)
        except TimeoutError as e:
            raise DependencyTimeout(NAME, f"no answer within {self._attempt_s:.3g} s") from e
        except httpx.HTTPError as e:  # refused, reset, cut, not HTTP
            raise DependencyError(NAME, f"cannot be reached ({type(e).__name__})") from e
        except httpx.InvalidURL as e:
            raise DependencyError(NAME, "the address is no URL: check RAG_PINECONE_HOST", retryable=False) from e
        if not response.is_success:
            raise _of_status(response.status_code, response.headers)
        return _parsed(raw)

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later call opens new ones."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    async def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            # In a thread: the import and the certificates take a while, in which others must be answered.
            fresh = await asyncio.to_thread(self._new_client)
            client = self._clients.setdefault(loop, fresh)
            if client is not fresh:
                await fresh.aclose()
        return client

    def _new_client(self) -> httpx.AsyncClient:
        import httpx

        if self._trust is None:  # reading the certificates takes longer than most requests
            self._trust = httpx.create_ssl_context()
        headers = {
            "Api-Key": self._api_key,
            "X-Pinecone-Api-Version": API_VERSION,
            "Content-Type": "application/json",
            "User-Agent": "rag-platform",
        }
        return httpx.AsyncClient(headers=headers, timeout=None, verify=self._trust)


async def _read(response: httpx.Response) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > _MAX_ANSWER_BYTES:
            raise DependencyError(NAME, f"answered more than {_MAX_ANSWER_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


def _of_status(status: int, headers: Mapping[str, str]) -> DependencyError:
    """Never quotes the response: it may repeat the request."""
    if status == 402:
        return QuotaExhausted(NAME, "out of credit or plan: raise the limit at Pinecone")
    if status == 429:
        return RateLimited(NAME, "too many requests", retry_after_s=retry_after_s(headers))
    if status in (401, 403):
        return DependencyError(NAME, f"HTTP {status}: check RAG_PINECONE_API_KEY and its rights", retryable=False)
    if status == 404:
        return NotFound(NAME, "HTTP 404: check RAG_PINECONE_INDEX and RAG_PINECONE_HOST", retryable=False)
    if status == 409:
        return AlreadyExists(NAME, "HTTP 409")
    if status in (400, 413, 414, 422):
        return RequestRefused(NAME, f"HTTP {status}")
    retryable = status >= 500 or status in (408, 425)
    return DependencyError(NAME, f"HTTP {status}", retryable=retryable, retry_after_s=retry_after_s(headers))


def _parsed(raw: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(raw) if raw.strip() else {}
    except (ValueError, RecursionError) as e:
        raise DependencyError(NAME, "answered something that is not JSON") from e
    if not isinstance(answer, dict):
        raise DependencyError(NAME, "answered JSON that is not an object")
    return answer
