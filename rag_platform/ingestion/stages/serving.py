"""What serves is kept up to date while the settings make another release.

Building that one may take days, and its exam may refuse it: readers must not wait for either. So documents that change
meanwhile are chunked and embedded for both, the serving release first, by its own chunker and embedder.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from rag_platform.backends.embedders.recorded import remade
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.ingestion.chunk import chunker_fingerprint
from rag_platform.ingestion.stages.chunk import chunk
from rag_platform.ingestion.stages.embed import embed
from rag_platform.ingestion.stages.index import bring_up
from rag_platform.ingestion.stages.report import StageReport
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.releases import CHUNKING, Release
from rag_platform.settings import Settings


@dataclass(slots=True)
class Kept:
    """What was done for the release that serves.

    Attributes:
        release_id: None when there was nothing to keep: the settings make what serves, or their pipeline does and
            only the store is another one.
        problem: why it is not, or not wholly, up to date; it stops nothing else.
    """

    release_id: str | None = None
    problem: str | None = None
    chunked: StageReport = field(default_factory=lambda: StageReport("chunk"))
    embedded: StageReport = field(default_factory=lambda: StageReport("embed"))
    indexed: StageReport = field(default_factory=lambda: StageReport("index"))


def keep_serving(bench: Workbench, buckets: Collection[str], *, run_id: str) -> Kept:
    """Bring the release that serves up to the parsed text of these buckets, where the settings make another one.

    Documents that its pipeline cannot take are served as they were; only the pipeline of the settings makes dead
    letters of them. Never raises for a dependency: the stages of the other release will meet it themselves.
    """
    serving = bench.ledger.releases.serving()
    if serving is None or serving.fingerprint == bench.pipeline.fingerprint:
        return Kept()
    kept = Kept(serving.release_id)
    try:
        with _pipeline_of(bench, serving) as view:
            kept.chunked = chunk(view, buckets, run_id=run_id)
            embed(view, buckets, run_id=run_id, report=kept.embedded)
            bring_up(view, buckets, run_id, kept.indexed)
    except (ConfigurationError, DependencyError) as e:
        kept.problem = str(e)
    return kept


@contextmanager
def _pipeline_of(bench: Workbench, release: Release) -> Iterator[Workbench]:
    """Open a view of ``bench`` that makes ``release``.

    Raises:
        ConfigurationError: its chunker or its embedder cannot be had here.
    """
    view = bench.of_release(release)
    made_by = view.pipeline
    view.quarantines = False
    view.settings = _settings_of(bench.settings, release)
    if made_by.parser != bench.pipeline.parser:
        raise ConfigurationError(f"the text of {release.release_id} was read by other parsers than there are now")
    if chunker_fingerprint(view.settings, made_by.embedder) != made_by.chunker:
        raise ConfigurationError(
            f"{release.release_id} was cut into chunks in a way that it did not record, or that there is no more"
        )
    if made_by.embedder.fingerprint == bench.pipeline.embedder.fingerprint:
        yield view
        return
    embedder = remade(release.pipeline["embedder"], made_by.embedder_settings, bench.settings, whose=release.release_id)
    view.__dict__["embedder"] = embedder
    try:
        yield view
    finally:
        view.run(embedder.aclose())


def _settings_of(settings: Settings, release: Release) -> Settings:
    """Return the settings with which a release was chunked, as far as it recorded them."""
    chunking = release.pipeline.get(CHUNKING)
    if chunking is None:
        return settings
    return replace(
        settings,
        chunker=chunking["chunker"],
        chunk_tokens=chunking["tokens"],
        chunk_overlap_tokens=chunking["overlap_tokens"],
    )
