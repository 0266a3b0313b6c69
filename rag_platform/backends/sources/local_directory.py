"""A folder of this machine, or one file of it, as a source (a path or a ``file://`` URL).

Only regular files are documents: a pipe, socket or device in the tree is passed over and never
opened. Symbolic links are followed only to what lies inside the root, and what a link shows is listed
once: under its real path when that is wanted too, else under the first link. Links that lead out of
the root or nowhere are passed over.

A change token is ``size:mtime_ns:ctime_ns:inode``. The change time cannot be set by a program, so an
edit that restores size and modification time, or another tree mounted in the same place, still moves
the token; a copy or check-out that moves it without need costs one hash. A file whose change time is so
fresh that a further edit could fall into the same clock tick gets a token that the next listing will
not repeat, so that edit is not missed.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from urllib.parse import unquote, urlsplit

from rag_platform.backends.sources import names
from rag_platform.backends.sources.globs import DEFAULT_EXCLUDE, PathFilter
from rag_platform.backends.sources.local_tree import LocalTree, UnreadableTree, inside, read_regular
from rag_platform.errors import ConfigurationError, DependencyError, DocumentError, IncompleteListing, LimitExceeded
from rag_platform.records import SourceItem, SourceSpec
from rag_platform.settings import Settings

logger = logging.getLogger(__name__)

_FINE_TICK_NS = 50_000_000
"""Longest kernel clock tick (10 ms at 100 Hz) with room to spare."""
_COARSE_TICK_NS = 2_100_000_000
"""File systems that store whole seconds, or every second one (FAT)."""


class LocalDirectorySource:
    """Lists and reads the regular files below a folder.

    Args:
        spec: the source; option ``default_excludes: false`` lists hidden files and leftovers too.
        root: absolute path of the folder, or of the one file that is the source.
    """

    def __init__(self, spec: SourceSpec, root: Path) -> None:
        self.spec = spec
        self._root = root
        self._name = f"source:{spec.name}"
        defaults = DEFAULT_EXCLUDE if spec.options.get("default_excludes", True) else ()
        self._filter = PathFilter(spec.include, (*spec.exclude, *defaults))

    def list(self) -> Sequence[SourceItem]:
        """Return every wanted file, sorted by uri; a single file is listed whatever the globs say.

        Raises:
            IncompleteListing: some folder cannot be read to its end, or the root is missing or is
                replaced meanwhile.
        """
        before = self._root_status()
        if S_ISREG(before.st_mode):
            return [_item(names.encode(self._root.name), before)]
        if not S_ISDIR(before.st_mode):
            raise IncompleteListing(self._name, "its root is neither a folder nor a regular file")
        tree = LocalTree(Path(os.path.realpath(self._root)), lambda folder: self._filter.enters(names.encode(folder)))
        found: dict[str, SourceItem] = {}
        try:
            for file in tree.files():
                uri = names.encode(file.path)
                if self._filter.wants(uri):
                    found[file.target] = _item(uri, file.status)
            for file in sorted(tree.linked_files(), key=lambda file: file.path):
                uri = names.encode(file.path)
                if file.target not in found and self._filter.wants(uri):
                    found[file.target] = _item(uri, file.status)
        except UnreadableTree as e:
            where = repr(names.encode(e.path)) if e.path else "its root"
            raise IncompleteListing(self._name, f"{where} cannot be read: {_reason(e.cause)}") from e
        after = self._root_status()
        if (after.st_dev, after.st_ino) != (before.st_dev, before.st_ino):
            raise IncompleteListing(self._name, "its root was replaced while it was read")
        if tree.outside:
            logger.warning("%s: %d symbolic links lead out of the root and were passed over", self._name, tree.outside)
        return sorted(found.values(), key=lambda item: item.uri)

    def fetch(self, uri: str, *, max_bytes: int) -> bytes | None:
        """Return a file's bytes, or None when it has vanished.

        Raises:
            DocumentError: the path or a link leads out of the root, reading is denied, or it is no
                longer a regular file.
            LimitExceeded: it is larger than ``max_bytes``.
            DependencyError: the file system fails, or the root itself has vanished.
        """
        parts = names.checked_parts(names.decode(uri))
        try:
            root, path = self._locate(parts)
            target = inside(root, path)
            if target is None:
                raise DocumentError("it is a symbolic link that leads out of its source")
            data = read_regular(root, Path(target).parts, max_bytes)
        except FileNotFoundError:
            if not self._root.exists():
                raise DependencyError(self._name, "its root has vanished") from None
            return None
        except OSError as e:
            raise self._mapped(e) from e
        if data is None:
            raise DocumentError("it is no longer a regular file")
        if len(data) > max_bytes:
            raise LimitExceeded(f"it has more than {max_bytes} bytes")
        return data

    def _locate(self, parts: Sequence[str]) -> tuple[Path, Path]:
        """Return the real root folder and the path below it."""
        root = Path(os.path.realpath(self._root))
        if not root.is_file():
            return root, root.joinpath(*parts)
        if list(parts) != [self._root.name]:
            raise FileNotFoundError(errno.ENOENT, "not the file that is the source")
        return root.parent, root

    def _root_status(self) -> os.stat_result:
        try:
            return self._root.stat()
        except OSError as e:
            raise IncompleteListing(self._name, f"its root cannot be read: {_reason(e)}") from e

    def _mapped(self, error: OSError) -> DependencyError | DocumentError:
        if error.errno in (errno.EACCES, errno.EPERM):
            return DocumentError("reading it is not permitted", cure="give the service read access to it")
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR, errno.ENAMETOOLONG):
            return DocumentError("it is not a regular file")
        return DependencyError(self._name, f"a file cannot be read: {_reason(error)}")


def _item(uri: str, status: os.stat_result) -> SourceItem:
    token = f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"
    now = time.time_ns()
    tick = _COARSE_TICK_NS if status.st_ctime_ns % 1_000_000_000 == 0 else _FINE_TICK_NS
    if now - status.st_ctime_ns < tick:
        token += f":fresh{now}"
    return SourceItem(uri, status.st_size, token, modified_at=status.st_mtime_ns / 1e9)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else type(error).__name__


def build(spec: SourceSpec, settings: Settings) -> LocalDirectorySource:
    """Return the connector; a ``~`` is expanded, a relative path is relative to the working folder.

    Raises:
        ConfigurationError: the uri is not a local path.
    """
    path = spec.uri
    if "://" in path:
        url = urlsplit(path)
        if url.scheme not in ("file", "local") or url.netloc not in ("", "localhost"):
            raise ConfigurationError(f"source {spec.name!r}: {path!r} is not a path of this machine")
        path = unquote(url.path)
    return LocalDirectorySource(spec, Path(path).expanduser().absolute())
