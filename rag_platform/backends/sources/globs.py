"""Which relative paths of a source are wanted: gitignore-like globs.

``*`` and ``?`` stay inside a folder, ``**`` crosses folders, ``[a-z]`` and ``[!a-z]`` match one
character. As in gitignore, a pattern without a slash matches at any depth (``*.md``), a leading slash
anchors it at the root (``/README.md``), and a trailing slash means everything below (``drafts/``).
Case counts; names are compared in Unicode NFC, so that a pattern typed on one system finds a name
written on another.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

DEFAULT_EXCLUDE: tuple[str, ...] = (
    "**/.*",  # hidden files
    "**/.*/**",  # hidden folders: .git, .svn, .obsidian, .Trash-1000, .venv …
    "**/~$*",  # Office owner files
    "**/.~lock.*#",  # LibreOffice locks
    "**/*~",  # editor backups
    "**/#*#",  # Emacs autosave
    "**/*.swp",
    "**/*.swo",
    "**/*.tmp",
    "**/*.temp",
    "**/*.part",
    "**/*.partial",
    "**/*.crdownload",
    "**/Thumbs.db",
    "**/desktop.ini",
    "**/__MACOSX/**",
    "**/__pycache__/**",
    "**/node_modules/**",
    "**/lost+found/**",
    "**/$RECYCLE.BIN/**",
    "**/System Volume Information/**",
)
"""Left out unless the source says ``options: {default_excludes: false}``: hidden files, editor and
download leftovers, and folders of the operating system or of tools."""


class PathFilter:
    """The include and exclude globs of one source, compiled.

    Args:
        include: a path is wanted when one of these matches …
        exclude: … and none of these does.
    """

    def __init__(self, include: Iterable[str], exclude: Iterable[str]) -> None:
        self._include = _union(include)
        patterns = [_normal(p) for p in exclude]
        self._exclude = _union(patterns)
        # A folder whose every descendant is excluded need not be entered, so a folder that nobody
        # may read (lost+found) does not make the listing incomplete once it is excluded.
        self._prune = _union(p.removesuffix("/**") for p in patterns if p.endswith("/**"))

    def wants(self, uri: str) -> bool:
        """Tell whether the document at this relative path is wanted."""
        name = unicodedata.normalize("NFC", uri)
        return _hit(self._include, name) and not _hit(self._exclude, name)

    def enters(self, folder: str) -> bool:
        """Tell whether a folder may hold wanted documents."""
        return not _hit(self._prune, unicodedata.normalize("NFC", folder))


def matches(uri: str, include: Iterable[str], exclude: Iterable[str]) -> bool:
    """Tell whether a relative path is wanted: some ``include`` matches and no ``exclude`` does."""
    return PathFilter(include, exclude).wants(uri)


def check_pattern(pattern: str) -> None:
    """Raise ``ValueError``, naming the fault, for a pattern that can match nothing."""
    if not pattern or not pattern.strip("/"):
        raise ValueError("it is empty")
    if "\\" in pattern:
        raise ValueError("folders are separated by /, not by a backslash")
    if any(part in (".", "..") for part in pattern.split("/")):
        raise ValueError("it holds a . or .. folder; patterns are relative to the source")
    if "{" in pattern and "," in pattern:
        raise ValueError("braces are not supported; write one pattern for each alternative")
    _union([pattern])


def _normal(pattern: str) -> str:
    """Rewrite the gitignore conveniences into the plain form that starts at the root."""
    pattern = unicodedata.normalize("NFC", pattern)
    if pattern.endswith("/"):
        pattern += "**"
    if "/" not in pattern.removesuffix("/**"):
        pattern = f"**/{pattern}"
    return re.sub(r"(?:\*\*/)+", "**/", pattern.lstrip("/"))


@lru_cache(maxsize=256)
def _compile(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    return re.compile("|".join(f"(?:{_translate(p)})" for p in patterns), re.DOTALL) if patterns else None


def _union(patterns: Iterable[str]) -> re.Pattern[str] | None:
    return _compile(tuple(_normal(p) for p in patterns))


def _hit(pattern: re.Pattern[str] | None, name: str) -> bool:
    return pattern is not None and pattern.fullmatch(name) is not None


def _translate(pattern: str) -> str:
    out: list[str] = []
    i = 0
    while i < len(pattern):
        char = pattern[i]
        if pattern.startswith("**/", i):
            out.append("(?:.*/)?")
            i += 3
        elif pattern.startswith("**", i):
            out.append(".*")
            i += 2
        elif char == "[" and (end := pattern.find("]", i + 2)) > 0:
            body = pattern[i + 1 : end]
            negated = body[0] in "!^"
            chars = re.sub(r"([\\\[\]^&~|])", r"\\\1", body[1:] if negated else body)
            out.append(f"[^/{chars}]" if negated else f"[{chars}]")
            i = end + 1
        else:
            out.append({"*": "[^/]*", "?": "[^/]"}.get(char) or re.escape(char))
            i += 1
    return "".join(out)
