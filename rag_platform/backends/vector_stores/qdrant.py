"""Qdrant: a vector store on a server or a cluster; in process for tests and trials.

Cosine similarity and BM25 (a sparse vector of word weights, with Qdrant's own inverse document frequency) over the
same points, filtered by the same conditions.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from rag_platform.backends.vector_stores.qdrant_points.rows import QdrantRows
from rag_platform.backends.vector_stores.two_phase import TwoPhaseStore
from rag_platform.errors import ConfigurationError
from rag_platform.settings import Settings as PlatformSettings
from rag_platform.settings import setting


@dataclass(frozen=True)
class Settings:
    """Variables ``RAG_QDRANT_…``."""

    url: str = setting("http://127.0.0.1:6333", "Address of the server; :memory: or a folder: inside this process.")
    api_key: str | None = setting(None, "API key; without TLS it travels in the open.", secret=True)
    prefer_grpc: bool = setting(False, "Use the gRPC interface where there is one: faster for large writes.")
    grpc_port: int = setting(6334, "Port of the gRPC interface.")
    timeout_s: float = setting(10.0, "Deadline of a call that a question waits for.")
    write_timeout_s: float = setting(120.0, "Deadline of any other call: up to 1,000 rows written, or counted.")
    shards: int = setting(1, "Shards of a new index: one for each node that shall search it.")
    replicas: int = setting(1, "Copies of each shard of a new index; from 2 on a node may fail.")
    on_disk: bool = setting(False, "Keep vectors of a new index on disk, for more vectors than memory.")
    on_disk_payload: bool = setting(True, "Keep texts and other columns of a new index on disk.")
    quantization: str = setting("none", "none, or scalar: search in vectors of one byte a dimension, then rescore.")
    average_words: float = setting(120.0, "Typical words of a chunk, without stop words: BM25's average length.")

    def validate(self) -> None:
        """Raises ConfigurationError that names the variable."""
        if "://" in self.url and not self.url.startswith(("http://", "https://")):
            raise ConfigurationError("RAG_QDRANT_URL: must begin with http:// or https://, or be :memory: or a folder")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ConfigurationError("RAG_QDRANT_API_KEY: must be printable ASCII, as every HTTP header")
        if self.quantization not in ("none", "scalar"):
            raise ConfigurationError("RAG_QDRANT_QUANTIZATION: must be none or scalar")
        for name, low, high in (
            ("grpc_port", 1, 65535),
            ("timeout_s", 0.05, 3600),
            ("write_timeout_s", 0.05, 3600),
            ("shards", 1, 10_000),
            ("replicas", 1, 100),
            ("average_words", 1, 1e6),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigurationError(f"RAG_QDRANT_{name.upper()}: must be between {low} and {high}")


def build(settings: PlatformSettings) -> TwoPhaseStore:
    """Build the store. No I/O.

    Raises:
        ConfigurationError: a value makes no sense, or the client is not installed.
    """
    # Not imported here: that takes a second, which a pass that changes nothing need not spend.
    if importlib.util.find_spec("qdrant_client") is None:
        raise ConfigurationError("backend vector_stores/qdrant needs a package: run `pip install qdrant-client`")
    own = settings.vendor(Settings, "RAG_QDRANT_")
    own.validate()
    return TwoPhaseStore(QdrantRows(own), keyword=True)
