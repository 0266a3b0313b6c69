"""Rerankers behind Cohere's HTTP interface: Cohere, Jina, vLLM, LiteLLM and others; and that of TEI."""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rag_platform.backends.rerankers.base import Candidate, RerankerSpec
from rag_platform.backends.rerankers.passages import passage
from rag_platform.backends.rerankers.scores import checked
from rag_platform.backends.retry_after import retry_after_s
from rag_platform.errors import ConfigurationError, DependencyError, DependencyTimeout, QuotaExhausted, RateLimited
from rag_platform.identity import fingerprint
from rag_platform.settings import Settings as PlatformSettings
from rag_platform.settings import setting

if TYPE_CHECKING:
    import httpx

NAME = "cohere_compatible"
_DEPENDENCY = f"reranker:{NAME}"
_COHERE = "https://api.cohere.com"
_MAX_ANSWER_BYTES = 16 * 2**20
_PING_S = 5.0


@dataclass(frozen=True)
class Settings:
    """``RAG_RERANK_…``"""

    api_key: str | None = setting(None, "API key; sent as a bearer token.", secret=True)
    base_url: str = setting(_COHERE, "Address of the server, without the path.")
    path: str = setting("/v2/rerank", "Path of the endpoint: /v2/rerank, /v1/rerank or /rerank.")
    model: str = setting("rerank-v3.5", "Model name.")
    request_format: str = setting(
        "cohere", "cohere (Cohere, Jina, vLLM: model, query, documents) or tei (Text Embeddings Inference)."
    )
    max_candidates: int = setting(100, "Passages in one request.")
    usd_per_1000_calls: float | None = setting(None, "Price of a thousand requests; unknown when not set.")

    def validate(self, prefix: str) -> None:
        """Raises ConfigurationError that names the variable."""
        try:
            address = urlsplit(self.base_url)
            usable = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ConfigurationError(f"{prefix}BASE_URL: must be an http:// or https:// address")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ConfigurationError(f"{prefix}API_KEY: must be printable ASCII, as every HTTP header")
        if not self.path.startswith("/"):
            raise ConfigurationError(f"{prefix}PATH: must begin with /")
        if self.request_format not in ("cohere", "tei"):
            raise ConfigurationError(f"{prefix}REQUEST_FORMAT: must be cohere or tei")
        if not 1 <= self.max_candidates <= 10_000:
            raise ConfigurationError(f"{prefix}MAX_CANDIDATES: must be between 1 and 10000")
        if self.usd_per_1000_calls is not None and not 0 <= self.usd_per_1000_calls < 1e6:
            raise ConfigurationError(f"{prefix}USD_PER_1000_CALLS: must be between 0 and 1000000")
        if not self.api_key and self.base_url.rstrip("/") == _COHERE:
            raise ConfigurationError(
                f"{NAME} needs {prefix}API_KEY (or {prefix}BASE_URL of a server without keys, such as vLLM's)"
            )


