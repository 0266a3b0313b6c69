"""Google Cloud Storage as a source: ``gs://bucket/prefix``.

A listing is complete or an error. A document's change token is its object's generation, which every write moves;
a fetch says which generation it has read. Custom metadata comes with the listing, so permissions from it
(``acl_from: gcs-metadata``, see ``object_labels``) cost no request.

Options of the source: ``storage`` (``endpoint_url``, ``anonymous``, ``user_project``), ``acl_from`` with ``tenants``,
``allow_empty: true`` (a prefix without any object is an empty source, not a missing one) and
``default_excludes: false``.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rag_platform.backends import gcs_access, gcs_client
from rag_platform.backends.gcs_access import GcsAccess
from rag_platform.backends.gcs_client import GcsClient
from rag_platform.backends.object_refused import ObjectRefused
from rag_platform.backends.sources.api_errors import UNEXPECTED, incomplete
from rag_platform.backends.sources.base import Replacement
from rag_platform.backends.sources.denials import Denials
from rag_platform.backends.sources.object_labels import Labels, Overrides, labels_of
from rag_platform.backends.sources.object_tree import Listing, ObjectTree
from rag_platform.errors import DependencyError, DocumentError, LimitExceeded
from rag_platform.records import SourceItem, SourceSpec
from rag_platform.settings import Settings as PlatformSettings

ACL_FROM = ("gcs-metadata",)


class GcsSource:
    """Lists and reads the objects below a prefix.

    Args:
        spec: the source.
        access: login and endpoint.
        labels: reads tenant, access list and tags from custom metadata; None: they are the source's.
        allow_private: let an endpoint of the source's own be a private address.
    """

    def __init__(self, spec: SourceSpec, access: GcsAccess, labels: Labels | None, *, allow_private: bool) -> None:
        self.spec = spec
        self._name = f"source:{spec.name}"
        private = allow_private or not access.own_endpoint
        self._client = GcsClient(access, self._name, writes=False, allow_private=private)
        self._bucket, root = gcs_access.place(spec.uri, f"source {spec.name!r}")
        self._tree = ObjectTree(spec, root)
        self._labels = labels
        self._listed: dict[str, SourceItem] = {}
        self._denials = Denials()

    def list(self) -> Sequence[SourceItem]:
        """Return every wanted object, sorted by uri.

        Raises:
            IncompleteListing: the service fails, refuses, or has nothing at the prefix.
        """
        listing = Listing(self._tree)
        try:
            items = [self._item(uri, row, listing) for uri, row in self._wanted(listing)]
            listing.end(self._name)
        except ObjectRefused as e:
            raise incomplete(gcs_client.refused(self._name, e, action="storage.objects.list on the bucket")) from e
        except DependencyError as e:
            raise incomplete(e) from e
        except UNEXPECTED as e:
            raise incomplete(DependencyError(self._name, "no usable answer (a row of another shape)")) from e
        items.sort(key=lambda item: item.uri)
        self._listed = {item.uri: item for item in items}
        return items

    def fetch(self, uri: str, *, max_bytes: int) -> bytes | Replacement | None:
        """Return an object's bytes; when they are not of the generation that was listed, with the item of theirs;
        None when it has vanished.

        Raises:
            DocumentError: the path leaves the root, or this object may not be read.
            LimitExceeded: it is larger than ``max_bytes``.
            DependencyError: the service fails, refuses the login, or lets nothing of the source be read.
        """
        for name in self._tree.keys(uri):
            try:
                found = self._fetched(uri, name, max_bytes)
            except ObjectRefused as e:
                if e.what != "absent":
                    raise self._refusal(uri, e) from e
            else:
                self._denials.read_one()
                return found
        return None

    def _wanted(self, listing: Listing) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for page in self._client.pages(self._bucket, self._tree.folder):
            yield from listing.wanted(_named(page))
        if not listing.is_there and self._tree.root:
            for page in self._client.pages(self._bucket, self._tree.root, size=1):
                yield from listing.only(_named(page))
                return  # names come sorted: what follows only begins with it

    def _item(self, uri: str, row: Mapping[str, Any], listing: Listing | None = None) -> SourceItem:
        labels = Overrides()
        if self._labels is not None:
            labels = self._labels.read({str(k): str(v) for k, v in (row.get("metadata") or {}).items()})
            labels = labels if listing is None else listing.overrides(uri, labels)
        size = int(row["size"])
        return SourceItem(
            uri,
            size,
            f"{row['generation']}:{size}",
            modified_at=datetime.datetime.fromisoformat(row["timeCreated"]).timestamp(),
            tags=labels.tags,
            acl=labels.acl,
            tenant=labels.tenant,
        )

    def _fetched(self, uri: str, name: str, max_bytes: int) -> bytes | Replacement | None:
        known = self._listed.get(uri)
        if known is not None and known.size > max_bytes:
            raise LimitExceeded(f"it has {known.size} bytes, the limit is {max_bytes}")
        got = self._client.get(self._bucket, name, max_bytes=max_bytes)
        if known is None or not got.generation or known.change_token.startswith(f"{got.generation}:"):
            return got.data
        try:
            row = self._client.stat(self._bucket, name, generation=got.generation)
            return Replacement(self._item(uri, row), got.data)
        except UNEXPECTED as e:
            raise DependencyError(self._name, "no usable answer (an object of another shape)") from e

    def _refusal(self, uri: str, refusal: ObjectRefused) -> Exception:
        if refusal.what == "denied" and not self._denials.of_everything(uri, list(self._listed), self._may_read):
            cure = "grant storage.objects.get on it, or exclude it"
            return DocumentError("reading it is not permitted", cure=cure)
        return gcs_client.refused(self._name, refusal, action="storage.objects.get on its objects")

    def _may_read(self, uri: str) -> bool:
        try:
            self._client.get(self._bucket, self._tree.keys(uri)[0], max_bytes=0)
        except LimitExceeded:
            return True  # it answered; the body was not read
        except ObjectRefused as e:
            return e.what != "denied"
        return True


def _named(page: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    return ((str(row["name"]), int(row["size"]), row) for row in page)


def build(spec: SourceSpec, settings: PlatformSettings) -> GcsSource:
    """Return the connector. Makes no request.

    Raises:
        ConfigurationError: an option that it cannot use, or the package for logins is missing.
    """
    where = f"source {spec.name!r}"
    access = gcs_access.access(settings, where, spec.options.get("storage"))
    labels = labels_of(spec, *ACL_FROM)
    return GcsSource(spec, access, labels, allow_private=settings.allow_private_addresses)
