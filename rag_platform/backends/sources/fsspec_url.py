"""Other file systems that fsspec knows as a source: ``az://``, ``abfs://``, ``sftp://``, ``memory://`` …

The listing is one complete ``find`` without fsspec's cache. A change token is the strongest mark that
the store offers: ETag, MD5, generation or version; else size and modification time, tied to the root's
address; else one that never repeats, so that the document is read each time.

Options of the source: ``storage`` (keyword arguments of the fsspec file system, such as
``account_name``; secrets come from the environment that the vendor's own SDK reads),
``allow_empty: true`` (a prefix without any object is an empty source, not a missing one) and
``default_excludes: false``.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from rag_platform.backends.sources import addresses, names
from rag_platform.backends.sources.globs import DEFAULT_EXCLUDE, PathFilter
from rag_platform.errors import (
    ConfigurationError,
    DependencyError,
    DocumentError,
    IncompleteListing,
    LimitExceeded,
)
from rag_platform.identity import digest
from rag_platform.records import SourceItem, SourceSpec
from rag_platform.settings import Settings

logger = logging.getLogger(__name__)

_NO_HOST = ("memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "hf")
"""Protocols whose URL names a bucket or nothing, not a host."""
_NOT_A_SOURCE = ("reference", "simplecache", "filecache", "blockcache", "cached", "dask", "generic", "dir", "jlab")
_STRONG = ("ETag", "etag", "md5Hash", "content_md5", "md5", "generation", "version_id", "VersionId", "sha256", "crc32c")
_MODIFIED = ("LastModified", "last_modified", "updated", "modified", "mtime", "created")

# Codes that speak of the credentials or the service as a whole; AccessDenied may be about one object.
_CREDENTIAL_WORDS = ("ExpiredToken", "InvalidAccessKey", "SignatureDoesNotMatch", "InvalidToken", "TokenRefresh")


class FsspecSource:
    """Lists and reads the objects below a URL.

    Args:
        spec: the source.
        filesystem: an fsspec file system without listing cache.
        root: the root's path inside it.
    """

    def __init__(self, spec: SourceSpec, filesystem: Any, root: str) -> None:
        self.spec = spec
        self._fs = filesystem
        self._root = root.rstrip("/")
        self._name = f"source:{spec.name}"
        self._place = digest("place", spec.uri)[:8]
        defaults = DEFAULT_EXCLUDE if spec.options.get("default_excludes", True) else ()
        self._filter = PathFilter(spec.include, (*spec.exclude, *defaults))

    def list(self) -> Sequence[SourceItem]:
        """Return every wanted object, sorted by uri.

        Raises:
            IncompleteListing: the store fails, refuses, or has nothing at the root.
        """
        try:
            found = self._fs.find(self._root, detail=True)
            if not found and not self._is_there():
                raise IncompleteListing(
                    self._name, "there is nothing at its URL (option allow_empty: true permits that)"
                )
        except IncompleteListing:
            raise
        except Exception as e:  # each file system raises its own classes
            raise IncompleteListing(self._name, f"listing failed: {_reason(e)}") from e
        if set(found) == {self._root}:
            return [self._item(self._root.rsplit("/", 1)[-1], found[self._root])]
        items, unusable = [], 0
        for path, info in found.items():
            if info.get("type", "file") != "file" or path.endswith("/"):
                continue
            uri = path[len(self._root) :].removeprefix("/") if self._root else path.removeprefix("/")
            try:
                names.checked_parts(uri)
            except DocumentError:
                unusable += 1
                continue
            if self._filter.wants(uri):
                items.append(self._item(uri, info))
        if unusable:
            logger.warning(
                "%s: %d objects have keys with empty or dot segments and were passed over", self._name, unusable
            )
        return sorted(items, key=lambda item: item.uri)

    def fetch(self, uri: str, *, max_bytes: int) -> bytes | None:
        """Return an object's bytes, or None when it has vanished.

        Raises:
            DocumentError: the path leaves the root or reading this object is denied.
            LimitExceeded: it is larger than ``max_bytes``.
            DependencyError: the store fails or refuses the credentials.
        """
        path = self._path(uri)
        try:
            size = self._fs.info(path).get("size")
            if size is not None and size > max_bytes:
                raise LimitExceeded(f"it has {size} bytes, the limit is {max_bytes}")
            # A range one byte above the limit bounds memory even when the object has grown since;
            # an empty object satisfies no range.
            data: bytes = self._fs.cat_file(path, start=0, end=max_bytes + 1) if size else self._fs.cat_file(path)
        except LimitExceeded:
            raise
        except FileNotFoundError:
            return None
        except PermissionError as e:
            if _about_credentials(e):
                raise DependencyError(self._name, f"reading is refused: {_reason(e)}", retryable=False) from e
            raise DocumentError("reading it is not permitted", cure="give the service read access to it") from e
        except Exception as e:
            raise DependencyError(self._name, f"reading failed: {_reason(e)}") from e
        if len(data) > max_bytes:
            raise LimitExceeded(f"it has more than {max_bytes} bytes")
        return data

    def _path(self, uri: str) -> str:
        names.checked_parts(uri)
        if uri == self._root.rsplit("/", 1)[-1] and self._is_file():
            return self._root
        return f"{self._root}/{uri}"

    def _is_file(self) -> bool:
        try:  # not fs.isfile, which takes every failure for a no
            return bool(self._fs.info(self._root)["type"] == "file")
        except FileNotFoundError:
            return False
        except Exception as e:
            raise DependencyError(self._name, f"reading failed: {_reason(e)}") from e

    def _is_there(self) -> bool:
        return bool(self.spec.options.get("allow_empty")) or bool(self._fs.exists(self._root))

    def _item(self, uri: str, info: Mapping[str, Any]) -> SourceItem:
        size = info.get("size")
        modified = _seconds(next((info[k] for k in _MODIFIED if info.get(k)), None))
        strong = next((str(info[k]) for k in _STRONG if info.get(k)), None)
        if strong is not None:
            token = f"{strong.strip(chr(34))}:{size}"
        elif modified is not None:
            token = f"{self._place}:{size}:{modified!r}"
        else:
            token = f"unknown:{time.time_ns()}"
        return SourceItem(uri, int(size or 0), token, modified_at=modified)


def _seconds(value: Any) -> float | None:
    """Return seconds since the epoch of what file systems give as a time."""
    if isinstance(value, datetime.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).timestamp()
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        try:
            return _seconds(datetime.datetime.fromisoformat(value))
        except ValueError:
            return None
    return None


def _about_credentials(error: BaseException | None) -> bool:
    seen = 0
    while error is not None and seen < 5:
        code = (
            str(getattr(error, "response", {}).get("Error", {}).get("Code", "")) if hasattr(error, "response") else ""
        )
        if any(word in f"{code} {error}" for word in _CREDENTIAL_WORDS):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


def _reason(error: BaseException) -> str:
    """Return a short cause without keys or URLs: vendors put request details into their messages."""
    return type(error).__name__


def build(spec: SourceSpec, settings: Settings) -> FsspecSource:
    """Return the connector. Makes no request.

    Raises:
        ConfigurationError: unknown or unsuitable protocol, missing package, chained URL, or a host
            with a private address while those are refused.
    """
    import fsspec

    where = f"source {spec.name!r}"
    if "::" in spec.uri:
        raise ConfigurationError(f"{where}: chained URLs (a::b) are not supported; point at the place itself")
    url = urlsplit(spec.uri)
    if url.scheme in _NOT_A_SOURCE:
        raise ConfigurationError(f"{where}: {url.scheme}:// is not a place where documents live")
    if url.password:
        raise ConfigurationError(f"{where}: no passwords in URLs; the vendor's SDK reads them from the environment")
    if url.scheme not in _NO_HOST and url.hostname:
        addresses.check_host(url.hostname, allow_private=settings.allow_private_addresses, source=spec.name)
    storage = spec.options.get("storage", {})
    if not isinstance(storage, Mapping):
        raise ConfigurationError(f"{where}: option storage must be a mapping of fsspec keyword arguments")
    arguments = {"use_listings_cache": False, "skip_instance_cache": True, **storage}
    try:
        filesystem, root = fsspec.core.url_to_fs(spec.uri, **arguments)
    except ImportError as e:
        raise ConfigurationError(f"{where}: {url.scheme}:// needs another package: {e}") from e
    except (ValueError, TypeError) as e:
        raise ConfigurationError(f"{where}: fsspec cannot open {url.scheme}:// URLs like this: {e}") from e
    return FsspecSource(spec, filesystem, str(root))
