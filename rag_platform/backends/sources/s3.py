"""Amazon S3, and what speaks its protocol, as a source: ``s3://bucket/prefix``.

A listing is complete or an error. A document's change token is its object's ETag; a fetch asks for exactly that
version, and where the object was replaced meanwhile it returns the new one and says so.

Options of the source: ``storage`` (``endpoint_url``, ``region``, ``profile``, ``anonymous``, ``addressing``,
``requester_pays``), ``acl_from: s3-tags`` with ``tenants`` (see ``object_labels``), ``allow_empty: true`` (a prefix
without any object is an empty source, not a missing one) and ``default_excludes: false``.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rag_platform.backends import s3_access, s3_errors
from rag_platform.backends.object_refused import ObjectRefused
from rag_platform.backends.s3_access import S3Access, Settings
from rag_platform.backends.s3_client import Got, S3Client
from rag_platform.backends.sources import addresses
from rag_platform.backends.sources.api_errors import incomplete
from rag_platform.backends.sources.base import Replacement
from rag_platform.backends.sources.denials import Denials
from rag_platform.backends.sources.object_labels import UNREADABLE, Labels, Overrides, labels_of
from rag_platform.backends.sources.object_tree import Listing, ObjectTree
from rag_platform.errors import DependencyError, DependencyTimeout, DocumentError, IncompleteListing, LimitExceeded
from rag_platform.records import SourceItem, SourceSpec
from rag_platform.settings import Settings as PlatformSettings

T = TypeVar("T")

Rows = Sequence[tuple[str, Mapping[str, Any]]]
"""Uris with the rows of a listing."""

Items = list[SourceItem]

ACL_FROM = ("s3-tags",)


class S3Source:
    """Lists and reads the objects below a prefix.

    Args:
        spec: the source.
        access: login and endpoint.
        labels: reads tenant, access list and tags from object tags; None: they are the source's.
    """

    def __init__(self, spec: SourceSpec, access: S3Access, labels: Labels | None) -> None:
        self.spec = spec
        self._name = f"source:{spec.name}"
        self._client = S3Client(access, self._name)
        self._bucket, root = s3_access.place(spec.uri, f"source {spec.name!r}")
        self._tree = ObjectTree(spec, root)
        self._labels = labels
        self._taggings = asyncio.Semaphore(access.settings.tag_readers)
        self._listing_timeout_s = access.settings.listing_timeout_s
        self._etags: dict[str, str] = {}
        self._denials = Denials()

    def list(self) -> Sequence[SourceItem]:
        """Return every wanted object, sorted by uri.

        Raises:
            IncompleteListing: the service fails, refuses, or has nothing at the prefix.
        """
        try:
            return self._client.run(self._within(self._listed()))
        except ObjectRefused as e:
            raise incomplete(s3_errors.refused(self._name, e, action="s3:ListBucket on the bucket")) from e
        except DependencyError as e:
            raise incomplete(e) from e

    def fetch(self, uri: str, *, max_bytes: int) -> bytes | Replacement | None:
        """Return an object's bytes in the version that was listed; when it was replaced since, the new version
        with its item; None when it has vanished.

        Raises:
            DocumentError: the path leaves the root, or this object is archived or may not be read.
            LimitExceeded: it is larger than ``max_bytes``.
            DependencyError: the service fails, refuses the login, or lets nothing of the source be read.
        """
        for key in self._tree.keys(uri):
            try:
                found = self._client.run(self._fetched(uri, key, max_bytes))
            except ObjectRefused as e:
                if e.what != "absent":
                    raise self._refusal(uri, e) from e
            else:
                self._denials.read_one()
                return found
        return None

    async def _listed(self) -> Sequence[SourceItem]:
        listing, denied = Listing(self._tree), 0
        items: Items = []
        etags: dict[str, str] = {}
        async for wanted in self._wanted(listing):
            for (uri, row), labels in zip(wanted, await self._labels_of(wanted), strict=True):
                if labels is not None:  # else it was deleted while the listing went on
                    denied += labels is UNREADABLE
                    items.append(_item(uri, row, listing.overrides(uri, labels)))
                    etags[uri] = str(row.get("ETag", ""))
        listing.end(self._name)
        if denied and denied == len(items):
            cure = "grant s3:GetObjectTagging on its objects, or leave out acl_from"
            raise IncompleteListing(self._name, f"no object's tags may be read: {cure}", retryable=False)
        self._etags = etags
        return sorted(items, key=lambda item: item.uri)

    async def _wanted(self, listing: Listing) -> AsyncIterator[Rows]:
        async for page in self._client.pages(self._bucket, self._tree.folder):
            yield listing.wanted(_keyed(page))
        if not listing.is_there and self._tree.root:
            async for page in self._client.pages(self._bucket, self._tree.root, size=1):
                yield listing.only(_keyed(page))
                return  # keys come sorted: what follows only begins with it

    async def _labels_of(self, wanted: Rows) -> Sequence[Overrides | None]:
        if self._labels is None:
            return [Overrides()] * len(wanted)
        tasks = [asyncio.ensure_future(self._tagging(str(row["Key"]), self._labels)) for _, row in wanted]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _tagging(self, key: str, labels: Labels) -> Overrides | None:
        async with self._taggings:
            try:
                answer = await self._client.call("get_object_tagging", Bucket=self._bucket, Key=key)
            except ObjectRefused as e:
                if e.what == "absent":
                    return None
                if e.what == "denied":
                    return UNREADABLE
                raise
            if "TagSet" not in answer:
                raise DependencyError(self._name, "no usable answer (tags)")
            return labels.read({str(t["Key"]): str(t["Value"]) for t in answer["TagSet"]})

    async def _fetched(self, uri: str, key: str, max_bytes: int) -> bytes | Replacement | None:
        etag = self._etags.get(uri)
        try:
            return (await self._client.get(self._bucket, key, max_bytes=max_bytes, etag=etag or None)).data
        except ObjectRefused as e:
            if e.what != "replaced":
                raise
        got: Got = await self._client.get(self._bucket, key, max_bytes=max_bytes)
        labels = Overrides() if self._labels is None else await self._tagging(key, self._labels)
        if labels is None:
            return None
        row = {"Size": len(got.data), "ETag": got.etag, "LastModified": got.modified_at}
        return Replacement(_item(uri, row, labels), got.data)

    def _refusal(self, uri: str, refusal: ObjectRefused) -> Exception:
        if refusal.what == "archived":
            cure = "restore it (aws s3api restore-object), or exclude it"
            return DocumentError("its storage class is an archive, which cannot be read at once", cure=cure)
        if refusal.what == "denied" and not self._denials.of_everything(uri, list(self._etags), self._may_read):
            cure = "grant s3:GetObject on it (and kms:Decrypt on its key), or exclude it"
            return DocumentError("reading it is not permitted", cure=cure)
        return s3_errors.refused(self._name, refusal, action="s3:GetObject on its objects (and kms:Decrypt)")

    def _may_read(self, uri: str) -> bool:
        try:
            self._client.run(self._client.get(self._bucket, self._tree.keys(uri)[0], max_bytes=0))
        except LimitExceeded:
            return True  # it answered; the body was not read
        except ObjectRefused as e:
            return e.what != "denied"
        return True

    async def _within(self, work: Coroutine[Any, Any, T]) -> T:
        limit = asyncio.timeout(self._listing_timeout_s)
        try:
            async with limit:
                return await work
        except TimeoutError as e:
            raise DependencyTimeout(self._name, f"not listed within {self._listing_timeout_s:g} s") from e


def _keyed(page: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    return ((str(row["Key"]), int(row.get("Size", 0)), row) for row in page)


def _item(uri: str, row: Mapping[str, Any], labels: Overrides) -> SourceItem:
    size, etag, modified = int(row.get("Size", 0)), str(row.get("ETag", "")).strip('"'), row.get("LastModified")
    at = modified.timestamp() if isinstance(modified, datetime.datetime) else modified
    token = f"{etag}:{size}" if etag else f"{size}:{at!r}"
    return SourceItem(uri, size, token, modified_at=at, tags=labels.tags, acl=labels.acl, tenant=labels.tenant)


def build(spec: SourceSpec, settings: PlatformSettings) -> S3Source:
    """Return the connector. Makes no request.

    Raises:
        ConfigurationError: an option that it cannot use, or an endpoint of the source's own with a private
            address while those are refused.
    """
    where = f"source {spec.name!r}"
    labels = labels_of(spec, *ACL_FROM)
    storage = spec.options.get("storage", {})
    access = s3_access.source_access(settings.vendor(Settings, "RAG_S3_"), storage, where)
    if isinstance(storage, Mapping) and storage.get("endpoint_url"):
        host = urlsplit(str(access.settings.endpoint_url)).hostname or ""
        addresses.check_host(host, allow_private=settings.allow_private_addresses, source=spec.name)
    return S3Source(spec, access, labels)
