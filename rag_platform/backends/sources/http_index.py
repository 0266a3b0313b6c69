"""Pages of a web server as a source: the links of an index page and of the folders below it.

``https://host/docs/`` (with the slash) lists what its index links to inside ``/docs/``, folder by
folder, as web servers' own directory listings do; a URL without the slash is one document. The change
token is the ETag, else Last-Modified with the length, else one that never repeats. Private and
loopback addresses are refused unless ``RAG_ALLOW_PRIVATE_ADDRESSES`` is set, redirects included.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from urllib.parse import quote, unquote, urldefrag, urljoin, urlsplit

from rag_platform.backends.sources import names
from rag_platform.backends.sources.addresses import AddressRefused
from rag_platform.backends.sources.globs import DEFAULT_EXCLUDE, PathFilter
from rag_platform.backends.sources.http_client import Answer, BodyTooLarge, ExchangeFailed, HttpClient
from rag_platform.errors import (
    ConfigurationError,
    DependencyError,
    DocumentError,
    IncompleteListing,
    LimitExceeded,
    RateLimited,
)
from rag_platform.identity import digest
from rag_platform.records import SourceItem, SourceSpec
from rag_platform.settings import Settings

MAX_FOLDERS = 10_000
MAX_INDEX_BYTES = 20_000_000
_HEAD_REQUESTS = 8
_CURE = "set RAG_ALLOW_PRIVATE_ADDRESSES=true when that is meant"


class HttpIndexSource:
    """Lists and reads the documents below a URL.

    Args:
        spec: the source.
        client: makes the requests.
    """

    def __init__(self, spec: SourceSpec, client: HttpClient) -> None:
        self.spec = spec
        self._client = client
        self._name = f"source:{spec.name}"
        self._root = urldefrag(spec.uri).url
        self._single = not urlsplit(self._root).path.endswith("/") and urlsplit(self._root).path != ""
        if not self._single and not self._root.endswith("/"):
            self._root += "/"
        self._place = digest("place", self._root)[:8]
        defaults = DEFAULT_EXCLUDE if spec.options.get("default_excludes", True) else ()
        self._filter = PathFilter(spec.include, (*spec.exclude, *defaults))

    def list(self) -> Sequence[SourceItem]:
        """Return every wanted document, sorted by uri.

        Raises:
            IncompleteListing: some index page or document does not answer as it should.
        """
        uris = [names.encode(self._single_name())] if self._single else self._crawl()
        with ThreadPoolExecutor(_HEAD_REQUESTS) as pool:
            items = list(pool.map(self._look, uris))
        return [item for item in items if item is not None]

    def fetch(self, uri: str, *, max_bytes: int) -> bytes | None:
        """Return a document's bytes, or None when it has vanished (404, 410).

        Raises:
            DocumentError: the path leaves the root, or this document is denied (401, 403).
            LimitExceeded: it is larger than ``max_bytes``.
            DependencyError: the server fails, limits us or may not be reached.
        """
        names.checked_parts(uri)
        try:
            answer = self._client.request("GET", self._url(uri), max_bytes=max_bytes)
        except BodyTooLarge:
            raise LimitExceeded(f"it has more than {max_bytes} bytes") from None
        except AddressRefused as e:
            raise DependencyError(self._name, f"its address is not public; {_CURE}", retryable=False) from e
        except ExchangeFailed as e:
            raise DependencyError(self._name, f"reading failed: {e}") from e
        if answer.status in (404, 410):
            return None
        if answer.status in (401, 403):
            raise DocumentError(f"the server denies it (HTTP {answer.status})")
        if answer.status == 429:
            wait = answer.headers.get("retry-after", "")
            raise RateLimited(self._name, "HTTP 429", retry_after_s=float(wait) if wait.isdecimal() else None)
        if answer.status != 200:
            raise DependencyError(self._name, f"reading failed: HTTP {answer.status}")
        return answer.body

    # ── listing ──
    def _crawl(self) -> Sequence[str]:
        """Return the uris that the index pages link to, sorted."""
        found: set[str] = set()
        folders, seen = [""], {""}
        while folders:
            folder = folders.pop()
            answer = self._listed("GET", self._root + quote(folder))
            if answer.status != 200:
                raise IncompleteListing(self._name, f"index of {folder or 'its root'!r}: HTTP {answer.status}")
            for target in _links(answer):
                uri = self._relative(target)
                if uri is None or uri in seen:
                    continue
                seen.add(uri)
                if not uri.endswith("/"):
                    if self._filter.wants(uri):
                        found.add(uri)
                elif self._filter.enters(uri.rstrip("/")):
                    folders.append(uri)
                    if len(seen) > MAX_FOLDERS and len(folders) > MAX_FOLDERS:
                        raise IncompleteListing(self._name, f"it has more than {MAX_FOLDERS} folders")
        return sorted(found)

    def _relative(self, url: str) -> str | None:
        """Return the uri of a link below the root, else None. Links with a query are other views of
        the same index (sorted by size, by name)."""
        if not url.startswith(self._root) or urlsplit(url).query:
            return None
        uri = unquote(url[len(self._root) :])
        try:
            names.checked_parts(uri.removesuffix("/"))
        except DocumentError:
            return None
        return uri

    def _look(self, uri: str) -> SourceItem | None:
        answer = self._listed("HEAD", self._url(uri))
        if answer.status in (404, 410):
            if self._single:
                raise IncompleteListing(self._name, f"there is nothing at its URL: HTTP {answer.status}")
            return None  # a dead link
        if answer.status not in (200, 401, 403, 405, 501):  # those are for fetch to report, one by one
            raise IncompleteListing(self._name, f"{uri!r}: HTTP {answer.status}")
        size = answer.headers.get("content-length", "")
        modified = _seconds(answer.headers.get("last-modified"))
        etag = answer.headers.get("etag")
        if etag:
            token = f"{etag}:{size}"
        elif modified is not None:
            token = f"{self._place}:{size}:{modified!r}"
        else:
            token = f"unknown:{time.time_ns()}"
        return SourceItem(uri, int(size) if size.isdecimal() else 0, token, modified_at=modified)

    def _listed(self, method: str, url: str) -> Answer:
        try:
            return self._client.request(method, url, max_bytes=MAX_INDEX_BYTES)
        except AddressRefused as e:
            raise IncompleteListing(self._name, f"its address is not public; {_CURE}") from e
        except BodyTooLarge as e:
            raise IncompleteListing(self._name, f"an index page has more than {MAX_INDEX_BYTES} bytes") from e
        except ExchangeFailed as e:
            raise IncompleteListing(self._name, f"listing failed: {e}") from e

    def _url(self, uri: str) -> str:
        return self._root if self._single and uri == self._single_name() else self._root + quote(uri)

    def _single_name(self) -> str:
        return unquote(urlsplit(self._root).path.rsplit("/", 1)[-1])


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.targets += [value for name, value in attrs if name == "href" and value]


def _links(answer: Answer) -> list[str]:
    """Return the absolute targets of a page's links, without fragments."""
    anchors = _Anchors()
    anchors.feed(answer.body.decode("utf-8", "replace"))
    links = []
    for target in anchors.targets:
        try:
            links.append(urldefrag(urljoin(answer.url, target.strip())).url)
        except ValueError:
            continue  # not a URL
    return links


def _seconds(http_date: str | None) -> float | None:
    try:
        return parsedate_to_datetime(http_date).timestamp() if http_date else None
    except ValueError:
        return None


def document_url(spec: SourceSpec, uri: str) -> str | None:
    """Return the address of a document below the source's."""
    root = urldefrag(spec.uri).url
    if urlsplit(root).path in ("", "/") or root.endswith("/"):
        return f"{root.rstrip('/')}/{quote(uri)}"
    return root


def build(spec: SourceSpec, settings: Settings) -> HttpIndexSource:
    """Return the connector. Makes no request.

    Raises:
        ConfigurationError: not an http(s) URL, or one with a password or a query.
    """
    url = urlsplit(spec.uri)
    where = f"source {spec.name!r}"
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigurationError(f"{where}: {spec.uri!r} is not an http(s) URL")
    if url.username or url.password:
        raise ConfigurationError(f"{where}: no user names or passwords in URLs")
    if url.query:
        raise ConfigurationError(f"{where}: a URL with a query cannot be listed")
    return HttpIndexSource(spec, HttpClient(settings.allow_private_addresses))
