"""Confluence as a source: the pages, blog posts and attachments of its spaces, Cloud and Data Center.

``confluence+https://acme.atlassian.net/wiki?space=ENG&space=HR``; without ``space`` every space that is
not personal. A document's uri is made of Confluence's ids (``pages/<id>.html``,
``pages/<id>/attachments/<id>.pdf``), so a page that is renamed or moved stays the same document. The
change token is the version number; restrictions, labels and titles are metadata, so that a changed
restriction is written to the index without reading, parsing or embedding the page again.

Options: ``spaces``, ``space_acl``, ``groups``, ``users``, ``attachments``, ``blog_posts``, ``body``,
``deployment``, ``email``, ``token_env``, ``site``; see docs/backends/confluence.md.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import httpx

from rag_platform.backends.sources import names
from rag_platform.backends.sources.api_errors import UNEXPECTED, incomplete
from rag_platform.backends.sources.api_transport import SourceTransport
from rag_platform.backends.sources.confluence_acl import Readers, effective
from rag_platform.backends.sources.confluence_api import ConfluenceApi
from rag_platform.backends.sources.confluence_cloud import ConfluenceCloud
from rag_platform.backends.sources.confluence_data_center import ConfluenceDataCenter
from rag_platform.backends.sources.confluence_http import ConfluenceHttp
from rag_platform.backends.sources.confluence_options import Choices, base_address, read_choices
from rag_platform.backends.sources.confluence_shapes import Attachment, Kind, Space
from rag_platform.backends.sources.confluence_storage import html_document, storage_to_html
from rag_platform.backends.sources.confluence_tree import PageTree
from rag_platform.backends.sources.credentials import credential
from rag_platform.backends.sources.globs import PathFilter
from rag_platform.errors import ConfigurationError, DependencyError, DocumentError, IncompleteListing, LimitExceeded
from rag_platform.records import SourceItem, SourceSpec
from rag_platform.settings import Settings as PlatformSettings
from rag_platform.settings import setting

logger = logging.getLogger(__name__)

RENDERING = "1"
"""Part of every page's change token: a better conversion reads the pages again."""

_KINDS: tuple[tuple[str, Kind], ...] = (("pages", "page"), ("blogposts", "blogpost"))
_URI = re.compile(r"(pages|blogposts)/(\d{1,20})(?:\.html|/attachments/((?:att)?\d{1,20})(?:\.[a-z0-9]{1,10})?)")
_SUFFIX = re.compile(r"\.[a-z0-9]{1,10}")
_MEDIA = ("image/", "video/", "audio/")
_DEPLOYMENTS: dict[str, Callable[[ConfluenceHttp], ConfluenceApi]] = {
    "cloud": ConfluenceCloud,
    "data_center": ConfluenceDataCenter,
}


@dataclass(frozen=True)
class Settings:
    """``RAG_CONFLUENCE_…``"""

    email: str | None = setting(None, "Whose API token it is (Cloud only).")
    token: str | None = setting(None, "API token (Cloud) or personal access token (Data Center).", secret=True)
    timeout_s: float = setting(120.0, "Deadline of one request, waits and retries included.")
    requests_per_s: float = setting(10.0, "Requests that may start a second.")


