"""Objects in Google Cloud Storage: ``gs://bucket/prefix``.

An upload is visible whole or not at all, and a read sees what was written last. Login, endpoint and deadline:
``RAG_GCS_…``.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rag_platform.backends import gcs_access, gcs_client
from rag_platform.backends.gcs_access import GcsAccess
from rag_platform.backends.gcs_client import GcsClient
from rag_platform.backends.object_refused import ObjectRefused
from rag_platform.backends.object_stores import keys
from rag_platform.backends.object_stores.base import StoredObject
from rag_platform.backends.sources.api_errors import UNEXPECTED
from rag_platform.errors import DependencyError
from rag_platform.settings import Settings as PlatformSettings

T = TypeVar("T")

_NAME = "object_store:gcs"
_DELETERS = 8
"""The service takes one deletion a request."""


class GcsObjectStore:
    """Objects below a prefix. Safe for threads.

    Args:
        access: login and endpoint.
        bucket: it exists.
        prefix: without slashes at its ends; may be empty.
    """

    def __init__(self, access: GcsAccess, bucket: str, prefix: str) -> None:
        self._client = GcsClient(access, _NAME, writes=True, allow_private=True)
        self._bucket = bucket
        self._folder = f"{prefix}/" if prefix else ""

    def put(self, key: str, data: bytes) -> None:
        name = self._named(key)
        self._do("storage.objects.create", lambda: self._client.put(self._bucket, name, data))

    def get(self, key: str) -> bytes:
        name = self._named(key)
        try:
            return self._do("storage.objects.get", lambda: self._client.get(self._bucket, name)).data
        except _Absent:
            # Both answer 404; a missing bucket must not read as lost objects.
            self._do("storage.objects.list", lambda: next(self._client.pages(self._bucket, "", size=1), None))
            raise KeyError(key) from None

    def exists(self, key: str) -> bool:
        name = self._named(key)
        try:
            self._do("storage.objects.get", lambda: self._client.stat(self._bucket, name))
        except _Absent:
            return False
        return True

    def delete(self, keys: Iterable[str]) -> None:
        names = [self._named(key) for key in keys]
        if not names:
            return
        with ThreadPoolExecutor(min(_DELETERS, len(names)), thread_name_prefix="delete") as pool:
            for _ in pool.map(self._delete, names):
                pass

    def list(self, prefix: str) -> Iterator[StoredObject]:
        folder = keys.checked_prefix(prefix)
        top = f"{self._folder}{folder}/" if folder else self._folder
        pages = self._client.pages(self._bucket, top)
        while (page := self._do("storage.objects.list", lambda: next(pages, None))) is not None:
            try:
                rows = [
                    (r["name"], int(r["size"]), datetime.datetime.fromisoformat(r["timeCreated"]).timestamp())
                    for r in page
                ]
            except UNEXPECTED as e:
                raise DependencyError(_NAME, "no usable answer (a row of another shape)") from e
            for name, size, at in rows:
                if name != top:
                    yield StoredObject(name[len(self._folder) :], size, at)

    def uri(self, key: str) -> str:
        return f"gs://{self._bucket}/{self._named(key)}"

    def _named(self, key: str) -> str:
        return self._folder + keys.checked(key)

    def _delete(self, name: str) -> None:
        try:
            self._do("storage.objects.delete", lambda: self._client.delete(self._bucket, name))
        except _Absent:
            return

    def _do(self, action: str, request: Callable[[], T]) -> T:
        try:
            return request()
        except ObjectRefused as e:
            if e.what == "absent":
                raise _Absent from e
            raise gcs_client.refused(_NAME, e, action=action) from e


class _Absent(Exception):
    pass


def build(settings: PlatformSettings) -> GcsObjectStore:
    """Return the store at the settings' object store URL. Makes no request.

    Raises:
        ConfigurationError: the URL names no bucket, a ``RAG_GCS_…`` variable makes no sense, or the package for
            logins is missing.
    """
    where = "RAG_OBJECT_STORE_URL"
    bucket, prefix = gcs_access.place(settings.resolved_object_store_url, where)
    return GcsObjectStore(gcs_access.access(settings, where), bucket, prefix)
