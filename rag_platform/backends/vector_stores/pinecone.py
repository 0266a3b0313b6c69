"""Pinecone: a managed vector store. Rows and manifest of an index are two namespaces of a serverless index.

Pinecone is eventually consistent, so every write here ends with reading: it returns when searches and fetches
both show it. There is no keyword leg; the platform's keyword replica serves that.
"""

from __future__ import annotations

from dataclasses import dataclass

from rag_platform.backends.vector_stores.pinecone_api.rows import PineconeRows
from rag_platform.backends.vector_stores.two_phase import TwoPhaseStore
from rag_platform.errors import ConfigurationError
from rag_platform.settings import Settings as PlatformSettings
from rag_platform.settings import setting


@dataclass(frozen=True)
class Settings:
    """Variables ``RAG_PINECONE_…``."""

    api_key: str | None = setting(None, "API key; default: PINECONE_API_KEY.", secret=True)
    index: str = setting("rag", "Begins the names of the Pinecone indexes: <index>-<dimensions>, created when missing.")
    host: str | None = setting(None, "Address of one existing Pinecone index, to use that alone and create none.")
    cloud: str = setting("aws", "Cloud of indexes that are created: aws, gcp or azure.")
    region: str = setting("us-east-1", "Region of indexes that are created.")
    timeout_s: float = setting(10.0, "Deadline of a call that a question waits for.")
    write_timeout_s: float = setting(
        180.0, "Deadline of any other call: up to 1,000 rows written until searches show them, or counted."
    )
    request_timeout_s: float = setting(30.0, "Deadline of one request.")
    concurrency: int = setting(4, "Requests of one writing call at the same time.")
    control_url: str = setting("https://api.pinecone.io", "Address of the control plane.")

    def validate(self) -> None:
        """Raises ConfigurationError that names the variable."""
        if (
            not self.index
            or len(self.index) > 38
            or not self.index.replace("-", "a").isalnum()
            or not self.index.islower()
        ):
            raise ConfigurationError("RAG_PINECONE_INDEX: must be at most 38 lower-case letters, digits and '-'")
        if not self.control_url.startswith(("http://", "https://")):
            raise ConfigurationError("RAG_PINECONE_CONTROL_URL: must begin with http:// or https://")
        for name, low, high in (
            ("timeout_s", 0.05, 3600),
            ("write_timeout_s", 0.05, 3600),
            ("request_timeout_s", 0.05, 3600),
            ("concurrency", 1, 64),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigurationError(f"RAG_PINECONE_{name.upper()}: must be between {low} and {high}")


def build(settings: PlatformSettings) -> TwoPhaseStore:
    """Build the store. No I/O.

    Raises:
        ConfigurationError: a value makes no sense, or there is no key.
    """
    own = settings.vendor(Settings, "RAG_PINECONE_")
    own.validate()
    api_key = own.api_key or settings.environ.get("PINECONE_API_KEY")
    if not api_key or not (api_key.isascii() and api_key.isprintable()):
        raise ConfigurationError("pinecone needs RAG_PINECONE_API_KEY (printable ASCII)")
    return TwoPhaseStore(PineconeRows(own, api_key), keyword=False)
