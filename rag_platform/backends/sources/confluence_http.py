"""Requests to Confluence's REST interfaces: errors, links to the next page of results, downloads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpx

from rag_platform.backends.sources.api_errors import exchanged, rate_limited, refused_token
from rag_platform.backends.sources.confluence_acl import Readers
from rag_platform.backends.sources.confluence_shapes import readers
from rag_platform.errors import DependencyError, DocumentError, IncompleteListing

PER_PAGE = 200
_MAX_REDIRECTS = 5
_REFUSED_LOGINS = ("AUTHENTICATED_FAILED", "AUTHENTICATION_DENIED")


class ConfluenceHttp:
    """Requests to one Confluence.

    Args:
        dependency: as in ``DependencyError.dependency``.
        base: the address of the application, without a slash at the end (``https://acme.atlassian.net/wiki``).
        client: speaks through a ``SourceTransport`` and carries the login.
        token_variable: named when the login is refused.
    """

    def __init__(self, dependency: str, base: str, client: httpx.Client, token_variable: str) -> None:
        self.dependency, self.base = dependency, base
        self._client, self._token_variable = client, token_variable

    def get(self, path: str, **params: Any) -> dict[str, Any] | None:
        """Return the JSON object at a path below ``base``, None for 404.

        Raises:
            DocumentError: 403.
            DependencyError: anything else that is not this object.
        """
        return self._json(self.base + path, params)

    def results(self, path: str, *, may_be_absent: bool = False, **params: Any) -> Iterator[dict[str, Any]]:
        """Yield all results of a listing, page after page of it; nothing of one that ``may_be_absent``.

        Raises:
            IncompleteListing: a page of it is missing, repeats or has another shape.
        """
        url: str | None = self.base + path
        seen: set[str] = set()
        while url is not None:
            found = self._json(url, params)
            if found is None and may_be_absent and not seen:
                return
            rows = None if found is None else found.get("results")
            if found is None or not isinstance(rows, list):
                raise IncompleteListing(self.dependency, "a page of results is missing")
            yield from rows
            seen.add(url)
            link = (found.get("_links") or {}).get("next")
            url, params = self._absolute(str(link)) if link else None, {}
            if url in seen:
                raise IncompleteListing(self.dependency, "its pages of results go in a circle")

    def restriction(self, id_: str) -> Readers | None:
        """Return the view restriction of one piece of content, complete however long.

        Raises:
            DocumentError: it cannot be seen.
        """
        users: list[dict[str, Any]] = []
        groups: list[dict[str, Any]] = []
        start = 0
        while True:
            found = self.get(
                f"/rest/api/content/{quote(id_)}/restriction/byOperation/read",
                expand="restrictions.user,restrictions.group", start=start, limit=PER_PAGE,
            )  # fmt: skip
            lists = (found or {}).get("restrictions")
            if lists is None:
                raise DocumentError("its restrictions cannot be seen")
            more = [lists[k]["results"] for k in ("user", "group")]
            users += more[0]
            groups += more[1]
            if max(map(len, more)) < PER_PAGE:
                return readers(users, groups)
            start += PER_PAGE

    def download(self, path: str, *, max_bytes: int) -> bytes | None:
        """Return the bytes behind a link of Confluence's, None for 404; the login goes to no other host.

        Raises:
            LimitExceeded, DocumentError, DependencyError.
        """
        url = self._absolute(path)
        for _ in range(_MAX_REDIRECTS + 1):
            request = self._client.build_request("GET", url, extensions={"max_bytes": max_bytes})
            response = self._answer(request, redirects=True)
            location = response.headers.get("location")
            if not 300 <= response.status_code < 400 or not location:
                return None if response.status_code == 404 else response.content
            target = urljoin(url, location)
            if urlsplit(target).scheme not in ("http", "https") or (url[:6] == "https:" and target[:6] != "https:"):
                raise DocumentError("its download leads away from https")
            url = target
        raise DocumentError("its download redirects without an end")

    def _json(self, url: str, params: Mapping[str, Any]) -> dict[str, Any] | None:
        response = self._answer(self._client.build_request("GET", url, params=params or None), redirects=False)
        if response.status_code == 404:
            return None
        try:
            found = response.json()
        except ValueError as e:
            raise DependencyError(self.dependency, "its answer is not JSON") from e
        if not isinstance(found, dict):
            raise DependencyError(self.dependency, "its answer is not a JSON object")
        return found

    def _answer(self, request: httpx.Request, *, redirects: bool) -> httpx.Response:
        if not _same_origin(str(request.url), self.base):
            request.headers.pop("authorization", None)
        response = exchanged(self.dependency, lambda: self._client.send(request, follow_redirects=False))
        self._check(response, redirects)
        return response

    def _check(self, response: httpx.Response, redirects: bool) -> None:
        status = response.status_code
        # Confluence may answer a refused login as if nobody had logged in, and lists what is public.
        login = response.headers.get("x-seraph-loginreason", "")
        if status == 401 or any(word in login for word in _REFUSED_LOGINS):
            raise refused_token(self.dependency, status, self._token_variable)
        if status == 403:
            raise DocumentError("Confluence denies it (HTTP 403)", cure="give the service account read access to it")
        if status == 429:
            raise rate_limited(self.dependency, response.headers)
        if (status >= 400 and status != 404) or (300 <= status < 400 and not redirects):
            raise DependencyError(self.dependency, f"HTTP {status}")

    def _absolute(self, link: str) -> str:
        """Return the address of a link in an answer: below the context path, or with it, or absolute."""
        if "://" in link:
            if not _same_origin(link, self.base):
                raise IncompleteListing(self.dependency, "its next page of results is on another host")
            return link
        context = urlsplit(self.base).path
        origin = self.base.removesuffix(context) if context else self.base
        if context and link.startswith(f"{context}/"):
            return origin + link
        if self.base.endswith("/wiki") and link.startswith("/wiki/"):  # through api.atlassian.com/ex/confluence/…
            return self.base.removesuffix("/wiki") + link
        return self.base + link


def _same_origin(one: str, other: str) -> bool:
    a, b = urlsplit(one), urlsplit(other)
    return (a.scheme, a.hostname, a.port) == (b.scheme, b.hostname, b.port)
