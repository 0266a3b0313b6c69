"""What Confluence's listings tell, and how it is read out of their JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from rag_platform.backends.sources.confluence_acl import Readers

Kind = Literal["page", "blogpost"]

READ = "restrictions.read.restrictions.user,restrictions.read.restrictions.group"
_DETAILS = f"version,metadata.labels,{READ}"


@dataclass(frozen=True, slots=True)
class Space:
    """``id`` is what Cloud's version 2 asks for; Data Center uses the key."""

    key: str
    id: str


@dataclass(frozen=True, slots=True)
class Attachment:
    id: str
    title: str
    version: int
    size: int
    media_type: str
    modified_at: float | None


@dataclass(frozen=True, slots=True)
class Content:
    """A page or blog post of a listing. ``parent`` is (kind, id) of what it lies under; ``readers`` is its
    own view restriction, None without one."""

    id: str
    kind: str
    title: str
    version: int
    modified_at: float | None
    parent: tuple[str, str] | None
    labels: tuple[str, ...]
    readers: Readers | None
    attachments: tuple[Attachment, ...]


@dataclass(frozen=True, slots=True)
class Ancestor:
    """What hangs above a page and is in no listing: a folder, say."""

    parent: tuple[str, str] | None
    readers: Readers | None
    title: str


@dataclass(frozen=True, slots=True)
class Body:
    title: str
    markup: str


def details(attachments: bool) -> str:
    """Return what to expand of a content of version 1."""
    return f"{_DETAILS},children.attachment.version" if attachments else _DETAILS


def labels_of(raw: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the labels inside a content of version 1, None when they are not (all) there."""
    found = (raw.get("metadata") or {}).get("labels") or {}
    rows = found.get("results")
    if rows is None or (found.get("_links") or {}).get("next"):
        return None
    return tuple(sorted({str(row["name"]) for row in rows}))


def readers(users: Iterable[Mapping[str, Any]], groups: Iterable[Mapping[str, Any]]) -> Readers | None:
    """Return who a restriction names, None when it names nobody (then there is none)."""
    named = frozenset(str(u.get("accountId") or u.get("username") or u.get("userKey") or "unknown") for u in users)
    within = {str(g["name"]): str(g.get("id") or g["name"]) for g in groups}
    return Readers(named, frozenset(within), within) if named or within else None


def attachments_of(rows: Iterable[Mapping[str, Any]]) -> tuple[Attachment, ...]:
    """Read attachments of version 1 or 2."""
    found = []
    for row in rows:
        extensions, version = row.get("extensions") or {}, row["version"]
        found.append(
            Attachment(
                id=str(row["id"]),
                title=str(row["title"]),
                version=int(version["number"]),
                size=int(row.get("fileSize") or extensions.get("fileSize") or 0),
                media_type=str(row.get("mediaType") or extensions.get("mediaType") or ""),
                modified_at=seconds(version.get("createdAt") or version.get("when")),
            )
        )
    return tuple(found)


def seconds(iso: str | None) -> float | None:
    try:
        return datetime.fromisoformat(iso).timestamp() if iso else None
    except ValueError:
        return None
