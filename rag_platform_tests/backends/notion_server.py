"""A double of Notion that replays the documented shapes of its interface (version 2025-09-03).

Search, pages, databases, data sources with their rows, blocks, property items; cursors; errors with
``code`` and ``message``. What is in the bin is found by its id and by no listing, as with Notion.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from rag_platform_tests.backends.api_double import ApiDouble, Asked, Reply

TOKEN = "ntn_secret"
Json = dict[str, Any]


def text(content: str, **annotations: bool) -> list[Json]:
    """Return rich text of one span."""
    return [{"type": "text", "plain_text": content, "href": None, "annotations": annotations}]


def block(kind: str, words: str | None = None, *, children: Sequence[Json] = (), **data: Any) -> Json:
    """Return a block, with those inside it under ``children`` (which the interface gives out apart)."""
    own = {**({"rich_text": text(words)} if words is not None else {}), **data}
    found = {"object": "block", "id": str(uuid.uuid4()), "type": kind, kind: own, "has_children": bool(children)}
    return {**found, "children": list(children)}


class NotionDouble(ApiDouble):
    """``pages``, ``databases`` and ``data_sources`` by id; ``blocks`` by the id of what they lie in.

    Attributes:
        searchable: what the search knows (all by default).
        limit: results on one page at most, however many were asked for.
    """

    def __init__(self) -> None:
        self.reset_state()
        super().__init__()

    def reset_state(self) -> None:
        self.pages: dict[str, Json] = {}
        self.databases: dict[str, Json] = {}
        self.data_sources: dict[str, Json] = {}
        self.blocks: dict[str, list[Json]] = {}
        self.property_values: dict[tuple[str, str], list[Json]] = {}
        self.searchable: Callable[[Json], bool] = lambda found: True
        self.limit = 100
        self.token = TOKEN
        self._number = 0

    def reset(self) -> None:
        self.forget()
        self.reset_state()

    # ── writing ──
    def new_id(self) -> str:
        self._number += 1
        return f"{self._number:08x}-0000-4000-8000-{self._number:012x}"

    def add_page(
        self, title: str, blocks: Sequence[Json] = (), *, parent: Json | None = None, **properties: Any
    ) -> str:
        id_ = self.new_id()
        parent = parent or {"type": "workspace", "workspace": True}
        self.pages[id_] = {
            "object": "page", "id": id_, "last_edited_time": "2024-03-01T10:00:00.000Z", "parent": parent,
            "in_trash": False, "archived": False, "url": f"https://www.notion.so/{id_.replace('-', '')}",
            "properties": {"Name": {"id": "title", "type": "title", "title": text(title)}, **properties},
        }  # fmt: skip
        self.set_blocks(id_, blocks)
        if parent["type"] == "page_id":
            child = {**block("child_page", title=title), "id": id_}
            self.blocks[parent["page_id"]].append(child)
        return id_

    def add_database(self, title: str, *, in_page: str | None = None) -> tuple[str, str]:
        """Add a database with one data source; return their ids."""
        id_, source = self.new_id(), self.new_id()
        self.databases[id_] = {
            "object": "database", "id": id_, "title": text(title), "in_trash": False,
            "data_sources": [{"id": source, "name": title}], "last_edited_time": "2024-03-01T10:00:00.000Z",
        }  # fmt: skip
        self.data_sources[source] = {
            "object": "data_source", "id": source, "title": text(title), "description": text(f"About {title}."),
            "in_trash": False, "last_edited_time": "2024-03-01T10:00:00.000Z",
            "parent": {"type": "database_id", "database_id": id_},
            "properties": {
                "Name": {"id": "title", "type": "title", "title": {}},
                "State": {"id": "s", "type": "status", "status": {"options": [{"name": "Open"}, {"name": "Done"}]}},
            },
        }  # fmt: skip
        if in_page is not None:
            self.blocks[in_page].append({**block("child_database", title=title), "id": id_})
        return id_, source

    def set_blocks(self, id_: str, blocks: Sequence[Json]) -> None:
        self.blocks[id_] = []
        for given in blocks:
            self.blocks[id_].append({k: v for k, v in given.items() if k != "children"})
            if given["children"]:
                self.set_blocks(given["id"], given["children"])

    def edit(self, id_: str, blocks: Sequence[Json], minute: str) -> None:
        """Replace a page's blocks; ``minute`` is the time that Notion would give (``2024-03-01T10:01``)."""
        self.set_blocks(id_, blocks)
        self.pages[id_]["last_edited_time"] = f"{minute}:00.000Z"

    # ── answering ──
    def answer(self, asked: Asked) -> Reply:
        if asked.headers.get("authorization") != f"Bearer {self.token}":
            return _error(401, "unauthorized", "API token is invalid.")
        if asked.headers.get("notion-version") != "2025-09-03":
            return _error(400, "missing_version", "Notion-Version header failed validation")
        found = self._found(asked, [part for part in asked.path.split("/") if part][1:])
        return found or _error(404, "object_not_found", "Could not find it. Make sure it is shared.")

    def _found(self, asked: Asked, parts: list[str]) -> Reply | None:
        match parts:
            case ["search"]:
                kind = asked.body["filter"]["value"]
                known = [*self.pages.values(), *self.data_sources.values()]
                return self._list(
                    asked, [k for k in known if k["object"] == kind and self._live(k) and self.searchable(k)]
                )
            case ["pages", id_, "properties", name]:
                return self._list(asked, self.property_values[id_, name])
            case ["pages", id_]:
                if id_ in self.databases:
                    return _error(400, "validation_error", "Provided ID is a database, not a page.")
                return self._object(self.pages.get(id_))
            case ["databases", id_]:
                return self._object(self.databases.get(id_))
            case ["data_sources", id_]:
                return self._object(self.data_sources.get(id_))
            case ["data_sources", id_, "query"]:
                if id_ not in self.data_sources:
                    return None
                rows = [p for p in self.pages.values() if p["parent"].get("data_source_id") == id_ and self._live(p)]
                return self._list(asked, rows)
            case ["blocks", id_, "children"]:
                return self._list(asked, self.blocks[id_]) if id_ in self.blocks else None
        return None

    def _live(self, found: Json) -> bool:
        return not found["in_trash"]

    def _object(self, found: Json | None) -> Reply | None:
        return None if found is None else Reply(200, copy.deepcopy(found))

    def _list(self, asked: Asked, rows: Sequence[Json]) -> Reply:
        given = {**asked.query, **(asked.body or {})}
        start = int(given.get("start_cursor", 0))
        end = start + min(int(given.get("page_size", 100)), self.limit, 100)
        more = end < len(rows)
        shown = copy.deepcopy(list(rows[start:end]))
        return Reply(
            200, {"object": "list", "results": shown, "has_more": more, "next_cursor": str(end) if more else None}
        )


def _error(status: int, code: str, message: str) -> Reply:
    return Reply(status, {"object": "error", "status": status, "code": code, "message": message})
