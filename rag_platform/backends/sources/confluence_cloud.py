"""Confluence Cloud: version 2 of its interface, and version 1 for restrictions, which 2 does not have.

Which pages there are comes from version 2, whose cursors skip nothing when pages come and go meanwhile.
Labels, restrictions and attachments come a hundred pages at a time from a search of version 1; its index
lags, so what it does not know is asked for page by page. The ancestors' restrictions are not expanded
there: one ancestor in the bin would make the whole search fail (CONFCLOUD-77618).
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from rag_platform.backends.sources.confluence_api import check_login, inline_readers
from rag_platform.backends.sources.confluence_http import ConfluenceHttp
from rag_platform.backends.sources.confluence_shapes import (
    Ancestor,
    Attachment,
    Body,
    Content,
    Kind,
    Space,
    attachments_of,
    details,
    labels_of,
    seconds,
)
from rag_platform.errors import DocumentError, IncompleteListing

_LIST = 250
_SEARCH = 100
_AT_ONCE = 8
_PLACES = {"page": "pages", "blogpost": "blogposts"}
_PARENTS = {**_PLACES, "folder": "folders", "whiteboard": "whiteboards", "database": "databases", "embed": "embeds"}


class ConfluenceCloud:
    """See ``ConfluenceApi``."""

    def __init__(self, http: ConfluenceHttp) -> None:
        self._http = http

    def check_login(self) -> None:
        check_login(self._http)

    def spaces(self, keys: Iterable[str]) -> list[Space]:
        wanted = sorted(set(keys))
        if not wanted:
            rows = self._http.results("/api/v2/spaces", status="current", limit=_LIST)
            return [Space(str(r["key"]), str(r["id"])) for r in rows if r.get("type") != "personal"]
        rows = self._http.results("/api/v2/spaces", keys=",".join(wanted), limit=_LIST)
        found = {str(r["key"]): Space(str(r["key"]), str(r["id"])) for r in rows}
        if missing := [key for key in wanted if key not in found]:
            raise IncompleteListing(self._http.dependency, f"there is no space {missing[0]!r}, or it may not be seen")
        return [found[key] for key in wanted]

    def contents(self, space: Space, kind: Kind, *, attachments: bool) -> list[Content]:
        path = f"/api/v2/spaces/{quote(space.id)}/{_PLACES[kind]}"
        rows = list(self._http.results(path, status="current", sort="id", limit=_LIST))
        known = self._known(space, kind, details(attachments)) if rows else {}

        def one(row: dict[str, Any]) -> Content | None:
            return self._content(row, kind, known.get(str(row["id"])), attachments)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return [content for content in pool.map(one, rows) if content is not None]

    def ancestor(self, kind: str, id_: str) -> Ancestor | None:
        place = _PARENTS.get(kind)
        try:
            found = self._http.get(f"/api/v2/{place}/{quote(id_)}") if place else None
            if found is None:
                return None
            return Ancestor(_parent(found), self._http.restriction(id_), str(found.get("title") or ""))
        except DocumentError:
            return None

    def body(self, id_: str, kind: Kind, representation: str) -> Body | None:
        found = self._http.get(f"/api/v2/{_PLACES[kind]}/{quote(id_)}", **{"body-format": representation})
        if found is None or found.get("status") != "current":
            return None
        return Body(str(found["title"]), str(found["body"][representation]["value"]))

    def attachment(self, id_: str, *, max_bytes: int) -> bytes | None:
        found = self._http.get(f"/api/v2/attachments/{quote(id_)}")
        if found is None or found.get("status") != "current":
            return None
        link = found.get("downloadLink") or (found.get("_links") or {}).get("download")
        return self._http.download(str(link), max_bytes=max_bytes)

    def user_name(self, attribute: str, id_: str) -> str | None:
        found = self._http.get("/rest/api/user", accountId=id_)
        return None if found is None else str(found.get("displayName") or "") or None

    def members(self, name: str, id_: str) -> frozenset[str]:
        rows = self._http.results(f"/rest/api/group/{quote(id_)}/membersByGroupId", may_be_absent=True, limit=200)
        return frozenset(str(r["accountId"]) for r in rows)

    def _known(self, space: Space, kind: Kind, expand: str) -> dict[str, dict[str, Any]]:
        key = space.key.replace("\\", "\\\\").replace('"', '\\"')
        rows = self._http.results(
            "/rest/api/content/search", cql=f'space="{key}" and type={kind}', expand=expand, limit=_SEARCH
        )
        return {str(row["id"]): row for row in rows}

    def _content(
        self, row: dict[str, Any], kind: Kind, known: dict[str, Any] | None, attachments: bool
    ) -> Content | None:
        """Return a page with all that is listed about it; None when it vanished meanwhile."""
        id_ = str(row["id"])
        try:
            who = self._http.restriction(id_) if known is None else inline_readers(known, self._http)
        except DocumentError:
            if self._http.get(f"/api/v2/{_PLACES[kind]}/{quote(id_)}") is None:
                return None
            raise
        labels = None if known is None else labels_of(known)
        if labels is None:
            rows = self._http.results(f"/api/v2/{_PLACES[kind]}/{quote(id_)}/labels", limit=_LIST)
            labels = tuple(sorted({str(r["name"]) for r in rows}))
        version = row["version"]
        return Content(
            id=id_,
            kind=kind,
            title=str(row["title"]),
            version=int(version["number"]),
            modified_at=seconds(version.get("createdAt")),
            parent=_parent(row),
            labels=labels,
            readers=who,
            attachments=self._attachments(id_, kind, known) if attachments else (),
        )

    def _attachments(self, id_: str, kind: Kind, known: dict[str, Any] | None) -> tuple[Attachment, ...]:
        inside = ((known or {}).get("children") or {}).get("attachment")
        if inside is not None and not (inside.get("_links") or {}).get("next"):
            return attachments_of(inside["results"])
        path = f"/api/v2/{_PLACES[kind]}/{quote(id_)}/attachments"
        return attachments_of(self._http.results(path, status="current", limit=_LIST))


def _parent(row: dict[str, Any]) -> tuple[str, str] | None:
    return (str(row.get("parentType") or "page"), str(row["parentId"])) if row.get("parentId") else None
