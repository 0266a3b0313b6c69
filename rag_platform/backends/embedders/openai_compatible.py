"""Embeddings of OpenAI, or of any server that speaks its ``/v1/embeddings``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rag_platform.backends.embedders.base import EmbedderSpec, TextKind, Tokenizer
from rag_platform.backends.embedders.resilience import Policy, ResilientEmbedder
from rag_platform.backends.embedders.tokenizers import (
    ApproximateTokenizer,
    HuggingFaceTokenizer,
    TiktokenTokenizer,
    encodable,
)
from rag_platform.backends.openai_clients import OpenAIClients
from rag_platform.errors import ConfigurationError, DependencyError, DependencyTimeout, EmbeddingRefused
from rag_platform.identity import fingerprint
from rag_platform.records import EmbeddingBatch
from rag_platform.settings import Settings as PlatformSettings
from rag_platform.settings import setting

NAME = "openai_compatible"
PREFIX = "RAG_OPENAI_"
_DEPENDENCY = f"embedder:{NAME}"

_USD_PER_MILLION_TOKENS = {
    # openai.com/api/pricing, agreeing with genai-prices 0.2.3 (2026); RAG_OPENAI_USD_PER_MILLION_TOKENS overrides.
    "text-embedding-3-small": 0.02,
    "text-embedding-3-large": 0.13,
    "text-embedding-ada-002": 0.10,
}
_LARGEST = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072}
"""Models whose vectors can be shortened (``dimensions`` is sent), and their full length."""


@dataclass(frozen=True)
class Settings:
    """``RAG_OPENAI_…``"""

    api_key: str | None = setting(None, "API key; default: OPENAI_API_KEY, for OpenAI's own address only.", secret=True)
    base_url: str | None = setting(None, "Address of another server, with its /v1; default: OpenAI's own.")
    model: str = setting("text-embedding-3-small", "Model name.")
    dimensions: int = setting(1536, "Length of a vector; sent to the models that can shorten theirs.")
    max_tokens: int = setting(8191, "Longest text that the model takes, in tokens; longer ones are cut.")
    tokenizer: str = setting(
        "auto",
        "Counts tokens: cl100k, approximate, or the path of a tokenizer.json; auto: cl100k for text-embedding-*, else approximate.",
    )
    query_prefix: str = setting("", "Put before questions, for models that want it.")
    passage_prefix: str = setting("", "Put before passages, for models that want it.")
    batch_size: int = setting(128, "Texts per request, at most 2048.")
    batch_tokens: int = setting(250_000, "Tokens per request, at most 300000.")
    concurrency: int = setting(8, "Requests at the same time; halved while the server says 429.")
    requests_per_minute: float = setting(0.0, "Own limit of requests; 0 is none.")
    tokens_per_minute: float = setting(0.0, "Own limit of tokens; 0 is none.")
    request_timeout_s: float = setting(30.0, "Deadline of one request.")
    usd_per_million_tokens: float | None = setting(None, "Price; default: the list price of OpenAI's models.")

    def validate(self) -> None:
        """Raises ConfigurationError that names the variable."""
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise ConfigurationError("RAG_OPENAI_BASE_URL: must begin with http:// or https://")
        largest = _LARGEST.get(self.model, 2**16) if self.base_url is None else 2**16
        for name, low, high in (
            ("dimensions", 1, largest),
            ("max_tokens", 8, 2**20),
            ("batch_size", 1, 2048),
            ("batch_tokens", 8, 300_000),
            ("concurrency", 1, 1024),
            ("requests_per_minute", 0, 1e9),
            ("tokens_per_minute", 0, 1e12),
            ("request_timeout_s", 0.05, 3600),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigurationError(f"RAG_OPENAI_{name.upper()}: must be between {low} and {high}")


class OpenAICompatibleEmbedder:
    """One request per ``embed`` and no second try: ``build`` wraps it in ``ResilientEmbedder``."""

    def __init__(self, own: Settings, api_key: str) -> None:
        self._own = own
        self._clients = OpenAIClients(api_key, own.base_url, own.request_timeout_s)

    @cached_property
    def spec(self) -> EmbedderSpec:
        own = self._own
        prefixes = {"query": own.query_prefix, "passage": own.passage_prefix}
        price = own.usd_per_million_tokens
        if price is None:
            price = _USD_PER_MILLION_TOKENS.get(own.model) if own.base_url is None else None
        return EmbedderSpec(
            name=NAME,
            model=own.model,
            fingerprint=fingerprint(
                NAME,
                {"model": own.model, "dimensions": own.dimensions, "max_tokens": own.max_tokens, "prefixes": prefixes},
            ),
            dimensions=own.dimensions,
            max_tokens=own.max_tokens,
            batch_size=own.batch_size,
            concurrency=own.concurrency,
            usd_per_million_tokens=price,
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        choice = self._own.tokenizer
        if choice == "auto":
            choice = "cl100k" if self._own.model.startswith("text-embedding-") else "approximate"
        if choice == "cl100k":
            return TiktokenTokenizer()
        if choice == "approximate":
            return ApproximateTokenizer()
        if not Path(choice).is_file():
            raise ConfigurationError("RAG_OPENAI_TOKENIZER: must be auto, cl100k, approximate or a tokenizer.json")
        return HuggingFaceTokenizer(Path(choice))

    async def embed(
        self, texts: Sequence[str], *, kind: TextKind = "passage", timeout_s: float | None = None
    ) -> EmbeddingBatch:
        """Send one request. The vectors are in the order of the texts and otherwise as received.

        Raises:
            DependencyError: any failure of the service.
            EmbeddingRefused: it refuses the content or the size.
        """
        prefix = self._own.query_prefix if kind == "query" else self._own.passage_prefix
        options: dict[str, Any] = {} if timeout_s is None else {"timeout": timeout_s}
        if self._own.model in _LARGEST:
            options["dimensions"] = self._own.dimensions
        sent = [self._fitting(prefix + t) for t in texts]
        client = await self._clients.get()
        from rag_platform.backends.openai_errors import mapped  # imports the SDK, as did the client

        try:
            # An async timeout as well: the SDK's own is per read, and dripped bytes outlive it.
            async with asyncio.timeout(timeout_s):
                answer = await client.embeddings.create(model=self._own.model, input=sent, **options)
            return EmbeddingBatch(_in_order(answer.data, len(sent)), self._billed(answer, sent))
        except TimeoutError as e:
            raise DependencyTimeout(_DEPENDENCY, "no answer in time") from e
        except Exception as e:
            ours = mapped(e, _DEPENDENCY, PREFIX, _refused)
            if ours is e:
                raise
            raise ours from e

    async def ping(self) -> None:
        await self.embed(["ping"])

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later call opens new ones."""
        await self._clients.aclose()

    def _fitting(self, text: str) -> str:
        """Cut at ``max_tokens``; the API refuses an empty string, and takes a space."""
        text = encodable(text)
        # A token is never shorter than a byte, so most texts need no count.
        if 4 * len(text) > self._own.max_tokens:
            offsets = self.tokenizer.offsets(text)
            if len(offsets) > self._own.max_tokens:
                text = text[: int(offsets[self._own.max_tokens, 0])]
        return text or " "

    def _billed(self, answer: Any, sent: Sequence[str]) -> int:
        tokens = getattr(getattr(answer, "usage", None), "total_tokens", None)
        return tokens if isinstance(tokens, int) and tokens >= 0 else sum(self.tokenizer.count(sent))


