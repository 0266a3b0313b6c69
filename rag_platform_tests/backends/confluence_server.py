"""A double of Confluence, Cloud and Data Center, that replays the documented shapes of its interfaces.

Cloud (below ``/wiki``): version 2 of spaces, pages, blog posts, attachments, labels, folders with cursor
links; version 1 of search, restrictions, users and group members. Data Center (below ``/confluence``):
version 1 with ``content/scan`` cursors and ``start``/``limit``. Shapes are those of Atlassian's REST
references; it keeps no permissions of its own.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from rag_platform_tests.backends.api_double import ApiDouble, Asked, Reply

TOKEN = "secret-token"
EMAIL = "bot@example.test"
WHEN = "2026-03-0{}T10:00:00.000Z"


@dataclass
class File:
    id: str
    name: str
    data: bytes
    media_type: str = "application/octet-stream"
    version: int = 1


@dataclass
class Page:
    id: str
    title: str
    body: str
    space: str = "ENG"
    kind: str = "page"
    parent: str | None = None
    version: int = 1
    status: str = "current"
    labels: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    files: list[File] = field(default_factory=list)


class ConfluenceDouble(ApiDouble):
    """``pages`` by id; ``indexed`` tells which of them the search of version 1 knows (all by default).

    Attributes:
        limit: results on one page at most, however many were asked for.
        scan: whether there is ``content/scan`` (Data Center from 7.18 on).
        before_results: called with the path before each page of results is made.
    """

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.spaces = {"ENG": "global", "HR": "global", "~me": "personal"}
        self.users = {"u-ada": "Ada", "u-bob": "Bob"}
        self.groups: dict[str, list[str]] = {"hr": ["u-ada"], "staff": ["u-ada", "u-bob"]}
        self.indexed: Callable[[Page], bool] = lambda page: True
        self.limit = 100
        self.scan = True
        self.token = TOKEN
        self.before_results: Callable[[str], None] = lambda path: None
        super().__init__()
        self.cloud_url = f"confluence+{self.origin}/wiki"
        self.center_url = f"confluence+{self.origin}/confluence"

    def add(self, id_: str, title: str, body: str, **fields: Any) -> Page:
        self.pages[id_] = Page(id_, title, body, **fields)
        return self.pages[id_]

    def reset(self) -> None:
        self.forget()
        self.pages.clear()
        self.limit, self.scan, self.token = 100, True, TOKEN
        self.indexed, self.before_results = (lambda page: True), (lambda path: None)
        self.groups = {"hr": ["u-ada"], "staff": ["u-ada", "u-bob"]}

    # ── routing ──
    def answer(self, asked: Asked) -> Reply:
        context, _, path = asked.path[1:].partition("/")
        cloud = context == "wiki"
        login = base64.b64encode(f"{EMAIL}:{self.token}".encode()).decode()
        expected = f"Basic {login}" if cloud else f"Bearer {self.token}"
        if asked.headers.get("authorization") != expected:
            return Reply(401, {"message": "Unauthorized"})
        if path == "rest/api/user/current":
            return Reply(200, {"type": "known", "displayName": "Bot"})
        for pattern, handler in self._routes(cloud):
            if match := re.fullmatch(pattern, path):
                return handler(asked, f"/{context}", *match.groups())
        return Reply(404, {"statusCode": 404, "message": "not found"})

    def _routes(self, cloud: bool) -> Sequence[tuple[str, Callable[..., Reply]]]:
        common: list[tuple[str, Callable[..., Reply]]] = [
            (r"rest/api/content/(\w+)/restriction/byOperation/read", self._restriction),
            (r"download/(\w+)", self._download),
            (r"rest/api/user", self._user),
        ]
        if cloud:
            return [
                *common,
                (r"api/v2/spaces", self._spaces2),
                (r"api/v2/spaces/(\w+)/(pages|blogposts)", self._pages2),
                (r"api/v2/(pages|blogposts|folders)/(\w+)", self._page2),
                (r"api/v2/(?:pages|blogposts)/(\w+)/labels", self._labels2),
                (r"api/v2/(?:pages|blogposts)/(\w+)/attachments", self._files2),
                (r"api/v2/attachments/(\w+)", self._file2),
                (r"rest/api/content/search", self._search),
                (r"rest/api/group/(\w+)/membersByGroupId", self._members),
            ]
        return [
            *common,
            (r"rest/api/space/([\w~]+)", self._space1),
            (r"rest/api/space", self._spaces1),
            (r"rest/api/content/scan", self._scan),
            (r"rest/api/content", self._contents1),
            (r"rest/api/content/(\w+)", self._content1),
            (r"rest/api/content/(\w+)/child/attachment", self._files1),
            (r"rest/api/group/(\w+)/member", self._members),
        ]

    # ── paging ──
    def _rows(self, asked: Asked, context: str, rows: Iterable[dict[str, Any]], *, v2: bool, cursor: bool) -> Reply:
        """Cursors name the last id that was given out; offsets count, as they do."""
        all_rows = list(rows)
        size = min(int(asked.query.get("limit", 25)), self.limit)
        if cursor:
            after = asked.query.get("cursor")
            start = (
                0 if after is None else next((i for i, r in enumerate(all_rows) if str(r["id"]) > after), len(all_rows))
            )
        else:
            start = int(asked.query.get("start", 0))
        shown = all_rows[start : start + size]
        links: dict[str, str] = {"base": f"{self.origin}{context}"}
        if start + size < len(all_rows):
            at = {"cursor": str(shown[-1]["id"])} if cursor else {"start": str(start + size)}
            query = urlencode({**asked.query, **at, "limit": size})
            # Version 2 links begin with the context path, those of version 1 below it.
            links["next"] = f"{asked.path if v2 else asked.path.removeprefix(context)}?{query}"
        return Reply(200, {"results": shown, "start": start, "limit": size, "size": len(shown), "_links": links})

    # ── Cloud, version 2 ──
    def _spaces2(self, asked: Asked, context: str) -> Reply:
        keys = asked.query.get("keys")
        rows = [
            {"id": f"1{i}", "key": k, "type": t, "status": "current"}
            for i, (k, t) in enumerate(self.spaces.items())
            if keys is None or k in keys.split(",")
        ]
        return self._rows(asked, context, rows, v2=True, cursor=True)

    def _pages2(self, asked: Asked, context: str, space: str, place: str) -> Reply:
        self.before_results(asked.path)
        key = list(self.spaces)[int(space[1:])]
        rows = [self._row2(p) for p in self._of(key, place.rstrip("s"))]
        return self._rows(asked, context, rows, v2=True, cursor=True)

    def _row2(self, page: Page) -> dict[str, Any]:
        above = self.pages.get(page.parent or "")
        return {
            "id": page.id, "status": page.status, "title": page.title, "spaceId": "10",
            "parentId": page.parent, "parentType": above.kind if above else ("page" if page.parent else None),
            "version": {"number": page.version, "createdAt": WHEN.format(min(page.version, 9))},
        }  # fmt: skip

    def _page2(self, asked: Asked, context: str, place: str, id_: str) -> Reply:
        page = self.pages.get(id_)
        if page is None or page.kind != place.rstrip("s"):
            return Reply(404, {"errors": [{"status": 404, "code": "NOT_FOUND"}]})
        format_ = asked.query.get("body-format", "storage")
        return Reply(200, {**self._row2(page), "body": {format_: {"representation": format_, "value": page.body}}})

    def _labels2(self, asked: Asked, context: str, id_: str) -> Reply:
        rows = [{"id": str(i), "name": n, "prefix": "global"} for i, n in enumerate(self.pages[id_].labels)]
        return self._rows(asked, context, rows, v2=True, cursor=True)

    def _files2(self, asked: Asked, context: str, id_: str) -> Reply:
        rows = [self._file_row2(f) for f in self.pages[id_].files]
        return self._rows(asked, context, rows, v2=True, cursor=True)

    def _file_row2(self, file: File) -> dict[str, Any]:
        return {
            "id": file.id, "status": "current", "title": file.name, "mediaType": file.media_type,
            "fileSize": len(file.data), "downloadLink": f"/download/{file.id}",
            "version": {"number": file.version, "createdAt": WHEN.format(1)},
        }  # fmt: skip

    def _file2(self, asked: Asked, context: str, id_: str) -> Reply:
        file = self._file(id_)
        return Reply(404, {}) if file is None else Reply(200, self._file_row2(file))

    # ── version 1 ──
    def _row1(self, page: Page, expand: str) -> dict[str, Any]:
        row: dict[str, Any] = {
            "id": page.id, "type": page.kind, "status": page.status, "title": page.title,
            "version": {"number": page.version, "when": WHEN.format(min(page.version, 9))},
        }  # fmt: skip
        if "metadata.labels" in expand:
            row["metadata"] = {"labels": {"results": [{"name": n} for n in page.labels], "limit": 200}}
        if "restrictions.read" in expand:
            row["restrictions"] = {"read": {"operation": "read", "restrictions": self._named(page, 0, 200)}}
        if "children.attachment" in expand:
            shown = page.files[:25]
            inside: dict[str, Any] = {"results": [self._file_row1(f) for f in shown], "limit": 25, "_links": {}}
            if len(page.files) > 25:
                inside["_links"]["next"] = f"/rest/api/content/{page.id}/child/attachment?start=25"
            row["children"] = {"attachment": inside}
        if "ancestors" in expand:
            way: list[dict[str, Any]] = []
            above = self.pages.get(page.parent or "")
            while above is not None:
                way.insert(0, {"id": above.id, "type": above.kind, "title": above.title})
                above = self.pages.get(above.parent or "")
            row["ancestors"] = way
        for name in ("storage", "export_view"):
            if f"body.{name}" in expand:
                row["body"] = {name: {"representation": name, "value": page.body}}
        return row

    def _file_row1(self, file: File) -> dict[str, Any]:
        return {
            "id": file.id, "type": "attachment", "status": "current", "title": file.name,
            "version": {"number": file.version, "when": WHEN.format(1)},
            "extensions": {"mediaType": file.media_type, "fileSize": len(file.data)},
            "_links": {"download": f"/download/{file.id}?api=v2"},
        }  # fmt: skip

    def _named(self, page: Page, start: int, limit: int) -> dict[str, Any]:
        users = [{"type": "known", "accountId": u, "username": u, "displayName": u} for u in page.users]
        groups = [{"type": "group", "name": g, "id": f"id{g}"} for g in page.groups]
        return {
            kind: {"results": rows[start : start + limit], "start": start, "limit": limit, "size": len(rows)}
            for kind, rows in (("user", users), ("group", groups))
        }

    def _restriction(self, asked: Asked, context: str, id_: str) -> Reply:
        page = self.pages.get(id_)
        if page is None:
            return Reply(404, {})
        found = self._named(page, int(asked.query.get("start", 0)), int(asked.query.get("limit", 100)))
        return Reply(200, {"operation": "read", "restrictions": found})

    def _search(self, asked: Asked, context: str) -> Reply:
        match = re.fullmatch(r'space="(.*)" and type=(\w+)', asked.query["cql"])
        assert match is not None
        rows = [self._row1(p, asked.query["expand"]) for p in self._of(match[1], match[2]) if self.indexed(p)]
        return self._rows(asked, context, rows, v2=False, cursor=True)

    def _space1(self, asked: Asked, context: str, key: str) -> Reply:
        return Reply(200, {"key": key}) if key in self.spaces else Reply(404, {})

    def _spaces1(self, asked: Asked, context: str) -> Reply:
        rows = [{"id": k, "key": k, "type": t} for k, t in self.spaces.items() if t == asked.query.get("type")]
        return self._rows(asked, context, rows, v2=False, cursor=False)

    def _scan(self, asked: Asked, context: str) -> Reply:
        if not self.scan:
            return Reply(404, {})
        self.before_results(asked.path)
        rows = [self._row1(p, asked.query.get("expand", "")) for p in self._of(asked.query["spaceKey"], "page")]
        return self._rows(asked, context, rows, v2=False, cursor=True)

    def _contents1(self, asked: Asked, context: str) -> Reply:
        self.before_results(asked.path)
        found = self._of(asked.query["spaceKey"], asked.query["type"])
        return self._rows(asked, context, [self._row1(p, asked.query["expand"]) for p in found], v2=False, cursor=False)

    def _content1(self, asked: Asked, context: str, id_: str) -> Reply:
        file = self._file(id_)
        if file is not None:
            return Reply(200, self._file_row1(file))
        page = self.pages.get(id_)
        if page is None or page.status != "current":
            return Reply(404, {"statusCode": 404})
        return Reply(200, self._row1(page, asked.query.get("expand", "")))

    def _files1(self, asked: Asked, context: str, id_: str) -> Reply:
        rows = [self._file_row1(f) for f in self.pages[id_].files]
        return self._rows(asked, context, rows, v2=False, cursor=False)

    def _user(self, asked: Asked, context: str) -> Reply:
        id_ = asked.query.get("accountId") or asked.query.get("key") or asked.query.get("username") or ""
        return Reply(200, {"displayName": self.users[id_]}) if id_ in self.users else Reply(404, {})

    def _members(self, asked: Asked, context: str, group: str) -> Reply:
        people = self.groups.get(group.removeprefix("id"))
        if people is None:
            return Reply(404, {})
        rows = [{"id": u, "accountId": u, "username": u} for u in people]
        return self._rows(asked, context, rows, v2=False, cursor=False)

    def _download(self, asked: Asked, context: str, id_: str) -> Reply:
        file = self._file(id_)
        return Reply(404, {}) if file is None else Reply(200, file.data, {"Content-Type": file.media_type})

    def _of(self, space: str, kind: str) -> list[Page]:
        found = [p for p in self.pages.values() if (p.space, p.kind, p.status) == (space, kind, "current")]
        return sorted(found, key=lambda p: p.id)

    def _file(self, id_: str) -> File | None:
        return next((f for p in self.pages.values() if p.status == "current" for f in p.files if f.id == id_), None)
