"""The sources that are ingested: those of sources.yaml and those that `rag ingest --source` named."""

from __future__ import annotations

from rag_platform.errors import ConfigurationError
from rag_platform.ingestion import source_catalog
from rag_platform.ledger import Ledger
from rag_platform.records import SourceSpec
from rag_platform.settings import Settings


def registered_sources(ledger: Ledger, settings: Settings) -> list[SourceSpec]:
    """Bring the ledger up to sources.yaml and return every source, by name.

    A source that left the file keeps its documents until somebody removes it: a typing error in a
    file must not delete an index.

    Raises:
        ConfigurationError: sources.yaml cannot be read, or names a source that the command line
            registered with another address.
    """
    path = settings.resolved_sources_file
    if path.exists():
        for spec in source_catalog.load(path):
            known = ledger.sources.get(spec.name)
            if known is not None and known.origin == "command" and known.spec.uri != spec.uri:
                raise ConfigurationError(
                    f"{path}: source {spec.name!r} was registered by `rag ingest --source {known.spec.uri}`; "
                    f"use another name, or run `rag sources remove {spec.name}` first"
                )
            ledger.sources.register(spec, "file")
    elif settings.sources_file is not None:
        raise ConfigurationError(f"RAG_SOURCES_FILE: {path} does not exist")
    return [s.spec for s in ledger.sources.all()]
