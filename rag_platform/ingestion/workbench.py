"""Everything that the stages of one run share, opened when it is first needed.

An unchanged pass must stay cheap: neither the embedder's runtime nor the vector store nor a parser
process is touched unless there is work for it.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Coroutine, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from rag_platform import backends, identity
from rag_platform.backends.embedders.base import Embedder, EmbedderSpec
from rag_platform.backends.embedders.recorded import recorded
from rag_platform.backends.object_stores import open_object_store
from rag_platform.backends.object_stores.base import ObjectStore
from rag_platform.backends.open_stores import OpenStores
from rag_platform.backends.vector_stores.base import VectorStore
from rag_platform.ingestion.pipeline import PipelineSpec
from rag_platform.ingestion.segments import SegmentStore
from rag_platform.ledger import Ledger, open_ledger
from rag_platform.ledger.releases import CHUNKING, EMBEDDER_SETTINGS, Release, release_id
from rag_platform.settings import Settings

T = TypeVar("T")


class Workbench:
    """Opens the ledger, stores, embedder and pipeline of one settings object. Close it after use.

    Args:
        settings: the platform's settings.
        stores: vector stores of the caller's, by name, beside those that names in settings and releases mean.
    """

    def __init__(self, settings: Settings, stores: Mapping[str, VectorStore] | None = None) -> None:
        self.settings = settings
        self.stores = OpenStores(settings, stores)
        self.store_name = settings.vector_store
        self.quarantines = True
        """Whether documents that fail here become dead letters; not on a view that only keeps another release."""
        self._runner: asyncio.Runner | None = None

    @cached_property
    def ledger(self) -> Ledger:
        return open_ledger(self.settings)

    @cached_property
    def objects(self) -> ObjectStore:
        return open_object_store(self.settings)

    @cached_property
    def segments(self) -> SegmentStore:
        return SegmentStore(self.ledger, self.objects)

    @cached_property
    def embedder(self) -> Embedder:
        built: Embedder = backends.load("embedders", self.settings.embedder).build(self.settings)
        return built

    @property
    def store(self) -> VectorStore:
        """The vector store that this bench writes to.

        Raises:
            ConfigurationError: it is unknown, not installed, or set up so that it cannot work.
        """
        return self.stores.get(self.store_name)

    @cached_property
    def pipeline(self) -> PipelineSpec:
        from rag_platform.ingestion.chunk import chunker_fingerprint
        from rag_platform.ingestion.parse import parser_fingerprint

        spec = self.embedder.spec
        return PipelineSpec(
            parser_fingerprint(self.parse_limits),
            chunker_fingerprint(self.settings, spec),
            spec,
            # An embedder that the settings do not name was not set up by them.
            recorded(self.settings) if spec.name == self.settings.embedder else {},
        )

    @cached_property
    def parse_limits(self) -> Any:
        from rag_platform.ingestion.parsers.base import Limits

        s = self.settings
        return Limits(
            cpu_s=s.parse_cpu_s,
            wall_s=s.parse_wall_s,
            memory_mb=s.parse_memory_mb,
            max_text_chars=s.max_text_chars,
            max_pages=s.max_pages,
            ocr=s.ocr,
            ocr_max_pages=s.ocr_max_pages,
            ocr_page_s=s.parse_ocr_page_s,
            languages=s.languages,
        )

    @property
    def scratch(self) -> Path:
        """Where parser processes keep temporary files while they work."""
        return self.settings.root / "scratch"

    @property
    def release_id(self) -> str:
        """The id of the release that this pipeline writes, whether or not there is one yet."""
        return release_id(self.pipeline.fingerprint, self.store_name)

    @property
    def release(self) -> Release:
        """The release that this pipeline writes; created as a candidate when it is new."""
        s = self.settings
        chunking = {"chunker": s.chunker, "tokens": s.chunk_tokens, "overlap_tokens": s.chunk_overlap_tokens}
        return self.ledger.releases.ensure(
            self.pipeline.fingerprint, {**self.pipeline.describe(), CHUNKING: chunking}, self.store_name
        )

    def of_release(self, release: Release) -> Workbench:
        """Return a view of this bench whose pipeline is the one that made ``release``, and whose store the one
        that holds it. It shares everything that is open; only the original is closed."""
        view = self._view()
        made_by = release.pipeline
        view.__dict__["pipeline"] = PipelineSpec(
            made_by["parser"],
            made_by["chunker"],
            EmbedderSpec(**made_by["embedder"]),
            made_by.get(EMBEDDER_SETTINGS, {}),
        )
        view.store_name = release.store
        return view

    def in_store(self, name: str) -> Workbench:
        """Return a view of this bench that writes to another store."""
        _ = self.pipeline
        view = self._view()
        view.store_name = name
        return view

    def _view(self) -> Workbench:
        self._runner = self._runner or asyncio.Runner()
        _ = self.segments  # opened here, so that the view does not open its own
        return copy.copy(self)

    @property
    def bucket_names(self) -> list[str]:
        return identity.buckets(self.settings.partition_hex_digits)

    @property
    def parse_workers(self) -> int:
        return self.settings.parse_workers or min(self.settings.cores, 4)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on this bench's own event loop."""
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(coroutine)

    def close(self) -> None:
        if "embedder" in self.__dict__:
            self.run(self.embedder.aclose())
        self.run(self.stores.aclose())
        if self._runner is not None:
            self._runner.close()
        if "ledger" in self.__dict__:
            self.ledger.close()

    def __enter__(self) -> Workbench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
