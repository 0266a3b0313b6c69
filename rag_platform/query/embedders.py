"""The embedder that a release was made with, which need not be the one that settings name now."""

from __future__ import annotations

from rag_platform.backends.embedders.base import Embedder
from rag_platform.backends.embedders.recorded import remade
from rag_platform.backends.guard import BREAKER_FAILURES, Guard
from rag_platform.ledger.releases import EMBEDDER_SETTINGS, Release
from rag_platform.settings import Settings


def fingerprint_of(release: Release) -> str:
    """Return the fingerprint of the embedder that made the release's vectors."""
    return str(release.pipeline["embedder"]["fingerprint"])


def embedder_of(release: Release, settings: Settings) -> Embedder:
    """Return an embedder whose vectors belong to this release's index (``recorded.remade``). Connects to nothing.

    Raises:
        ConfigurationError: it cannot be built here; the message says what it was and what to do.
    """
    pipeline = release.pipeline
    return remade(pipeline["embedder"], pipeline.get(EMBEDDER_SETTINGS, {}), settings, whose=release.release_id)


def embedder_guard(settings: Settings, failures: int = BREAKER_FAILURES) -> Guard:
    """Return a guard for the questions that one embedder is asked to embed."""
    return Guard("embedder", concurrency=8 * settings.cores, failures=failures, pause_s=1.0, attempts=1)
