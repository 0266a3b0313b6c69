"""Weaviate: a server, or a cluster of them. The protocol by which it replaces documents is ``two_phase``'s."""

from __future__ import annotations

from dataclasses import dataclass

from rag_platform.backends.vector_stores.two_phase import TwoPhaseStore
from rag_platform.backends.vector_stores.weaviate_objects.connection import Connection
from rag_platform.backends.vector_stores.weaviate_objects.rows import WeaviateRows
from rag_platform.errors import ConfigurationError
from rag_platform.settings import Settings as PlatformSettings
from rag_platform.settings import setting


@dataclass(frozen=True)
class Settings:
    """Variables ``RAG_WEAVIATE_…``."""

    url: str = setting("http://127.0.0.1:8080", "Address of the REST API.")
    grpc: str = setting("", "host:port of the gRPC API; default: the same host, port 50051.")
    api_key: str | None = setting(None, "API key; without one the server is asked anonymously.", secret=True)
    timeout_s: float = setting(30.0, "Deadline of one call. A question's own deadline is usually shorter.")
    replicas: int = setting(0, "Copies of each object in a cluster; 0: as the server is set.")
    consistency: str = setting(
        "", "ONE, QUORUM or ALL for every read and write; default: the server's. Use QUORUM in a cluster."
    )
    vector_index: str = setting("flat", "flat (exact) or hnsw (faster above 100,000 chunks), of new indexes.")
    ef: int = setting(256, "Candidates that a search of the HNSW graph looks at: more is slower and misses less.")


class WeaviateVectorStore(TwoPhaseStore):
    """See ``base.VectorStore``. Construction does no I/O."""

    def __init__(self, own: Settings) -> None:
        if own.consistency not in ("", "ONE", "QUORUM", "ALL"):
            raise ConfigurationError("RAG_WEAVIATE_CONSISTENCY: must be ONE, QUORUM or ALL")
        connection = Connection(own.url, own.grpc, own.api_key, own.timeout_s)
        if own.vector_index not in ("flat", "hnsw"):
            raise ConfigurationError("RAG_WEAVIATE_VECTOR_INDEX: must be flat or hnsw")
        rows = WeaviateRows(
            connection,
            replicas=own.replicas or None,
            consistency=own.consistency,
            vector_index=own.vector_index,
            ef=own.ef,
        )
        super().__init__(rows, keyword=True)


def build(settings: PlatformSettings) -> WeaviateVectorStore:
    """Build the store of ``RAG_WEAVIATE_URL``. No I/O."""
    return WeaviateVectorStore(settings.vendor(Settings, "RAG_WEAVIATE_"))
