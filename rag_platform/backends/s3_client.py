"""Requests to S3 with what the SDK lacks: a hard total deadline, one owner of retries, and errors of ours.

The SDK's timeouts are per read, so a dripping server holds a call for ever. Requests therefore run on an event
loop in a thread of its own (fsspec's), where a deadline cancels them wherever they wait; the methods here are
synchronous and safe for threads. The SDK's own retries are off: ``_attempts`` waits, backs off and gives up.
"""

from __future__ import annotations

import asyncio
import functools
import random
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from rag_platform.backends import s3_errors
from rag_platform.backends.object_refused import ObjectRefused
from rag_platform.backends.s3_access import S3Access
from rag_platform.errors import DependencyError, LimitExceeded, RateLimited

T = TypeVar("T")

PAGE = 1000
"""Objects of one page of a listing; the service gives no more."""
CONNECTIONS = 64
FIRST_PAUSE_S = 0.2
"""Before the first retry; doubles up to ``_LONGEST_PAUSE_S``, with jitter."""
_LONGEST_PAUSE_S = 10.0
_ATTEMPTS = 4
"""For failures; a service that asks to slow down is asked again until the deadline."""
_PART = 1 << 20


@dataclass(frozen=True, slots=True)
class Got:
    """An object's bytes, of one version of it."""

    data: bytes
    etag: str
    modified_at: float | None


