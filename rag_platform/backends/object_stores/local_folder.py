"""Objects as files of a folder.

A write goes to a temporary file in the target's own folder and is renamed into place, so a reader
sees an object whole or not at all. ``kill -9`` can leave a temporary file behind; ``list`` shows it as
an object once it is an hour old, so that garbage collection, which deletes what nothing refers to,
removes it. Without ``RAG_LOCAL_FOLDER_FSYNC`` the disk's write cache decides what a power cut leaves.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rag_platform.backends.object_stores import keys
from rag_platform.backends.object_stores.base import StoredObject
from rag_platform.errors import DependencyError
from rag_platform.settings import Settings as PlatformSettings
from rag_platform.settings import setting

_TEMPORARY = ".writing-"
_ABANDONED_AFTER_S = 3600.0
_NAME = "object_store:local_folder"


@dataclass(frozen=True)
class Settings:
    """``RAG_LOCAL_FOLDER_…`` variables."""

    fsync: bool = setting(
        False, "Flush each object to the disk before it counts as stored (slow, survives power cuts)."
    )


class LocalFolderObjectStore:
    """Objects below ``root``, which is created with the first write. Safe for threads and processes."""

    def __init__(self, root: Path, *, fsync: bool = False) -> None:
        self._root = root
        self._fsync = fsync

    def put(self, key: str, data: bytes) -> None:
        target = self._path(key)
        temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
        try:
            try:
                self._write(temporary, data)
            except FileNotFoundError:
                target.parent.mkdir(parents=True, exist_ok=True)
                self._write(temporary, data)
            temporary.replace(target)
            if self._fsync:
                self._flush_folder(target.parent)
        except OSError as e:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise DependencyError(_NAME, f"cannot write: {_reason(e)}") from e

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise KeyError(key) from None
        except OSError as e:
            raise DependencyError(_NAME, f"cannot read: {_reason(e)}") from e

    def exists(self, key: str) -> bool:
        try:
            return self._path(key).is_file()
        except OSError as e:
            raise DependencyError(_NAME, f"cannot look: {_reason(e)}") from e

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            try:
                self._path(key).unlink(missing_ok=True)
            except (NotADirectoryError, IsADirectoryError):
                continue  # a parent of the key is an object, or the key is a parent of objects: absent
            except OSError as e:
                raise DependencyError(_NAME, f"cannot delete: {_reason(e)}") from e

    def list(self, prefix: str) -> Iterator[StoredObject]:
        pending = [keys.checked_prefix(prefix)]
        while pending:
            folder = pending.pop()
            try:
                entries = sorted(os.scandir(self._root / folder), key=lambda entry: entry.name)
            except (FileNotFoundError, NotADirectoryError):
                continue  # nothing was ever stored there
            except OSError as e:
                raise DependencyError(_NAME, f"cannot list: {_reason(e)}") from e
            for entry in entries:
                key = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(key)
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # deleted meanwhile
                except OSError as e:
                    raise DependencyError(_NAME, f"cannot list: {_reason(e)}") from e
                if not entry.name.startswith(_TEMPORARY) or time.time() - status.st_mtime > _ABANDONED_AFTER_S:
                    yield StoredObject(key, status.st_size, status.st_mtime)

    def uri(self, key: str) -> str:
        return self._path(key).as_uri()

    def _path(self, key: str) -> Path:
        folder, _, name = key.rpartition("/")
        if name.startswith(_TEMPORARY):  # an abandoned write, as listed
            keys.checked_prefix(folder)
        else:
            keys.checked(key)
        return self._root / key

    def _write(self, path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data)
            if self._fsync:
                file.flush()
                os.fsync(file.fileno())

    @staticmethod
    def _flush_folder(folder: Path) -> None:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else type(error).__name__


def build(settings: PlatformSettings) -> LocalFolderObjectStore:
    """Return the store at the settings' object store URL, a path or a ``file://`` URL."""
    url = settings.resolved_object_store_url
    path = unquote(urlsplit(url).path) if url.startswith("file://") else url
    vendor = settings.vendor(Settings, "RAG_LOCAL_FOLDER_")
    return LocalFolderObjectStore(Path(path).expanduser().absolute(), fsync=vendor.fsync)