def _refused(what: str) -> EmbeddingRefused:
    return EmbeddingRefused(f"{_DEPENDENCY} refused the text ({what})")


def _in_order(data: Any, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Sort the items by their index, which must be 0 … count − 1."""
    items = {item.index: item.embedding for item in data}
    if len(data) != count or set(items) != set(range(count)):
        raise DependencyError(_DEPENDENCY, f"answered {len(data)} vectors for {count} texts, or without their places")
    return np.array([items[i] for i in range(count)], dtype=np.float32)


def build(settings: PlatformSettings) -> ResilientEmbedder:
    """Build the embedder; does no I/O.

    Raises:
        ConfigurationError: a value makes no sense, or there is no key for OpenAI's own service.
    """
    own = settings.vendor(Settings, PREFIX)
    own.validate()
    api_key = own.api_key
    if not api_key and own.base_url is None:
        api_key = settings.environ.get("OPENAI_API_KEY")
        if not api_key:
            raise ConfigurationError(
                "openai_compatible needs RAG_OPENAI_API_KEY (or RAG_OPENAI_BASE_URL of a server without keys)"
            )
    policy = Policy(
        timeout_s=settings.embed_timeout_s,
        request_timeout_s=own.request_timeout_s,
        max_request_texts=own.batch_size,
        max_request_tokens=own.batch_tokens,
        requests_per_minute=own.requests_per_minute,
        tokens_per_minute=own.tokens_per_minute,
    )
    return ResilientEmbedder(OpenAICompatibleEmbedder(own, api_key or "none"), policy)
