"""Source connectors: where documents come from.

``SHARED`` names the modules of this folder that are not connectors.
"""

from __future__ import annotations

import re

from rag_platform import backends
from rag_platform.backends.sources.base import SourceConnector
from rag_platform.errors import ConfigurationError
from rag_platform.records import SourceSpec
from rag_platform.settings import Settings

SHARED = (
    "addresses", "api_errors", "api_network", "api_transport", "credentials", "denials", "globs", "http_client", "local_tree", "names",
    "object_labels", "object_tree",
    "confluence_acl", "confluence_api", "confluence_cloud", "confluence_data_center", "confluence_http", "confluence_macros",
    "confluence_options", "confluence_shapes", "confluence_storage", "confluence_tree",
    "notion_api", "notion_blocks", "notion_memory", "notion_properties", "notion_text", "notion_walk",
)  # fmt: skip

_SCHEME = re.compile(r"([a-z][a-z0-9+.:-]+)://", re.IGNORECASE)
_BY_SCHEME = {"": "local_directory", "file": "local_directory", "local": "local_directory"}
_BY_SCHEME |= {"http": "http_index", "https": "http_index", "s3a": "s3", "gs": "gcs"}


def connector_name(uri: str) -> str:
    """Return the connector for a source's uri: a path or ``file://`` is ``local_directory``, any other
    scheme the file of that name (``notion://``, ``confluence+https://``), else ``fsspec_url``."""
    match = _SCHEME.match(uri)
    scheme = match.group(1).lower() if match else ""
    if scheme in _BY_SCHEME:
        return _BY_SCHEME[scheme]
    kind = scheme.partition("+")[0]
    return kind if kind in backends.vendors("sources") else "fsspec_url"


def open_source(spec: SourceSpec, settings: Settings) -> SourceConnector:
    """Return the connector of a source; ``options: {connector: …}`` overrides the choice by scheme.

    Raises:
        ConfigurationError: unknown connector, missing package, or a uri or option it cannot use.
    """
    name = spec.options.get("connector") or connector_name(spec.uri)
    module = backends.load("sources", str(name))
    kinds = getattr(module, "ACL_FROM", ())
    chosen = spec.options.get("acl_from")
    if chosen is not None and chosen not in kinds:
        # Passed over in silence it would open what the operator means to close.
        known = f"here it can be {', '.join(kinds)}" if kinds else "it works with s3:// and gs:// only"
        raise ConfigurationError(f"source {spec.name!r}: option acl_from is {chosen!r}; {known}")
    connector: SourceConnector = module.build(spec, settings)
    return connector


def document_url(spec: SourceSpec, uri: str) -> str | None:
    """Return the address at which a person opens a document at its source, None where there is none.

    Raises:
        ConfigurationError: as ``open_source``.
    """
    name = spec.options.get("connector") or connector_name(spec.uri)
    address = getattr(backends.load("sources", str(name)), "document_url", None)
    found: str | None = address(spec, uri) if address is not None else None
    return found