class ConfluenceSource:
    """Lists and reads the documents of a Confluence.

    Args:
        spec: the source; its globs are matched against ``SPACE/title/…/title`` (and the file's name).
        choices: its options.
        api: speaks to this deployment.
    """

    def __init__(self, spec: SourceSpec, choices: Choices, api: ConfluenceApi) -> None:
        self.spec = spec
        self._choices, self._api = choices, api
        self._name = f"source:{spec.name}"
        self._filter = PathFilter(spec.include, spec.exclude)
        self._user_names: dict[tuple[str, str], str] = {}
        self._groups: dict[str, frozenset[str]] = {}

    def list(self) -> Sequence[SourceItem]:
        """Return every wanted page, blog post and attachment, sorted by uri.

        Raises:
            IncompleteListing: some page of results, space or restriction cannot be read.
        """
        self._groups.clear()
        try:
            self._api.check_login()
            items = [item for space in self._api.spaces(self._choices.spaces) for item in self._items(space)]
        except DependencyError as e:
            raise incomplete(e) from e
        except DocumentError as e:
            raise IncompleteListing(self._name, f"a part of it may not be listed: {e}") from e
        except UNEXPECTED as e:
            raise IncompleteListing(self._name, f"its answer has another shape: {type(e).__name__}") from e
        return sorted(items, key=lambda item: item.uri)

    def fetch(self, uri: str, *, max_bytes: int) -> bytes | None:
        """Return a page as HTML or an attachment's bytes; None when it is gone or in the bin.

        Raises:
            DocumentError: no uri of this source, or Confluence denies this one document.
            LimitExceeded: it is larger than ``max_bytes``.
            DependencyError: Confluence fails, limits us or refuses the token.
        """
        names.checked_parts(uri)
        match = _URI.fullmatch(uri)
        if match is None:
            return None
        try:
            if match[3]:
                return self._api.attachment(match[3], max_bytes=max_bytes)
            body = self._api.body(match[2], dict(_KINDS)[match[1]], self._choices.body)
        except UNEXPECTED as e:
            raise DependencyError(self._name, f"its answer has another shape: {type(e).__name__}") from e
        if body is None:
            return None
        markup = body.markup
        if self._choices.body == "storage":
            markup = storage_to_html(markup, self._user_name)
        data = html_document(body.title, markup)
        if len(data) > max_bytes:
            raise LimitExceeded(f"it has {len(data)} bytes, the limit is {max_bytes}")
        return data

    def _items(self, space: Space) -> Iterable[SourceItem]:
        choices = self._choices
        for folder, kind in _KINDS if choices.blog_posts else _KINDS[:1]:
            contents = self._api.contents(space, kind, attachments=choices.attachments != "none")
            tree = PageTree(contents, self._api)
            for content in contents:
                path = "/".join(_segment(part) for part in (space.key, *tree.titles(content)))
                acl = self._acl(space, effective(tree.levels(content), self._members))
                tags = tuple(sorted({*self.spec.tags, *content.labels}))
                if self._filter.wants(path):
                    yield SourceItem(
                        uri=f"{folder}/{content.id}.html",
                        size=0,  # no listing tells it
                        change_token=f"{content.version}:{choices.body}:{RENDERING}",
                        modified_at=content.modified_at,
                        title=content.title,
                        tags=tags,
                        acl=acl,
                    )
                for attached in content.attachments:
                    wanted = choices.attachments == "all" or not attached.media_type.startswith(_MEDIA)
                    if wanted and self._filter.wants(f"{path}/{_segment(attached.title)}"):
                        yield SourceItem(
                            uri=f"{folder}/{content.id}/attachments/{attached.id}{_suffix(attached)}",
                            size=attached.size,
                            change_token=str(attached.version),
                            modified_at=attached.modified_at,
                            title=attached.title,
                            tags=tags,
                            acl=acl,
                        )

    def _acl(self, space: Space, allowed: Readers | None) -> tuple[str, ...] | None:
        if allowed is None:
            return self._choices.space_acl.get(space.key)  # None: the source's own
        return self._choices.names.acl(allowed)

    def _members(self, name: str, id_: str) -> frozenset[str]:
        if name not in self._groups:
            try:
                self._groups[name] = self._api.members(name, id_)
            except DocumentError:  # who is in it cannot be seen: nobody is let in for it
                logger.warning("%s: the members of a group cannot be read; give the account that right", self._name)
                self._groups[name] = frozenset()
        return self._groups[name]

    def _user_name(self, attribute: str, id_: str) -> str:
        key = (attribute, id_)
        if key not in self._user_names:
            try:
                found = self._api.user_name(attribute, id_)
            except DocumentError:
                found = None
            self._user_names[key] = found or "somebody"
        return self._user_names[key]


def _segment(title: str) -> str:
    """Return a title as one segment of a path."""
    return title.replace("/", "_").strip() or "_"


def _suffix(attached: Attachment) -> str:
    suffix = PurePosixPath(attached.title).suffix.lower()
    return suffix if _SUFFIX.fullmatch(suffix) else ""


def document_url(spec: SourceSpec, uri: str) -> str | None:
    """Return the address at which a person opens the document, None for no uri of this source."""
    match = _URI.fullmatch(uri)
    if match is None:
        return None
    base = str(spec.options.get("site") or base_address(spec)).rstrip("/")
    return f"{base}/pages/{'viewpageattachments' if match[3] else 'viewpage'}.action?pageId={match[2]}"


def build(spec: SourceSpec, settings: PlatformSettings) -> ConfluenceSource:
    """Return the connector. Makes no request.

    Raises:
        ConfigurationError: no such address, an unknown option, or no token.
    """
    where = f"source {spec.name!r}"
    own = settings.vendor(Settings, "RAG_CONFLUENCE_")
    base, choices = base_address(spec), read_choices(spec)
    if base.startswith("http:") and not settings.allow_private_addresses:
        raise ConfigurationError(f"{where}: over http the token could be read by others; use confluence+https://")
    token, variable = credential(spec, settings, own.token, "RAG_CONFLUENCE_TOKEN")
    login = f"Bearer {token}"
    if choices.deployment == "cloud":
        email = choices.email or own.email
        if not email:
            raise ConfigurationError(
                f"{where}: Cloud needs the e-mail of the token's owner: option email, or RAG_CONFLUENCE_EMAIL"
            )
        login = f"Basic {base64.b64encode(f'{email}:{token}'.encode()).decode()}"
    transport = SourceTransport(
        allow_private=settings.allow_private_addresses, timeout_s=own.timeout_s, per_s=own.requests_per_s
    )
    headers = {"Accept": "application/json", "User-Agent": "rag-platform", "Authorization": login}
    client = httpx.Client(transport=transport, headers=headers, trust_env=False)
    api = _DEPLOYMENTS[choices.deployment](ConfluenceHttp(f"source:{spec.name}", base, client, variable))
    return ConfluenceSource(spec, choices, api)
