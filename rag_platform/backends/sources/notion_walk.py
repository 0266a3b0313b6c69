"""Finds every page and data source that is shared with a Notion connection, or lies below given roots.

Notion's search is "not guaranteed to return everything"; only what is shared directly is. So the search
gives places to start from and the times of the last edits, and a walk through blocks and data sources
finds what lies below. What a page holds is remembered as long as the page is not edited.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rag_platform.backends.sources.notion_api import Json, NotionApi, edited_at, gone
from rag_platform.backends.sources.notion_blocks import Block, load_tree, separate_documents
from rag_platform.backends.sources.notion_memory import Inside, NotionMemory
from rag_platform.errors import DocumentError, IncompleteListing

logger = logging.getLogger(__name__)

SETTLED_S = 180.0
"""After an edit, Notion's clock of minutes cannot tell a second one for so long, with room for its clock."""


@dataclass(slots=True)
class Found:
    """By id: the pages, and the data sources of databases."""

    pages: dict[str, Json] = field(default_factory=dict)
    data_sources: dict[str, Json] = field(default_factory=dict)


class NotionWalk:
    """One walk.

    Args:
        api: reads.
        memory: of earlier walks; what this one learns is added.
        read: is given every page whose blocks were read, with them.
    """

    def __init__(self, api: NotionApi, memory: NotionMemory, read: Callable[[Json, Sequence[Block]], None]) -> None:
        self._api, self._memory, self._read = api, memory, read
        self._found = Found()
        self._hints: dict[str, Json] = {}
        self._pending: list[tuple[str, str]] = []
        self._seen: set[tuple[str, str]] = set()

    def run(self, roots: Sequence[str]) -> Found:
        """Return everything below the roots, or everything that is shared.

        Raises:
            IncompleteListing: a root is not shared, or the end was not reached.
            DependencyError: Notion fails.
        """
        known = [*self._api.search("page"), *self._api.search("data_source")]
        self._hints = {found["id"]: found for found in known}
        if roots:
            for root in roots:
                self._add(self._kind_of_root(root), root)
        else:
            for found in known:
                self._add(found["object"], found["id"])
        visits = {"page": self._page, "database": self._database, "data_source": self._data_source}
        while self._pending:
            kind, id_ = self._pending.pop()
            visits[kind](id_)
        return self._found

    def _add(self, kind: str, id_: str) -> None:
        if (kind, id_) not in self._seen:
            self._seen.add((kind, id_))
            self._pending.append((kind, id_))

    def _kind_of_root(self, root: str) -> str:
        if root in self._hints:
            return str(self._hints[root]["object"])
        for kind in ("page", "database", "data_source"):
            try:
                found = getattr(self._api, kind)(root)
            except DocumentError:  # "is a database, not a page"
                continue
            if found is not None:
                if gone(found):
                    break
                self._hints[root] = found
                return kind
        raise IncompleteListing(self._api.dependency, f"root {root} is not shared with the connection, or in the bin")

    def _page(self, id_: str) -> None:
        page = self._hints.get(id_) or self._api.page(id_)
        if page is None or gone(page):
            return  # went while the walk was under way, or nobody may see it any more
        self._found.pages[id_] = page
        for kind, inner in self._inside(id_, page):
            self._add("page" if kind == "child_page" else "database", inner)

    def _inside(self, id_: str, page: Json) -> Inside:
        edited = str(page["last_edited_time"])
        known = self._memory.inside(id_, edited)
        if known is not None:
            return known
        try:
            tree = load_tree(self._api.children, id_)
        except DocumentError as e:  # fetching it tells; what it held before is still looked at
            logger.warning("%s: the blocks of page %s cannot be read: %s", self._api.dependency, id_, e)
            return self._memory.inside(id_, None) or []
        if tree is None:
            again = self._api.page(id_)
            if again is not None and not gone(again):
                raise IncompleteListing(self._api.dependency, f"the blocks of page {id_} are missing")
            return []
        self._read(page, tree)
        inside = list(separate_documents(tree))
        if self._api.now - edited_at(page) > SETTLED_S:
            self._memory.remember(id_, edited, inside)
        return inside

    def _database(self, id_: str) -> None:
        database = self._hints.get(id_) or self._api.database(id_)
        if database is None or gone(database):
            return  # a view of a database elsewhere reads like one that is not shared
        for data_source in database["data_sources"]:
            self._add("data_source", data_source["id"])

    def _data_source(self, id_: str) -> None:
        data_source = self._hints.get(id_) or self._api.data_source(id_)
        if data_source is None or gone(data_source):
            return
        rows = self._api.rows(id_)
        if rows is None:
            again = self._api.data_source(id_)
            if again is not None and not gone(again):
                raise IncompleteListing(self._api.dependency, f"the rows of data source {id_} are missing")
            return
        self._found.data_sources[id_] = data_source
        for row in rows:
            if row["object"] == "page":
                self._hints[row["id"]] = row  # fresher than the search
                self._add("page", row["id"])
