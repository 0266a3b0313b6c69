"""Confluence Data Center: version 1 of its interface.

Pages are listed by ``content/scan`` (from 7.18 on), whose cursors skip nothing. Blog posts, spaces and
older servers have offsets only: when something is deleted while they are read, what follows moves up and
one row is skipped. So such a listing is read again until a second reading shows nothing new.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from rag_platform.backends.sources.confluence_api import check_login, inline_readers
from rag_platform.backends.sources.confluence_http import ConfluenceHttp
from rag_platform.backends.sources.confluence_shapes import (
    READ,
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

_LIST = 100
_READINGS = 4


class ConfluenceDataCenter:
    """See ``ConfluenceApi``."""

    def __init__(self, http: ConfluenceHttp) -> None:
        self._http = http

    def check_login(self) -> None:
        check_login(self._http)

    def spaces(self, keys: Iterable[str]) -> list[Space]:
        wanted = sorted(set(keys))
        if not wanted:
            rows = self._by_offset("/rest/api/space", "key", type="global", status="current")
            return sorted((Space(str(r["key"]), str(r["key"])) for r in rows), key=lambda s: s.key)
        for key in wanted:
            if self._http.get(f"/rest/api/space/{quote(key)}") is None:
                raise IncompleteListing(self._http.dependency, f"there is no space {key!r}, or it may not be seen")
        return [Space(key, key) for key in wanted]

    def contents(self, space: Space, kind: Kind, *, attachments: bool) -> list[Content]:
        expand = f"{details(attachments)},ancestors"
        rows = self._scan(space, expand) if kind == "page" else None
        if rows is None:
            rows = self._by_offset(
                "/rest/api/content", "id", spaceKey=space.key, type=kind, status="current", expand=expand
            )
        return [self._content(row, attachments) for row in rows if row.get("status", "current") == "current"]

    def ancestor(self, kind: str, id_: str) -> Ancestor | None:
        try:
            found = self._http.get(f"/rest/api/content/{quote(id_)}", expand=f"ancestors,{READ}")
            return (
                None if found is None else Ancestor(_parent(found), inline_readers(found, self._http), found["title"])
            )
        except DocumentError:
            return None

    def body(self, id_: str, kind: Kind, representation: str) -> Body | None:
        found = self._http.get(f"/rest/api/content/{quote(id_)}", expand=f"body.{representation}")
        if found is None or found.get("status") != "current":
            return None
        return Body(str(found["title"]), str(found["body"][representation]["value"]))

    def attachment(self, id_: str, *, max_bytes: int) -> bytes | None:
        found = self._http.get(f"/rest/api/content/{quote(id_)}")
        if found is None or found.get("status") != "current":
            return None
        return self._http.download(str(found["_links"]["download"]), max_bytes=max_bytes)

    def user_name(self, attribute: str, id_: str) -> str | None:
        found = self._http.get("/rest/api/user", **{"key" if attribute == "userkey" else "username": id_})
        return None if found is None else str(found.get("displayName") or "") or None

    def members(self, name: str, id_: str) -> frozenset[str]:
        rows = self._by_offset(f"/rest/api/group/{quote(name, safe='')}/member", "username", may_be_absent=True)
        return frozenset(str(r["username"]) for r in rows)

    def _scan(self, space: Space, expand: str) -> list[dict[str, Any]] | None:
        """Return the pages of a space, None where the server has no scan."""
        if self._http.get("/rest/api/content/scan", spaceKey=space.key, limit=1) is None:
            return None
        return list(self._http.results("/rest/api/content/scan", spaceKey=space.key, expand=expand, limit=_LIST))

    def _by_offset(self, path: str, key: str, **params: Any) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for reading in range(_READINGS):
            rows = {str(row[key]): row for row in self._http.results(path, **params, limit=_LIST)}
            new = rows.keys() - found.keys()
            found |= rows
            if not new and (reading or not found):
                return list(found.values())
        raise IncompleteListing(self._http.dependency, "it changes faster than it can be listed; run again later")

    def _content(self, row: dict[str, Any], attachments: bool) -> Content:
        labels = labels_of(row)
        if labels is None:
            rows = self._by_offset(f"/rest/api/content/{quote(str(row['id']))}/label", "name")
            labels = tuple(sorted(str(r["name"]) for r in rows))
        version = row["version"]
        return Content(
            id=str(row["id"]),
            kind=str(row["type"]),
            title=str(row["title"]),
            version=int(version["number"]),
            modified_at=seconds(version.get("when")),
            parent=_parent(row),
            labels=labels,
            readers=inline_readers(row, self._http),
            attachments=self._attachments(row) if attachments else (),
        )

    def _attachments(self, row: dict[str, Any]) -> tuple[Attachment, ...]:
        inside = (row.get("children") or {}).get("attachment")
        if inside is not None and not (inside.get("_links") or {}).get("next"):
            return attachments_of(inside["results"])
        return attachments_of(
            self._by_offset(f"/rest/api/content/{quote(str(row['id']))}/child/attachment", "id", expand="version")
        )


def _parent(row: dict[str, Any]) -> tuple[str, str] | None:
    above = row.get("ancestors") or []
    return (str(above[-1].get("type") or "page"), str(above[-1]["id"])) if above else None
