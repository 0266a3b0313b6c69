"""Notion as a source: the pages and databases that are shared with a connection, as Markdown.

``notion://`` is everything that is shared, ``notion://<id>`` what lies below a page or database. A
document's uri is made of Notion's id (``pages/<id>.md``), so a page that is renamed or moved stays the
same document. The change token is the time of the last edit, which Notion cuts to the minute: a page
edited within the last three minutes gets a token that the next listing will not repeat, so a second edit
in the same minute is not missed.

Options: ``roots``, ``token_env``; see docs/backends/notion.md.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from rag_platform.backends.sources import names, notion_properties
from rag_platform.backends.sources.api_errors import UNEXPECTED, incomplete
from rag_platform.backends.sources.api_transport import SourceTransport
from rag_platform.backends.sources.credentials import credential
from rag_platform.backends.sources.globs import PathFilter
from rag_platform.backends.sources.notion_api import Json, NotionApi, edited_at, gone
from rag_platform.backends.sources.notion_blocks import Block, load_tree, render
from rag_platform.backends.sources.notion_memory import NotionMemory
from rag_platform.backends.sources.notion_text import markdown, page_address, plain
from rag_platform.backends.sources.notion_walk import SETTLED_S, NotionWalk
from rag_platform.errors import ConfigurationError, DependencyError, DocumentError, IncompleteListing, LimitExceeded
from rag_platform.records import SourceItem, SourceSpec
from rag_platform.settings import Settings as PlatformSettings
from rag_platform.settings import setting

RENDERING = "1"
"""Part of every change token: a better conversion reads the pages again."""

_URI = re.compile(r"(pages|databases)/([0-9a-f]{32})\.md")
_ID = re.compile(r"(?:.*[/-])?([0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12})(?:[?#].*)?")
_OPTIONS = ("roots", "token_env", "connector")
_KEPT_BYTES = 64_000_000
"""Of pages that the listing has read anyway, kept for fetching."""


@dataclass(frozen=True)
class Settings:
    """``RAG_NOTION_…``"""

    token: str | None = setting(None, "Token of the connection.", secret=True)
    timeout_s: float = setting(120.0, "Deadline of one request, waits and retries included.")
    requests_per_s: float = setting(3.0, "Requests that may start a second; Notion's own limit is 3 on average.")
    url: str = setting("https://api.notion.com", "Address of the service.")


class NotionSource:
    """Lists and reads the pages of a Notion workspace.

    Args:
        spec: the source; its globs are matched against the title.
        roots: ids of pages, databases or data sources; none: all that is shared.
        api: reads.
        memory: of what lies inside which page.
    """

    def __init__(self, spec: SourceSpec, roots: Sequence[str], api: NotionApi, memory: NotionMemory) -> None:
        self.spec = spec
        self._roots, self._api, self._memory = roots, api, memory
        self._name = f"source:{spec.name}"
        self._filter = PathFilter(spec.include, spec.exclude)
        self._rendered: dict[str, tuple[str, bytes]] = {}
        self._rendered_bytes = 0

    def list(self) -> Sequence[SourceItem]:
        """Return every wanted page and database, sorted by uri.

        Raises:
            IncompleteListing: something on the way cannot be read.
        """
        self._rendered.clear()
        self._rendered_bytes = 0
        walk = NotionWalk(self._api, self._memory, self._keep)
        try:
            found = walk.run(self._roots)
            items = [self._item(f"pages/{_hex(i)}.md", p, notion_properties.title(p)) for i, p in found.pages.items()]
            items += [
                self._item(f"databases/{_hex(i)}.md", d, _database_title(d)) for i, d in found.data_sources.items()
            ]
            self._memory.forget_others(set(found.pages))
        except DependencyError as e:
            raise incomplete(e) from e
        except DocumentError as e:
            raise IncompleteListing(self._name, f"a part of it may not be listed: {e}") from e
        except UNEXPECTED as e:
            raise IncompleteListing(self._name, f"its answer has another shape: {type(e).__name__}") from e
        finally:
            self._memory.save()  # also what a walk that failed has learnt
        return sorted((i for i in items if self._filter.wants(_segment(i.title or ""))), key=lambda i: i.uri)

    def fetch(self, uri: str, *, max_bytes: int) -> bytes | None:
        """Return a page, or what describes a database, as Markdown; None when it is gone or in the bin.

        Raises:
            DocumentError: no uri of this source, or Notion cannot give this one.
            LimitExceeded: it is larger than ``max_bytes``.
            DependencyError: Notion fails, limits us or refuses the token.
        """
        names.checked_parts(uri)
        match = _URI.fullmatch(uri)
        if match is None:
            return None
        id_ = str(uuid.UUID(match[2]))
        try:
            data = self._page(id_) if match[1] == "pages" else self._data_source(id_)
        except UNEXPECTED as e:
            raise DependencyError(self._name, f"its answer has another shape: {type(e).__name__}") from e
        if data is not None and len(data) > max_bytes:
            raise LimitExceeded(f"it has {len(data)} bytes, the limit is {max_bytes}")
        return data

    def _page(self, id_: str) -> bytes | None:
        page = self._api.page(id_)
        if page is None or gone(page):
            return None
        kept = self._rendered.pop(id_, None)
        if kept is not None and kept[0] == page["last_edited_time"] and self._settled(page):
            return kept[1]
        tree = load_tree(self._api.children, id_)
        return None if tree is None else self._markdown(page, tree)

    def _markdown(self, page: Json, tree: Sequence[Block]) -> bytes:
        fields = notion_properties.lines(page, lambda property_id: self._api.property_items(page["id"], property_id))
        parts = (f"# {notion_properties.title(page)}", "\n".join(fields), render(tree))
        return ("\n\n".join(part for part in parts if part) + "\n").encode("utf-8", "replace")

    def _data_source(self, id_: str) -> bytes | None:
        found = self._api.data_source(id_)
        if found is None or gone(found):
            return None
        columns = [f"- {name}: {_column(column)}" for name, column in sorted(found["properties"].items())]
        parts = (f"# {_database_title(found)}", markdown(found.get("description")), "\n".join(columns))
        return ("\n\n".join(part for part in parts if part) + "\n").encode("utf-8", "replace")

    def _keep(self, page: Json, tree: Sequence[Block]) -> None:
        """Keep what a page becomes; only when that needs no further request."""
        if self._rendered_bytes < _KEPT_BYTES and not notion_properties.is_cut(page):
            data = self._markdown(page, tree)
            self._rendered[page["id"]] = (page["last_edited_time"], data)
            self._rendered_bytes += len(data)

    def _item(self, uri: str, found: Json, title: str) -> SourceItem:
        token = f"{found['last_edited_time']}:{RENDERING}"
        if not self._settled(found):
            token += f":fresh{time.time_ns()}"
        chosen = notion_properties.tags(found) if found["object"] == "page" else ()
        return SourceItem(
            uri=uri,
            size=0,  # no listing tells it
            change_token=token,
            modified_at=edited_at(found),
            title=title,
            tags=tuple(sorted({*self.spec.tags, *chosen})),
        )

    def _settled(self, found: Json) -> bool:
        return self._api.now - edited_at(found) > SETTLED_S


def _database_title(found: Json) -> str:
    return " ".join(plain(found.get("title")).split()) or "Untitled"


def _column(column: Json) -> str:
    kind = str(column.get("type") or "")
    options = (column.get(kind) or {}).get("options") if isinstance(column.get(kind), dict) else None
    named = ", ".join(str(option["name"]) for option in options or ())
    return f"{kind.replace('_', ' ')} ({named})" if named else kind.replace("_", " ")


def _hex(id_: str) -> str:
    return uuid.UUID(id_).hex


def _segment(title: str) -> str:
    return title.replace("/", "_").strip() or "_"


def document_url(spec: SourceSpec, uri: str) -> str | None:
    """Return the address at which a person opens the page, None for what has none."""
    match = _URI.fullmatch(uri)
    return page_address(match[2]) if match is not None and match[1] == "pages" else None


def build(spec: SourceSpec, settings: PlatformSettings) -> NotionSource:
    """Return the connector. Makes no request.

    Raises:
        ConfigurationError: no such address or root, an unknown option, or no token.
    """
    where = f"source {spec.name!r}"
    own = settings.vendor(Settings, "RAG_NOTION_")
    if unknown := sorted(set(spec.options) - set(_OPTIONS)):
        raise ConfigurationError(f"{where}: unknown option {unknown[0]!r}; known: {', '.join(_OPTIONS)}")
    given = spec.options.get("roots") or ()
    if not isinstance(given, list | tuple) or not all(isinstance(root, str) for root in given):
        raise ConfigurationError(f"{where}: option roots must be a list of ids or addresses of pages and databases")
    url = urlsplit(spec.uri)
    in_address = [part for part in (url.netloc, *url.path.split("/")) if part]
    if url.query or url.fragment or len(in_address) > 1:
        raise ConfigurationError(f"{where}: write notion:// or notion://ID; more than one root goes into option roots")
    if not own.url.startswith("https://") and not settings.allow_private_addresses:
        raise ConfigurationError("RAG_NOTION_URL: must begin with https://, or the token could be read by others")
    token, variable = credential(spec, settings, own.token, "RAG_NOTION_TOKEN")
    transport = SourceTransport(
        allow_private=settings.allow_private_addresses, timeout_s=own.timeout_s, per_s=own.requests_per_s
    )
    api = NotionApi(f"source:{spec.name}", own.url.rstrip("/"), token, variable, transport)
    memory = NotionMemory(settings.root / "sources" / f"{spec.name}.notion.json")
    return NotionSource(spec, [_root(where, root) for root in (*in_address, *given)], api, memory)


def _root(where: str, text: str) -> str:
    match = _ID.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError(f"{where}: root {text!r} holds no id of Notion's (32 hexadecimal digits)")
    return str(uuid.UUID(match[1]))
