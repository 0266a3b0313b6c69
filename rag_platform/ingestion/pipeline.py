"""The pipeline's identity: what makes two ingestions of the same bytes give the same chunks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from rag_platform import identity
from rag_platform.backends.embedders.base import EmbedderSpec
from rag_platform.ledger.documents import Document
from rag_platform.ledger.releases import EMBEDDER_SETTINGS


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """Fingerprints of parser and chunker, the embedder, and the keys that follow from them.

    Attributes:
        embedder_settings: how the embedder was set up (``embedders.recorded``); empty when that is not known. It
            changes nothing that the pipeline makes, so it has no part in its identity.
    """

    parser: str
    chunker: str
    embedder: EmbedderSpec
    embedder_settings: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def fingerprint(self) -> str:
        return identity.pipeline_fingerprint((self.parser, self.chunker, self.embedder.fingerprint))

    def describe(self) -> Mapping[str, Any]:
        """Return what a release stores to embed questions later and to say what made it. Holds no secrets."""
        described = {"parser": self.parser, "chunker": self.chunker, "embedder": asdict(self.embedder)}
        if self.embedder_settings:  # beside the spec: earlier versions of this program read that field by field
            described[EMBEDDER_SETTINGS] = dict(self.embedder_settings)
        return described

    def parse_key(self, content_hash: str, uri: str) -> str:
        return identity.parse_key(content_hash, PurePosixPath(uri).suffix.lower(), self.parser)

    def chunk_set_key(self, content_hash: str, uri: str) -> str:
        return identity.chunk_set_key(self.parse_key(content_hash, uri), self.chunker)

    def embedding_key(self, text: str) -> str:
        return identity.embedding_key(self.embedder.fingerprint, self.embedder.dimensions, text)

    def version_id(self, document: Document) -> str:
        return identity.version_id(document.content_hash, document.metadata_hash, self.fingerprint)
