"""The keys below a prefix of a bucket as documents: which are wanted, and under which uris.

A key is any text. What cannot be a relative path (empty or dot segments) is passed over with a warning, and so
are the empty objects that consoles and Hadoop make so that a folder shows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TypeVar

from rag_platform.backends.sources import names
from rag_platform.backends.sources.globs import DEFAULT_EXCLUDE, PathFilter
from rag_platform.backends.sources.object_labels import Overrides
from rag_platform.errors import DocumentError, IncompleteListing
from rag_platform.records import SourceSpec

R = TypeVar("R")

logger = logging.getLogger(__name__)


class ObjectTree:
    """Where the documents of a source lie.

    Args:
        spec: the source.
        root: the key or prefix in its bucket, without slashes at its ends; empty: the whole bucket.
    """

    def __init__(self, spec: SourceSpec, root: str) -> None:
        self.root = root
        self.folder = f"{root}/" if root else ""
        """What every key begins with, unless the source is one object."""
        self.may_be_empty = not root or bool(spec.options.get("allow_empty"))
        defaults = DEFAULT_EXCLUDE if spec.options.get("default_excludes", True) else ()
        self.filter = PathFilter(spec.include, (*spec.exclude, *defaults))

    def keys(self, uri: str) -> Sequence[str]:
        """Return where a document's object may be, in the order to ask.

        Raises:
            DocumentError: the path leaves the root.
        """
        names.checked_parts(uri)
        key = self.folder + uri
        return [key, self.root] if self.root and uri == self.root.rpartition("/")[2] else [key]


class Listing:
    """One walk through a tree.

    Attributes:
        is_there: something lies at the source's address.
    """

    def __init__(self, tree: ObjectTree) -> None:
        self._tree = tree
        self.is_there = False
        self._unusable, self._closed, self._trouble = 0, 0, ""

    def wanted(self, page: Iterable[tuple[str, int, R]]) -> list[tuple[str, R]]:
        """Return the documents of a page below ``folder``, as (uri, row), from (key, size, row)."""
        found = []
        for key, size, row in page:
            self.is_there = True
            if key.endswith("/") or (size == 0 and key.endswith("_$folder$")):
                continue
            uri = key[len(self._tree.folder) :]
            try:
                names.checked_parts(uri)
            except DocumentError:
                self._unusable += 1
                continue
            if self._tree.filter.wants(uri):
                found.append((uri, row))
        return found

    def only(self, page: Iterable[tuple[str, int, R]]) -> list[tuple[str, R]]:
        """Return the document when the source is one object; ``page`` begins at its key."""
        for key, _, row in page:
            if key == self._tree.root:
                self.is_there = True
                return [(key.rpartition("/")[2], row)]
        return []

    def overrides(self, uri: str, labels: Overrides) -> Overrides:
        """Return ``labels``, having noted what is wrong with them."""
        if labels.trouble is not None:
            self._closed += 1
            self._trouble = self._trouble or f"{uri}: {labels.trouble}"
        return labels

    def end(self, source: str) -> None:
        """Tell what was passed over or closed.

        Raises:
            IncompleteListing: there is nothing at the source's address.
        """
        if not self.is_there and not self._tree.may_be_empty:
            raise IncompleteListing(source, "there is nothing at its URL (option allow_empty: true permits that)")
        if self._unusable:
            logger.warning("%s: %d keys with empty or dot segments were passed over", source, self._unusable)
        if self._closed:
            logger.warning("%s: %d documents are closed to all readers (%s)", source, self._closed, self._trouble)