class S3Client:
    """Makes no request before it is used. Its connections close when it is collected.

    Args:
        access: endpoint and login.
        dependency: its role and name, for errors.
    """

    def __init__(self, access: S3Access, dependency: str) -> None:
        self.dependency = dependency
        self.timeout_s = access.settings.timeout_s
        self._access = access
        self._opened: list[Any] = []  # the SDK's client, once there is one; shared with the finalizer
        self._opening: asyncio.Lock | None = None
        self._closer = weakref.finalize(self, _close, self._opened)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine that calls this client, from a thread that is not the loop's."""
        future = asyncio.run_coroutine_threadsafe(coroutine, _loop())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Return the answer to an operation of the SDK's client, such as ``list_objects_v2``.

        Raises:
            ObjectRefused: the service says no about this object or bucket.
            DependencyError: everything else.
        """

        async def once(client: Any) -> dict[str, Any]:
            answer: dict[str, Any] = await getattr(client, operation)(**self._paying(arguments))
            return answer

        return await self._attempts(once)

    async def get(self, bucket: str, key: str, *, max_bytes: int | None = None, etag: str | None = None) -> Got:
        """Return an object by one request, so that its bytes are those of one version.

        Args:
            max_bytes: larger objects are refused without being read.
            etag: the version that is wanted; another one is an ``ObjectRefused`` ("replaced").

        Raises:
            LimitExceeded: it is larger.
            ObjectRefused, DependencyError: as ``call``.
        """
        arguments: dict[str, Any] = {"Bucket": bucket, "Key": key}
        if etag is not None:
            arguments["IfMatch"] = etag

        async def once(client: Any) -> Got:
            answer = await client.get_object(**self._paying(arguments))
            data = bytearray()
            async with answer["Body"] as body:
                size = answer.get("ContentLength")
                if max_bytes is not None and size is not None and size > max_bytes:
                    raise LimitExceeded(f"it has {size} bytes, the limit is {max_bytes}")
                while part := await body.read(_PART):
                    data += part
                    if max_bytes is not None and len(data) > max_bytes:
                        raise LimitExceeded(f"it has more than {max_bytes} bytes")
            if size is not None and len(data) != size:
                raise OSError("the body ended early")
            modified = answer.get("LastModified")
            return Got(bytes(data), str(answer.get("ETag", "")), modified.timestamp() if modified else None)

        return await self._attempts(once)

    async def pages(self, bucket: str, prefix: str, *, size: int | None = None) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield the objects whose keys begin with ``prefix``, page by page, in the order of their keys.

        Raises:
            ObjectRefused, DependencyError: as ``call``. A page that does not say whether it is the last one is a
                failure: taken as the end, it would read as deletions.
        """
        arguments: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": size or PAGE}
        while True:
            page = await self.call("list_objects_v2", **arguments)
            rows = page.get("Contents", [])
            truncated, token = page.get("IsTruncated"), page.get("NextContinuationToken")
            if truncated is None or (truncated and (not token or token == arguments.get("ContinuationToken"))):
                raise DependencyError(self.dependency, "no usable answer (a listing page without its end)")
            yield rows
            if not truncated:
                return
            arguments["ContinuationToken"] = token

    def _paying(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {**arguments, "RequestPayer": "requester"} if self._access.requester_pays else arguments

    async def _attempts(self, once: Callable[[Any], Awaitable[T]]) -> T:
        deadline = time.monotonic() + self.timeout_s
        attempt = 0
        while True:
            attempt += 1
            failure, cause = await self._attempt(once, deadline)
            if not isinstance(failure, DependencyError):
                return failure
            pause = min(_LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
            pause = max(pause, failure.retry_after_s or 0.0)
            patient = isinstance(failure, RateLimited)
            again = failure.retryable and (patient or attempt < _ATTEMPTS)
            if not again or time.monotonic() + pause >= deadline:
                raise failure from cause
            await asyncio.sleep(pause)

    async def _attempt(
        self, once: Callable[[Any], Awaitable[T]], deadline: float
    ) -> tuple[T | DependencyError, Exception | None]:
        limit = asyncio.timeout(max(0.0, deadline - time.monotonic()))
        try:
            async with limit:
                return await once(await self._client()), None
        except s3_errors.BROKEN as e:
            if limit.expired():
                late = s3_errors.late(self.dependency, self.timeout_s)
                raise late from e
            failure = s3_errors.classified(self.dependency, e)
            if isinstance(failure, ObjectRefused):
                raise failure from e
            return failure, e

    async def _client(self) -> Any:
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if not self._opened:
                self._opened.append(await _open(self._access))
            return self._opened[0]


async def _open(access: S3Access) -> Any:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession
    from botocore import UNSIGNED

    s = access.settings
    options: dict[str, Any] = {
        "connect_timeout": min(10.0, s.timeout_s),
        "read_timeout": s.timeout_s,
        "retries": {"total_max_attempts": 1},
        "max_pool_connections": CONNECTIONS,
        "s3": {"addressing_style": s.addressing},
    }
    if s.anonymous:
        options["signature_version"] = UNSIGNED
    session = AioSession(profile=s.profile)
    # The loop is shared: reading the SDK's description of the service takes 0.2 s and runs beside it.
    session.register_component("data_loader", await asyncio.to_thread(_descriptions))
    context = session.create_client(
        "s3",
        endpoint_url=s.endpoint_url,
        region_name=s.region,
        aws_access_key_id=s.access_key_id,
        aws_secret_access_key=s.secret_access_key,
        aws_session_token=s.session_token,
        verify=None if s.verify_tls else False,
        config=AioConfig(**options),
    )
    return await context.__aenter__()


@functools.cache
def _descriptions() -> Any:
    from botocore.loaders import create_loader

    loader = create_loader()
    for kind in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model("s3", kind)
    return loader


def _loop() -> asyncio.AbstractEventLoop:
    import fsspec.asyn

    loop: asyncio.AbstractEventLoop = fsspec.asyn.get_loop()
    return loop


def _close(opened: list[Any]) -> None:
    """Close the connections. May be called by the garbage collector in any thread, the loop's too."""
    if not opened:
        return
    client, loop = opened.pop(), _loop()
    if not loop.is_running():
        return
    closing = asyncio.run_coroutine_threadsafe(client.__aexit__(None, None, None), loop)
    if threading.current_thread() is threading.main_thread():
        try:
            closing.result(1.0)
        except Exception:  # at worst the process ends with a connection open
            closing.cancel()
