"""Walks a folder of this machine: regular files, and what symbolic links inside it show.

Links are followed only to what lies inside the root. Every real folder is entered at most once through
links, so loops and nests of links end.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISDIR, S_ISREG

Enters = Callable[[str], bool]
"""Tells of a folder's relative path whether it may hold wanted files."""

_READ_BYTES = 1 << 20
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file. ``path`` is how it is reached, ``target`` where it really is, both relative to
    the root, in the operating system's spelling."""

    path: str
    target: str
    status: os.stat_result


class UnreadableTree(Exception):
    """The walk did not reach its end. ``path`` is the folder or link that stopped it."""

    def __init__(self, path: str, cause: OSError) -> None:
        super().__init__(path)
        self.path = path
        self.cause = cause


@dataclass(slots=True)
class LocalTree:
    """One walk through a root.

    Attributes:
        root: absolute and free of links.
        enters: asked before a folder is opened.
        outside: after the walk, how many links lead out of the root.
    """

    root: Path
    enters: Enters
    outside: int = 0
    _links: list[tuple[str, str]] = field(default_factory=list)

    def files(self) -> Iterator[Found]:
        """Yield the files in real folders. Raises ``UnreadableTree``."""
        yield from self._walk("", "", self._links)

    def linked_files(self) -> Iterator[Found]:
        """Yield the files that the links met by ``files`` show. Raises ``UnreadableTree``."""
        entered = {"."}
        pending = sorted(self._links, reverse=True)
        while pending:
            path, link = pending.pop()
            target = inside(self.root, self.root / link)
            if target is None:
                self.outside += 1
                continue
            try:
                status = (self.root / target).stat()
            except OSError as e:
                if e.errno in _GONE:
                    continue  # dangling or looping
                raise UnreadableTree(path, e) from e
            if S_ISREG(status.st_mode):
                yield Found(path, target, status)
            elif S_ISDIR(status.st_mode) and target not in entered and self.enters(path):
                entered.add(target)
                nested: list[tuple[str, str]] = []
                yield from self._walk(target, path, nested)
                pending.extend(sorted(nested, reverse=True))

    def _walk(self, top: str, shown_as: str, links: list[tuple[str, str]]) -> Iterator[Found]:
        """Yield the files below the real folder ``top``, their paths starting with ``shown_as``, and add
        every link met to ``links`` as (path, real path of the link)."""
        pending = [(top, shown_as)]
        while pending:
            folder, shown = pending.pop()
            try:
                with os.scandir(self.root / folder) as entries:
                    for entry in entries:
                        real = f"{folder}/{entry.name}" if folder else entry.name
                        path = f"{shown}/{entry.name}" if shown else entry.name
                        if entry.is_symlink():
                            links.append((path, real))
                        elif entry.is_dir(follow_symlinks=False):
                            if self.enters(path):
                                pending.append((real, path))
                        elif entry.is_file(follow_symlinks=False):
                            try:
                                status = entry.stat(follow_symlinks=False)
                            except FileNotFoundError:
                                continue  # deleted since the folder was opened: it is not there
                            yield Found(path, real, status)
            except OSError as e:
                raise UnreadableTree(shown, e) from e


def inside(root: Path, path: Path) -> str | None:
    """Return where ``path`` really is, relative to ``root``, or None when that is outside."""
    relative = os.path.relpath(os.path.realpath(path), root)
    return None if relative == os.pardir or relative.startswith(os.pardir + os.sep) else relative


def read_regular(root: Path, parts: tuple[str, ...], max_bytes: int) -> bytes | None:
    """Read up to ``max_bytes + 1`` bytes of a regular file, or return None when it is none.

    Opens folder by folder and follows no link, so one that is swapped in after a check cannot lead out.

    Raises:
        OSError: it cannot be opened or read.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open(root, flags | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            inner = os.open(part, flags | os.O_DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = inner
        # Non-blocking, or opening a named pipe would wait for a writer for ever.
        file = os.open(parts[-1], flags | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    with os.fdopen(file, "rb") as opened:
        status = os.fstat(file)
        if not S_ISREG(status.st_mode):
            return None
        # Not read(max_bytes + 1): that would allocate the whole limit for every small file.
        data = opened.read(min(status.st_size, max_bytes) + 1)
        while len(data) <= max_bytes and (more := opened.read(_READ_BYTES)):
            data += more
        return data
