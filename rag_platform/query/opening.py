"""Builds, from settings, everything that a question is answered with. Connects to nothing."""

from __future__ import annotations

import inspect
from typing import Any

from rag_platform import backends
from rag_platform.backends.caches.base import Cache
from rag_platform.backends.embedders.base import Embedder
from rag_platform.backends.guard import BREAKER_FAILURES, Guard
from rag_platform.backends.llms.base import LLM
from rag_platform.backends.llms.fallback import FallbackLLM
from rag_platform.backends.llms.guarded import GuardedLLM
from rag_platform.backends.prices import PriceBook
from rag_platform.backends.rerankers.base import Reranker
from rag_platform.backends.rerankers.fallback import FallbackReranker
from rag_platform.backends.rerankers.guarded import GuardedReranker
from rag_platform.backends.token_encoder import TokenEncoder
from rag_platform.ledger.releases import Release
from rag_platform.query.cache import AnswerCache
from rag_platform.query.embedders import embedder_guard, fingerprint_of
from rag_platform.query.extract import Extractor
from rag_platform.query.pipeline import Parts
from rag_platform.query.prompts import PROMPT_VERSION
from rag_platform.settings import Settings
from rag_platform.tracing import Tracing


def open_parts(
    settings: Settings,
    cache: AnswerCache,
    tracing: Tracing,
    *,
    embedder: Embedder,
    failures: int = BREAKER_FAILURES,
) -> Parts:
    """
    Args:
        embedder: of the release that is asked.
        failures: in a row, after which a dependency is not called for a while.

    Raises:
        ConfigurationError: a backend is unknown, not installed, or set up so that it cannot work.
    """
    encoder = TokenEncoder(settings)
    return Parts(
        settings=settings,
        embedder=embedder,
        encoder=encoder,
        extractor=Extractor(encoder),
        llm=_llm(settings, failures),
        reranker=_reranker(settings, failures),
        cache=cache,
        prices=PriceBook(settings.prices_file),
        tracing=tracing,
        replica_guard=Guard(
            "keyword_replica", concurrency=8 * settings.cores, failures=failures, pause_s=1.0, attempts=1
        ),
        embedder_guard=embedder_guard(settings, failures),
    )


def open_cache(settings: Settings) -> Cache | None:
    """Return the cache that the settings name; None for `RAG_CACHE=none`."""
    if settings.cache == "none":
        return None
    built: Cache = backends.load("caches", settings.cache).build(settings)
    return built


def fingerprints(parts: Parts, release: Release) -> tuple[str, str, str, str]:
    """What of the models makes an answer from this release another one, for ``scope``: generator, reranker, prompt,
    retrieval."""
    llm, reranker, s = parts.llm, parts.reranker, parts.settings
    return (
        "extractive" if llm is None else llm.spec.fingerprint,
        "none" if reranker is None else reranker.spec.fingerprint,
        PROMPT_VERSION,
        f"{fingerprint_of(release)}:{s.fusion}:{s.fusion_vector_weight}",
    )


def _llm(settings: Settings, failures: int) -> LLM | None:
    def guarded(vendor: str, prefix: str) -> LLM:
        llm: Any = backends.load("llms", vendor).build(settings, prefix)
        return GuardedLLM(
            llm, Guard(f"llm:{llm.spec.model}", concurrency=llm.spec.concurrency, failures=failures, pause_s=1.0)
        )

    if settings.llm == "extractive":
        return None
    first = guarded(settings.llm, "RAG_LLM_")
    if not settings.llm_fallback:
        return first
    return FallbackLLM([first, guarded(settings.llm_fallback, "RAG_LLM_FALLBACK_")])


def _reranker(settings: Settings, failures: int) -> Reranker | None:
    def guarded(vendor: str, prefix: str) -> Reranker:
        module = backends.load("rerankers", vendor)
        # Only a service can be had twice, with settings of its own each time.
        remote = "prefix" in inspect.signature(module.build).parameters
        reranker: Any = module.build(settings, prefix) if remote else module.build(settings)
        at_once = 16 if remote else 2 * settings.cores
        return GuardedReranker(
            reranker, Guard(f"reranker:{vendor}", concurrency=at_once, failures=failures, pause_s=1.0)
        )

    if settings.reranker == "none":
        return None
    first = guarded(settings.reranker, "RAG_RERANK_")
    if settings.reranker_fallback in ("", "none"):
        return first
    return FallbackReranker([first, guarded(settings.reranker_fallback, "RAG_RERANK_FALLBACK_")])
