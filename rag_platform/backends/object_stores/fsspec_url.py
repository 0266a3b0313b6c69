"""Objects in other stores that fsspec knows: ``az://…``, ``abfs://…``, ``memory://…``.

Object stores make a PUT visible whole or not at all; that is what makes ``put`` atomic here. On file
systems without that property (sftp, ftp …) it is not, so they are refused.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from typing import Any

from rag_platform.backends.object_stores import keys
from rag_platform.backends.object_stores.base import StoredObject
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.settings import Settings as PlatformSettings

ATOMIC = ("az", "abfs", "abfss", "adl", "memory")
_DELETE_BATCH = 1000


class FsspecObjectStore:
    """Objects below ``root`` of an fsspec file system. Safe for threads.

    Args:
        filesystem: without listing cache.
        root: bucket and prefix.
        scheme: for addresses and error messages.
    """

    def __init__(self, filesystem: Any, root: str, scheme: str) -> None:
        self._fs = filesystem
        self._root = root.rstrip("/")
        self._scheme = scheme
        self._name = f"object_store:{scheme}"

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        try:
            self._fs.pipe_file(path, data)
        except Exception as e:  # each file system raises its own classes
            raise self._failed("write", e) from e

    def get(self, key: str) -> bytes:
        path = self._path(key)
        try:
            data: bytes = self._fs.cat_file(path)
        except FileNotFoundError:
            if not self._root_exists():
                raise DependencyError(self._name, "its bucket is not there", retryable=False) from None
            raise KeyError(key) from None
        except Exception as e:
            raise self._failed("read", e) from e
        return data

    def exists(self, key: str) -> bool:
        path = self._path(key)
        try:  # not fs.isfile, which takes every failure for a no
            return bool(self._fs.info(path)["type"] == "file")
        except FileNotFoundError:
            return False
        except Exception as e:
            raise self._failed("look", e) from e

    def delete(self, keys: Iterable[str]) -> None:
        paths = [self._path(key) for key in keys]
        for i in range(0, len(paths), _DELETE_BATCH):
            self._delete(paths[i : i + _DELETE_BATCH])

    def list(self, prefix: str) -> Iterator[StoredObject]:
        folder = keys.checked_prefix(prefix)
        top = f"{self._root}/{folder}" if folder else self._root
        try:
            found = self._fs.find(top, detail=True)
        except FileNotFoundError:
            found = {}
        except Exception as e:
            raise self._failed("list", e) from e
        if not found and not self._root_exists():
            raise DependencyError(self._name, "its bucket is not there", retryable=False)
        for path in sorted(found):
            info = found[path]
            key = path[len(self._root) + 1 :]
            if info.get("type", "file") == "file" and path != top:
                yield StoredObject(key, int(info.get("size") or 0), _seconds(info))

    def uri(self, key: str) -> str:
        return f"{self._scheme}://{self._path(key).lstrip('/')}"

    def _path(self, key: str) -> str:
        return f"{self._root}/{keys.checked(key)}"

    def _delete(self, paths: Any) -> None:
        try:
            if hasattr(self._fs, "_bulk_delete") or self._fs.async_impl:
                self._fs.rm(paths)  # one request for many; absent keys are no error there
                return
        except FileNotFoundError:
            pass  # some of them are absent: one by one
        except Exception as e:
            raise self._failed("delete", e) from e
        for path in paths:
            try:
                self._fs.rm_file(path)
            except FileNotFoundError:
                continue
            except Exception as e:
                raise self._failed("delete", e) from e

    def _root_exists(self) -> bool:
        if self._scheme == "memory":
            return True
        try:
            return bool(self._fs.exists(self._root.lstrip("/").split("/", 1)[0]))
        except Exception as e:
            raise self._failed("look", e) from e

    def _failed(self, what: str, error: Exception) -> DependencyError:
        # Only the class: vendors put request details into their messages.
        refused = isinstance(error, PermissionError)
        return DependencyError(self._name, f"cannot {what}: {type(error).__name__}", retryable=not refused)


def _seconds(info: dict[str, Any]) -> float:
    value = next(
        (info[k] for k in ("LastModified", "last_modified", "updated", "mtime", "created") if info.get(k)), 0.0
    )
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value)
    if isinstance(value, datetime.datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).timestamp()
    return float(value)


def build(settings: PlatformSettings) -> FsspecObjectStore:
    """Return the store at the settings' object store URL. Makes no request.

    Raises:
        ConfigurationError: a protocol without atomic writes, or its package is missing.
    """
    import fsspec

    url = settings.resolved_object_store_url
    scheme = url.split("://", 1)[0]
    if scheme not in ATOMIC:
        raise ConfigurationError(
            f"RAG_OBJECT_STORE_URL: {scheme}:// cannot hold objects; known: s3, gs, {', '.join(ATOMIC)}"
        )
    arguments: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    try:
        filesystem, root = fsspec.core.url_to_fs(url, **arguments)
    except ImportError as e:
        raise ConfigurationError(f"RAG_OBJECT_STORE_URL: {scheme}:// needs another package: {e}") from e
    return FsspecObjectStore(filesystem, str(root), scheme)
