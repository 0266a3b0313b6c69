"""Google's application default credentials, asked for through our own transport so that they end at a deadline."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, cast

import httpx

from rag_platform.backends.sources.api_transport import SourceTransport
from rag_platform.backends.sources.http_client import BodyTooLarge, ExchangeFailed
from rag_platform.errors import DependencyError

READ_ONLY = "https://www.googleapis.com/auth/devstorage.read_only"
READ_WRITE = "https://www.googleapis.com/auth/devstorage.read_write"
_TIMEOUT_S = 15.0
_CURE = (
    "set GOOGLE_APPLICATION_CREDENTIALS to a key file, run `gcloud auth application-default login`, or give the machine a "
    "service account; RAG_GCS_ANONYMOUS=true reads public buckets without a login"
)


class GoogleLogin:
    """Finds the credentials at first use and keeps their token fresh. Safe for threads.

    Args:
        dependency: for errors.
        scope: what the token may be used for.
    """

    def __init__(self, dependency: str, scope: str) -> None:
        self._dependency, self._scope = dependency, scope
        self._lock = threading.Lock()
        self._credentials: Any = None
        # The token's address is Google's, or the metadata server's, which is a link-local one.
        transport = SourceTransport(allow_private=True, timeout_s=_TIMEOUT_S, per_s=100.0)
        self._client = httpx.Client(transport=transport, follow_redirects=False)

    def headers(self, *, anew: bool = False) -> dict[str, str]:
        """Return the headers that carry the login.

        Args:
            anew: the last token was refused; get another one.

        Raises:
            DependencyError: there are no credentials, or no token is given for them.
        """
        from google.auth import exceptions

        with self._lock:
            try:
                if self._credentials is None:
                    self._credentials = self._found()
                if anew:
                    self._credentials.refresh(self._request)
                headers: dict[str, str] = {}
                self._credentials.before_request(self._request, "GET", "", headers)
            except exceptions.TransportError as e:
                raise DependencyError(self._dependency, "no usable answer to the request for a login") from e
            except exceptions.RefreshError as e:
                again = bool(getattr(e, "retryable", False))
                raise DependencyError(self._dependency, f"the login is refused: {_CURE}", retryable=again) from e
            except (exceptions.GoogleAuthError, OSError, ValueError) as e:
                reason = f"no usable login ({type(e).__name__}): {_CURE}"
                raise DependencyError(self._dependency, reason, retryable=False) from e
            return headers

    def _found(self) -> Any:
        import google.auth

        credentials, _ = google.auth.default(scopes=[self._scope], request=cast(Any, self._request))
        return credentials

    def _request(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> _Answer:
        """Answer as google-auth asks. Our own deadline stands for ``timeout``."""
        from google.auth import exceptions

        try:
            return _Answer(self._client.request(method, url, content=body, headers=dict(headers or {})))
        except (ExchangeFailed, BodyTooLarge, OSError, httpx.HTTPError, httpx.InvalidURL) as e:
            raise exceptions.TransportError(type(e).__name__) from e  # type: ignore[no-untyped-call]


class _Answer:
    """``google.auth.transport.Response`` of an httpx response."""

    def __init__(self, response: httpx.Response) -> None:
        self.status, self.headers, self.data = response.status_code, response.headers, response.content
