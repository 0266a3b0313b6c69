"""Requests to the JSON interface of Google Cloud Storage, with hard deadlines and errors of ours.

Not through gcsfs (read at 2026.10): its first read of a bucket asks a gRPC service for the bucket's type, which took
47 s where that does not answer; a denial is a bare ``OSError`` with address and body in its text; waits that the
service asks for are not kept; a listing's page is not checked. Four requests are needed here.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from rag_platform.backends.gcs_access import GcsAccess
from rag_platform.backends.gcs_login import READ_ONLY, READ_WRITE, GoogleLogin
from rag_platform.backends.object_refused import ObjectRefused
from rag_platform.backends.sources.api_errors import UNEXPECTED, exchanged, rate_limited
from rag_platform.backends.sources.api_transport import MAX_JSON_BYTES, SourceTransport
from rag_platform.errors import DependencyError, DependencyTimeout, LimitExceeded, QuotaExhausted

PAGE = 1000
_FIELDS = "kind,nextPageToken,items(name,size,generation,timeCreated,metadata)"
_ITEM_FIELDS = "name,size,generation,timeCreated,metadata"
_UNLIMITED_BYTES = 1 << 40
_ERROR_BYTES = 64_000
_PER_S = 2000.0
_SLOW_DOWN = ("rateLimitExceeded", "userRateLimitExceeded")
_OUT_OF_QUOTA = ("quotaExceeded", "dailyLimitExceeded", "accountDisabled")


@dataclass(frozen=True, slots=True)
class Got:
    """An object's bytes and the generation that they belong to, empty where the service does not say it."""

    data: bytes
    generation: str


