"""Objects in Amazon S3, and what speaks its protocol: ``s3://bucket/prefix``.

A PUT is visible whole or not at all, and S3 reads what was written last. Login, endpoint and deadline: ``RAG_S3_…``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from rag_platform.backends import s3_access, s3_errors
from rag_platform.backends.object_refused import ObjectRefused
from rag_platform.backends.object_stores import keys
from rag_platform.backends.object_stores.base import StoredObject
from rag_platform.backends.s3_access import S3Access, Settings
from rag_platform.backends.s3_client import S3Client
from rag_platform.errors import DependencyError
from rag_platform.settings import Settings as PlatformSettings

T = TypeVar("T")

_DELETE_BATCH = 1000
_NAME = "object_store:s3"


class S3ObjectStore:
    """Objects below a prefix. Safe for threads.

    Args:
        access: login and endpoint.
        bucket: it exists.
        prefix: without slashes at its ends; may be empty.
    """

    def __init__(self, access: S3Access, bucket: str, prefix: str) -> None:
        self._client = S3Client(access, _NAME)
        self._bucket = bucket
        self._folder = f"{prefix}/" if prefix else ""

    def put(self, key: str, data: bytes) -> None:
        self._do("s3:PutObject", self._client.call("put_object", **self._place(key), Body=data))

    def get(self, key: str) -> bytes:
        place = self._place(key)
        try:
            return self._do("s3:GetObject", self._client.get(place["Bucket"], place["Key"])).data
        except _Absent:
            raise KeyError(key) from None

    def exists(self, key: str) -> bool:
        try:
            self._do("s3:ListBucket and s3:GetObject", self._client.call("head_object", **self._place(key)))
        except _Absent:
            return False
        return True

    def delete(self, keys: Iterable[str]) -> None:
        places = [{"Key": self._place(key)["Key"]} for key in keys]
        for i in range(0, len(places), _DELETE_BATCH):
            self._do("s3:DeleteObject", self._deleted(places[i : i + _DELETE_BATCH]))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        folder = keys.checked_prefix(prefix)
        top = f"{self._folder}{folder}/" if folder else self._folder
        pages = self._client.pages(self._bucket, top)
        while (page := self._do("s3:ListBucket", _next(pages))) is not None:
            for row in page:
                if row["Key"] != top:
                    yield StoredObject(row["Key"][len(self._folder) :], row["Size"], row["LastModified"].timestamp())

    def uri(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._place(key)['Key']}"

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._folder + keys.checked(key)}

    async def _deleted(self, places: Sequence[dict[str, str]]) -> None:
        deletion = {"Objects": places, "Quiet": True}
        answer = await self._client.call("delete_objects", Bucket=self._bucket, Delete=deletion)
        codes = {str(e.get("Code")) for e in answer.get("Errors", []) if e.get("Code") != "NoSuchKey"}
        if codes:  # the answer as a whole is 200
            denied = codes == {"AccessDenied"}
            cure = ": grant s3:DeleteObject" if denied else ""
            raise DependencyError(_NAME, f"cannot delete ({', '.join(sorted(codes))}){cure}", retryable=not denied)

    def _do(self, action: str, request: Coroutine[Any, Any, T]) -> T:
        try:
            return self._client.run(request)
        except ObjectRefused as e:
            if e.what == "absent":
                raise _Absent from e
            raise s3_errors.refused(_NAME, e, action=action) from e


class _Absent(Exception):
    pass


async def _next(pages: AsyncIterator[T]) -> T | None:
    return await anext(pages, None)


def build(settings: PlatformSettings) -> S3ObjectStore:
    """Return the store at the settings' object store URL. Makes no request.

    Raises:
        ConfigurationError: the URL names no bucket, or a ``RAG_S3_…`` variable makes no sense.
    """
    where = "RAG_OBJECT_STORE_URL"
    bucket, prefix = s3_access.place(settings.resolved_object_store_url, where)
    access = s3_access.checked(S3Access(settings.vendor(Settings, "RAG_S3_")), where)
    return S3ObjectStore(access, bucket, prefix)
