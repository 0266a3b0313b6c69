"""The embedder that a release was made with, which need not be the one that settings name now."""

from __future__ import annotations

import dataclasses

from rag_platform import backends
from rag_platform.backends.embedders.base import Embedder
from rag_platform.errors import ConfigurationError
from rag_platform.ledger.releases import Release
from rag_platform.settings import Settings


def embedder_of(release: Release, settings: Settings) -> Embedder:
    """Return an embedder whose vectors belong to this release's index. Connects to nothing.

    Raises:
        ConfigurationError: it cannot be built here; the message says what it was.
    """
    made_by = release.pipeline["embedder"]
    built: Embedder = backends.load("embedders", made_by["name"]).build(
        dataclasses.replace(settings, embedder=made_by["name"])
    )
    if built.spec.fingerprint != made_by["fingerprint"]:
        raise ConfigurationError(
            f"{release.release_id} was made by {made_by['name']} ({made_by['model']}), but the settings of "
            f"RAG_EMBEDDER describe {built.spec.name} ({built.spec.model}): set them back to ask this release"
        )
    return built
