"""What lies above the pages of one listing, and so which restrictions they inherit."""

from __future__ import annotations

from collections.abc import Iterable

from rag_platform.backends.sources.confluence_acl import NOBODY, Readers
from rag_platform.backends.sources.confluence_api import ConfluenceApi
from rag_platform.backends.sources.confluence_shapes import Ancestor, Content


class PageTree:
    """The pages of one listing; what hangs above them and is in no listing is asked for, once.

    Raises:
        DependencyError: from its methods, when Confluence fails.
    """

    def __init__(self, contents: Iterable[Content], api: ConfluenceApi) -> None:
        self._api = api
        self._nodes = {c.id: Ancestor(c.parent, c.readers, c.title) for c in contents}

    def titles(self, content: Content) -> list[str]:
        """Return the titles from the outermost page to this one."""
        return [node.title for node in reversed(self._upwards(content)) if node.title]

    def levels(self, content: Content) -> list[Readers]:
        """Return the restrictions on this page and on all above it."""
        return [node.readers for node in self._upwards(content) if node.readers is not None]

    def _upwards(self, content: Content) -> list[Ancestor]:
        way, seen = [self._nodes[content.id]], {content.id}
        while (parent := way[-1].parent) is not None and parent[1] not in seen:
            kind, id_ = parent
            seen.add(id_)
            if id_ not in self._nodes:
                # What cannot be seen may be restricted: nobody gets past it.
                self._nodes[id_] = self._api.ancestor(kind, id_) or Ancestor(None, NOBODY, "")
            way.append(self._nodes[id_])
        return way
