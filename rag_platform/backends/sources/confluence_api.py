"""What the connector asks of a Confluence, whichever deployment it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeGuard

from rag_platform.backends.sources.confluence_acl import Readers
from rag_platform.backends.sources.confluence_http import PER_PAGE, ConfluenceHttp
from rag_platform.backends.sources.confluence_shapes import Ancestor, Body, Content, Kind, Space, readers
from rag_platform.errors import DependencyError


class ConfluenceApi(Protocol):
    """What the connector asks for. Every method raises ``DependencyError`` when Confluence fails or
    refuses the token, and ``DocumentError`` when it denies this one thing."""

    def check_login(self) -> None: ...

    def spaces(self, keys: Iterable[str]) -> list[Space]:
        """Return these spaces, or every space that is not personal. ``IncompleteListing`` when one is missing."""

    def contents(self, space: Space, kind: Kind, *, attachments: bool) -> list[Content]: ...

    def ancestor(self, kind: str, id_: str) -> Ancestor | None:
        """Return what hangs above, or None when it cannot be seen."""

    def body(self, id_: str, kind: Kind, representation: str) -> Body | None: ...

    def attachment(self, id_: str, *, max_bytes: int) -> bytes | None: ...

    def user_name(self, attribute: str, id_: str) -> str | None: ...

    def members(self, name: str, id_: str) -> frozenset[str]:
        """Return the users of a group; nobody when there is no such group."""


def check_login(http: ConfluenceHttp) -> None:
    """Raise ``DependencyError`` when the token logs nobody in: what is public would be listed as all there is."""
    found = http.get("/rest/api/user/current")
    if found is None or found.get("type") == "anonymous":
        raise DependencyError(http.dependency, "the token logs nobody in; make a new one", retryable=False)


def inline_readers(raw: Mapping[str, Any], http: ConfluenceHttp) -> Readers | None:
    """Return the view restriction inside a content of version 1. What is absent or cut is asked for:
    nothing there must never read as no restriction."""
    found = ((raw.get("restrictions") or {}).get("read") or {}).get("restrictions") or {}
    users, groups = found.get("user"), found.get("group")
    if not (_is_whole(users) and _is_whole(groups)):
        return http.restriction(str(raw["id"]))
    return readers(users["results"], groups["results"])


def _is_whole(found: Any) -> TypeGuard[dict[str, Any]]:
    return (
        isinstance(found, dict) and "results" in found and len(found["results"]) < int(found.get("limit") or PER_PAGE)
    )