class CohereCompatibleReranker:
    """One request a ``rerank``, no second try: retries belong to the caller's guard."""

    def __init__(self, own: Settings, prefix: str = "RAG_RERANK_") -> None:
        self._own = own
        self._prefix = prefix
        # A client's connections belong to the event loop that opened them.
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = (
            weakref.WeakKeyDictionary()
        )

    @cached_property
    def spec(self) -> RerankerSpec:
        own = self._own
        price = own.usd_per_1000_calls
        return RerankerSpec(
            name=NAME,
            model=own.model,
            fingerprint=fingerprint(NAME, {"model": own.model, "base_url": own.base_url, "path": own.path}),
            max_candidates=own.max_candidates,
            usd_per_call=None if price is None else price / 1000,
        )

    async def rerank(self, question: str, candidates: Sequence[Candidate], *, timeout_s: float) -> list[float]:
        """Send one request and return its relevance scores in the order of ``candidates``.

        Raises:
            DependencyError: any failure of the service; ``timeout_s`` is for everything.
        """
        if not candidates:
            return []
        passages = [_encodable(passage(c)) for c in candidates]
        body: dict[str, Any]
        if self._own.request_format == "tei":
            body = {"query": _encodable(question), "texts": passages, "truncate": True}
        else:
            body = {
                "model": self._own.model,
                "query": _encodable(question),
                "documents": passages,
                "top_n": len(passages),
            }
        try:
            # A client's own timeouts are per read, and dripped bytes outlive them.
            async with asyncio.timeout(timeout_s):
                raw = await self._post(body)
        except TimeoutError as e:
            raise DependencyTimeout(_DEPENDENCY, f"no answer within {timeout_s:.3g} s") from e
        return _in_order(_parsed(raw), len(passages))

    async def ping(self) -> None:
        probe = Candidate("ping", "", "", None, None, 0.0)
        await self.rerank("ping", [probe], timeout_s=_PING_S)

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later call opens new ones."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    async def _post(self, body: Mapping[str, Any]) -> bytes:
        client = await self._client()
        import httpx  # imported with the client

        try:
            async with client.stream("POST", self._own.path, json=body) as response:
                if response.status_code != 200:
                    raise self._of_status(response)
                parts: list[bytes] = []
                size = 0
                async for part in response.aiter_bytes():
                    size += len(part)
                    if size > _MAX_ANSWER_BYTES:
                        raise DependencyError(_DEPENDENCY, f"answered more than {_MAX_ANSWER_BYTES} bytes")
                    parts.append(part)
                return b"".join(parts)
        except httpx.HTTPError as e:  # refused, reset, cut, not HTTP, badly compressed
            raise DependencyError(_DEPENDENCY, f"cannot be reached ({type(e).__name__})") from e

    def _of_status(self, response: httpx.Response) -> DependencyError:
        """Never quotes the response: it may repeat the request's text."""
        status = response.status_code
        if status == 402:
            return QuotaExhausted(_DEPENDENCY, "out of credit: raise the limit at the provider")
        if status == 429:
            return RateLimited(_DEPENDENCY, "too many requests", retry_after_s=retry_after_s(response.headers))
        if status in (401, 403):
            return DependencyError(
                _DEPENDENCY, f"HTTP {status}: check {self._prefix}API_KEY and its rights", retryable=False
            )
        if 300 <= status < 400 or status in (404, 405):
            return DependencyError(
                _DEPENDENCY,
                f"HTTP {status}: check {self._prefix}BASE_URL, {self._prefix}PATH and {self._prefix}MODEL",
                retryable=False,
            )
        # 400, 413 and 422 too: about this request, so that they must not open the breaker for all others.
        return DependencyError(_DEPENDENCY, f"HTTP {status}", retry_after_s=retry_after_s(response.headers))

    async def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            # In a thread: the import and the certificates take a while, in which others must be answered.
            fresh = await asyncio.to_thread(self._new_client)
            client = self._clients.setdefault(loop, fresh)
            if client is not fresh:
                await fresh.aclose()
        return client

    def _new_client(self) -> httpx.AsyncClient:
        import httpx

        headers = {"Authorization": f"Bearer {self._own.api_key}"} if self._own.api_key else {}
        return httpx.AsyncClient(base_url=self._own.base_url, headers=headers, timeout=None)


def _encodable(text: str) -> str:
    """JSON bodies are UTF-8, which has no lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _parsed(raw: bytes) -> list[Any]:
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError) as e:
        raise DependencyError(_DEPENDENCY, "answered something that is not JSON") from e
    rows = answer.get("results") if isinstance(answer, dict) else answer
    if not isinstance(rows, list):
        raise DependencyError(_DEPENDENCY, "answered JSON without results")
    return rows


def _in_order(rows: list[Any], count: int) -> list[float]:
    """Sort the scores by their index; each of 0 … count − 1 occurs exactly once."""
    scores: dict[int, float] = {}
    for row in rows:
        index = row.get("index") if isinstance(row, dict) else None
        score = row.get("relevance_score", row.get("score")) if isinstance(row, dict) else None
        if type(index) is not int or isinstance(score, bool) or not isinstance(score, int | float):
            raise DependencyError(_DEPENDENCY, "answered a result without index or score")
        scores[index] = score
    if len(rows) != count or set(scores) != set(range(count)):
        raise DependencyError(
            _DEPENDENCY, f"answered {len(rows)} results for {count} passages, or without their places"
        )
    return checked([scores[i] for i in range(count)], count, _DEPENDENCY)


def build(settings: PlatformSettings, prefix: str = "RAG_RERANK_") -> CohereCompatibleReranker:
    """Build the reranker; does no I/O.

    Raises:
        ConfigurationError: a value makes no sense, or there is no key for Cohere's own service.
    """
    own = settings.vendor(Settings, prefix)
    own.validate(prefix)
    return CohereCompatibleReranker(own, prefix)