class GcsClient:
    """Makes no request before it is used; safe for threads. Its connections close when it is collected.

    Args:
        access: endpoint and login.
        dependency: its role and name, for errors.
        writes: ask for a login that may write.
        allow_private: reach addresses that are not public.
    """

    def __init__(self, access: GcsAccess, dependency: str, *, writes: bool, allow_private: bool) -> None:
        self.dependency, self._access = dependency, access
        transport = SourceTransport(allow_private=allow_private, timeout_s=access.timeout_s, per_s=_PER_S)
        self._client = httpx.Client(transport=transport, follow_redirects=False)
        scope = READ_WRITE if writes else READ_ONLY
        self._login = None if access.anonymous else GoogleLogin(dependency, scope)

    def pages(self, bucket: str, prefix: str, *, size: int | None = None) -> Iterator[list[dict[str, Any]]]:
        """Yield the objects whose names begin with ``prefix``, page by page, in the order of their names.

        Raises:
            ObjectRefused: no such bucket, or it may not be listed.
            DependencyError: everything else, a page of another shape included.
        """
        started, token = time.monotonic(), None
        while True:
            if time.monotonic() - started > self._access.listing_timeout_s:
                late = f"not listed within {self._access.listing_timeout_s:g} s"
                raise DependencyTimeout(self.dependency, late)
            query = {"prefix": prefix, "maxResults": str(size or PAGE), "fields": _FIELDS}
            page = self._json("GET", _of(bucket), query | ({"pageToken": token} if token else {}), absent="no bucket")
            rows, last = page.get("items", []), token
            token = page.get("nextPageToken")
            if page.get("kind") != "storage#objects" or not isinstance(rows, list) or (token and token == last):
                raise DependencyError(self.dependency, "no usable answer (a listing page of another shape)")
            yield rows
            if not token:
                return

    def stat(self, bucket: str, name: str, *, generation: str = "") -> dict[str, Any]:
        """Return an object's row as a listing has it.

        Raises:
            ObjectRefused, DependencyError: as ``get``.
        """
        query = {"fields": _ITEM_FIELDS} | ({"generation": generation} if generation else {})
        return self._json("GET", _of(bucket, name), query)

    def get(self, bucket: str, name: str, *, max_bytes: int | None = None) -> Got:
        """Return an object by one request, so that its bytes are those of one generation.

        Raises:
            LimitExceeded: it is larger than ``max_bytes``.
            ObjectRefused: it is absent, or may not be read.
            DependencyError: everything else.
        """
        # An answer that says no has a body too, which must not be mistaken for a large object.
        limit = _UNLIMITED_BYTES if max_bytes is None else max(max_bytes, _ERROR_BYTES)
        answer = self._request("GET", _of(bucket, name), {"alt": "media"}, max_bytes=limit)
        if max_bytes is not None and len(answer.content) > max_bytes:
            raise LimitExceeded(f"it has more than {max_bytes} bytes")
        return Got(answer.content, answer.headers.get("x-goog-generation", ""))

    def put(self, bucket: str, name: str, data: bytes) -> None:
        """Store bytes. Raises as ``get``."""
        query = {"uploadType": "media", "name": name, "fields": "name"}
        self._json("POST", f"/upload{_of(bucket)}", query, content=data, absent="no bucket")

    def delete(self, bucket: str, name: str) -> None:
        """Delete. Raises as ``get``."""
        self._request("DELETE", _of(bucket, name), {})

    def _json(self, method: str, path: str, query: dict[str, str], **how: Any) -> dict[str, Any]:
        answer = self._request(method, path, query, **how)
        try:
            found = json.loads(answer.content)
        except ValueError as e:
            raise DependencyError(self.dependency, "no usable answer (no JSON)") from e
        if answer.status_code != 200 or not isinstance(found, dict):
            raise DependencyError(self.dependency, "no usable answer (another shape)")
        return found

    def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        *,
        content: bytes | None = None,
        max_bytes: int = MAX_JSON_BYTES,
        absent: Any = "absent",
    ) -> httpx.Response:
        if self._access.user_project:
            query = {**query, "userProject": self._access.user_project}
        for attempt in (1, 2):
            headers = {} if self._login is None else self._login.headers(anew=attempt == 2)
            if content is not None:
                headers["Content-Type"] = "application/octet-stream"
            request = self._client.build_request(
                method, self._access.endpoint + path, params=query, content=content, headers=headers
            )
            request.extensions["max_bytes"] = max_bytes
            answer = exchanged(self.dependency, functools.partial(self._client.send, request))
            if answer.status_code != 401 or self._login is None:
                break  # else: the token has ended before its time
        if answer.status_code in (200, 204):
            return answer
        raise self._refused(answer, absent)

    def _refused(self, answer: httpx.Response, absent: Any) -> Exception:
        status, reason = answer.status_code, _reason(answer)
        if status == 429 or reason in _SLOW_DOWN:
            return rate_limited(self.dependency, answer.headers)
        if reason in _OUT_OF_QUOTA:
            return QuotaExhausted(self.dependency, f"it refuses ({reason}): check the quota and the account")
        if status == 401:
            cure = "check GOOGLE_APPLICATION_CREDENTIALS, or the service account of the machine"
            return DependencyError(self.dependency, f"the login is refused: {cure}", retryable=False)
        if status == 403:
            return ObjectRefused("denied", reason or "403")
        if status == 404:
            return ObjectRefused(absent, reason or "404")
        if status == 400 and "requester pays" in answer.text[:2000]:
            cure = "set RAG_GCS_USER_PROJECT, or storage: {user_project: …}"
            return DependencyError(self.dependency, f"its requester pays: {cure}", retryable=False)
        retryable = status >= 500 or status == 408
        return DependencyError(self.dependency, f"it fails (HTTP {status})", retryable=retryable)


def refused(dependency: str, refusal: ObjectRefused, *, action: str) -> DependencyError:
    """Return a refusal that concerns everything as an error with its cure; ``action`` is the permission needed."""
    if refusal.what == "denied":
        reason = f"access is denied: grant {action} to the login that is used"
    elif refusal.what == "no bucket":
        reason = "its bucket is not there: check the address and the endpoint"
    else:
        reason = str(refusal)
    return DependencyError(dependency, reason, retryable=False)


def _of(bucket: str, name: str | None = None) -> str:
    path = f"/storage/v1/b/{quote(bucket, safe='')}/o"
    return path if name is None else f"{path}/{quote(name, safe='')}"


def _reason(answer: httpx.Response) -> str:
    try:
        return str(json.loads(answer.content)["error"]["errors"][0]["reason"])
    except UNEXPECTED:
        return ""
