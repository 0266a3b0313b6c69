"""Everything that the stages of one run share, opened when it is first needed.

An unchanged pass must stay cheap: neither the embedder's runtime nor the vector store nor a parser
process is touched unless there is work for it.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Coroutine
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from rag_platform import backends, identity
from rag_platform.backends.embedders.base import Embedder, EmbedderSpec
from rag_platform.backends.object_stores import open_object_store
from rag_platform.backends.object_stores.base import ObjectStore
from rag_platform.backends.vector_stores.base import VectorStore
from rag_platform.ingestion.pipeline import PipelineSpec
from rag_platform.ingestion.segments import SegmentStore
from rag_platform.ledger import Ledger, open_ledger
from rag_platform.ledger.releases import Release
from rag_platform.settings import Settings

T = TypeVar("T")


class Workbench:
    """Opens the ledger, stores, embedder and pipeline of one settings object. Close it after use."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
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

    @cached_property
    def store(self) -> VectorStore:
        built: VectorStore = backends.load("vector_stores", self.settings.vector_store).build(self.settings)
        return built

    @cached_property
    def pipeline(self) -> PipelineSpec:
        from rag_platform.ingestion.chunk import chunker_fingerprint
        from rag_platform.ingestion.parse import parser_fingerprint

        spec = self.embedder.spec
        return PipelineSpec(parser_fingerprint(self.parse_limits), chunker_fingerprint(self.settings, spec), spec)

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
    def release(self) -> Release:
        """The release that this pipeline writes."""
        return self.ledger.releases.ensure(self.pipeline.fingerprint, self.pipeline.describe())

    def of_release(self, release: Release) -> Workbench:
        """Return a view of this bench whose pipeline is the one that made ``release``. It shares everything
        that is open; only the original is closed."""
        self._runner = self._runner or asyncio.Runner()
        _ = self.segments, self.store  # opened here, so that the view does not open its own
        view = copy.copy(self)
        made_by = release.pipeline
        view.__dict__["pipeline"] = PipelineSpec(
            made_by["parser"], made_by["chunker"], EmbedderSpec(**made_by["embedder"])
        )
        return view

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
        for name in ("embedder", "store"):
            if name in self.__dict__:
                self.run(self.__dict__[name].aclose())
        if self._runner is not None:
            self._runner.close()
        if "ledger" in self.__dict__:
            self.ledger.close()

    def __enter__(self) -> Workbench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
