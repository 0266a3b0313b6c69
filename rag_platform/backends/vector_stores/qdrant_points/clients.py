"""Clients of ``qdrant-client``, one an event loop, and every failure of theirs as an error of ours."""

from __future__ import annotations

import asyncio
import contextlib
import math
import warnings
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rag_platform.backends.retry_after import retry_after_s
from rag_platform.errors import DependencyError, DependencyTimeout, RateLimited, RequestRefused

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

NAME = "vector_store:qdrant"
LOCAL = ":memory:"


class Clients:
    """Makes a client at the first call in a loop. In the in-process mode there is one for all loops: it holds the
    data, and no connection.

    Args:
        url: of a server; ``:memory:`` or a folder for the in-process mode.
        timeout_s: of one request of the client; a deadline has to be set around every call.
    """

    def __init__(self, url: str, api_key: str | None, *, prefer_grpc: bool, grpc_port: int, timeout_s: float) -> None:
        self._url, self._api_key = url, api_key
        self._prefer_grpc, self._grpc_port, self._timeout_s = prefer_grpc, grpc_port, timeout_s
        self.local = "://" not in url
        self._own: AsyncQdrantClient | None = None
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncQdrantClient] = (
            weakref.WeakKeyDictionary()
        )

    async def get(self) -> AsyncQdrantClient:
        """Return the client of the running loop."""
        if self.local:
            if self._own is None:
                self._own = await asyncio.to_thread(self._new)
            return self._own
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            # The import takes a second, in which others must be answered; a gRPC channel belongs to this thread's loop.
            await asyncio.to_thread(_imported)
            client = self._clients.get(loop) or self._clients.setdefault(loop, self._new())
        return client

    async def aclose(self) -> None:
        """Close the connections of the running loop; a later call opens new ones."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()
        if self._own is not None and self._url != LOCAL:  # a folder is released, memory would be lost
            await self._own.close()
            self._own = None

    def _new(self) -> AsyncQdrantClient:
        from qdrant_client import AsyncQdrantClient

        if self._url == LOCAL:
            return AsyncQdrantClient(LOCAL)
        if self.local:
            return AsyncQdrantClient(path=self._url, force_disable_check_same_thread=True)
        with warnings.catch_warnings():
            # Of a key over http: the settings page says when that is wise.
            warnings.simplefilter("ignore", UserWarning)
            return AsyncQdrantClient(
                url=self._url,
                port=None,
                api_key=self._api_key,
                prefer_grpc=self._prefer_grpc,
                grpc_port=self._grpc_port,
                timeout=math.ceil(self._timeout_s),
                check_compatibility=False,  # asks the server while it is constructed, without a deadline
            )


def _imported() -> None:
    import qdrant_client  # noqa: F401


@contextlib.contextmanager
def errors(index: str | None = None) -> Iterator[None]:
    """Raise our errors for the client's. Never quotes an answer: it may repeat the request.

    Raises:
        KeyError: there is no collection ``index``.
    """
    import grpc  # type: ignore[import-untyped]
    import httpx
    from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    try:
        yield
    except ResourceExhaustedResponse as e:
        raise RateLimited(NAME, "too many requests", retry_after_s=float(e.retry_after_s)) from e
    except UnexpectedResponse as e:
        raise _of_status(e, index) from e
    except grpc.RpcError as e:
        raise _of_code(e, index) from e
    except ResponseHandlingException as e:
        if isinstance(e.source, httpx.TimeoutException):
            raise DependencyTimeout(NAME, "no answer in time") from e
        raise DependencyError(NAME, f"cannot be reached ({type(e.source).__name__})") from e
    except (httpx.HTTPError, QdrantException, OSError) as e:
        raise DependencyError(NAME, f"cannot be reached ({type(e).__name__})") from e
    except ValueError as e:  # the in-process mode
        if index is not None and "not found" in str(e):
            raise KeyError(index) from e
        raise DependencyError(NAME, f"answered nonsense ({type(e).__name__})") from e
    except RuntimeError as e:
        if "already accessed" in str(e):
            raise DependencyError(NAME, "another process holds the folder: use a server", retryable=False) from e
        raise


def _of_status(error: Any, index: str | None) -> Exception:
    status = error.status_code
    if status == 404 and index is not None:
        return KeyError(index)
    if status in (401, 403):
        return _not_allowed(f"HTTP {status}")
    if status == 429:
        return RateLimited(NAME, "too many requests", retry_after_s=retry_after_s(error.headers))
    if status in (400, 413, 422):
        return RequestRefused(NAME, f"HTTP {status}")
    retryable = status is None or status >= 500 or status in (408, 409, 425)
    return DependencyError(NAME, f"HTTP {status}", retryable=retryable, retry_after_s=retry_after_s(error.headers))


def _of_code(error: Any, index: str | None) -> Exception:
    import grpc

    code = error.code()
    if code == grpc.StatusCode.NOT_FOUND and index is not None:
        return KeyError(index)
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return _not_allowed(code.name)
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return DependencyTimeout(NAME, "no answer in time")
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return RateLimited(NAME, "too many requests")
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        return RequestRefused(NAME, code.name)
    return DependencyError(NAME, f"{code.name} from its gRPC interface")


def _not_allowed(what: str) -> DependencyError:
    return DependencyError(NAME, f"{what}: check RAG_QDRANT_API_KEY and its rights", retryable=False)
