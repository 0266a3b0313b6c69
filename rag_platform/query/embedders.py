"""The embedder that a release was made with, which need not be the one that settings name now."""

from __future__ import annotations

from collections.abc import Mapping

from rag_platform import backends
from rag_platform.backends.embedders.base import Embedder
from rag_platform.backends.embedders.recorded import laid_over
from rag_platform.backends.guard import BREAKER_FAILURES, Guard
from rag_platform.errors import ConfigurationError
from rag_platform.ledger.releases import EMBEDDER_SETTINGS, Release
from rag_platform.settings import Settings


def fingerprint_of(release: Release) -> str:
    """Return the fingerprint of the embedder that made the release's vectors."""
    return str(release.pipeline["embedder"]["fingerprint"])


def embedder_of(release: Release, settings: Settings) -> Embedder:
    """Return an embedder whose vectors belong to this release's index. Connects to nothing.

    It is set up by the present settings when those describe it, else as the release recorded it; keys and all that
    is secret come from the environment either way.

    Raises:
        ConfigurationError: it cannot be built here; the message says what it was and what to do.
    """
    made_by = release.pipeline["embedder"]
    name: str = made_by["name"]
    values: Mapping[str, str] = release.pipeline.get(EMBEDDER_SETTINGS, {})
    why: list[str] = []
    cause: ConfigurationError | None = None
    for whose in ("present", "recorded"):
        if whose == "recorded" and not values:
            why.append("the release recorded none of its settings")
            continue
        try:
            set_up = laid_over(settings, name, {} if whose == "present" else values)
            built: Embedder = backends.load("embedders", name).build(set_up)
            if built.spec.fingerprint == fingerprint_of(release):
                return built
            why.append(f"its {whose} settings describe {built.spec.model} ({built.spec.fingerprint})")
        except ConfigurationError as e:
            cause = e
            why.append(f"by its {whose} settings: {e}")
    raise ConfigurationError(
        f"{release.release_id} was made by {name} ({made_by['model']}, {made_by['dimensions']} dimensions, "
        f"{fingerprint_of(release)}), which cannot be built here: {'; '.join(why)}. Bring its model back, or set the "
        f"variables of RAG_EMBEDDER={name} as they were then, and restart; or let another release serve"
    ) from cause


def embedder_guard(settings: Settings, failures: int = BREAKER_FAILURES) -> Guard:
    """Return a guard for the questions that one embedder is asked to embed."""
    return Guard("embedder", concurrency=8 * settings.cores, failures=failures, pause_s=1.0, attempts=1)
