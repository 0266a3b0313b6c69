"""Source connectors: where documents come from.

``SHARED`` names the modules of this folder that are not connectors.
"""

from __future__ import annotations

import re

from rag_platform import backends
from rag_platform.backends.sources.base import SourceConnector
from rag_platform.records import SourceSpec
from rag_platform.settings import Settings

SHARED = ("addresses", "globs", "http_client", "local_tree", "names")

_SCHEME = re.compile(r"([a-z][a-z0-9+.:-]+)://", re.IGNORECASE)
_BY_SCHEME = {"": "local_directory", "file": "local_directory", "local": "local_directory"}
_BY_SCHEME |= {"http": "http_index", "https": "http_index"}


def connector_name(uri: str) -> str:
    """Return the connector for a source's uri: a path or ``file://`` is ``local_directory``, any other
    scheme the file of that name (``confluence://`` would be ``confluence.py``), else ``fsspec_url``."""
    match = _SCHEME.match(uri)
    scheme = match.group(1).lower() if match else ""
    if scheme in _BY_SCHEME:
        return _BY_SCHEME[scheme]
    return scheme if scheme in backends.vendors("sources") else "fsspec_url"


def open_source(spec: SourceSpec, settings: Settings) -> SourceConnector:
    """Return the connector of a source; ``options: {connector: …}`` overrides the choice by scheme.

    Raises:
        ConfigurationError: unknown connector, missing package, or a uri or option it cannot use.
    """
    name = spec.options.get("connector") or connector_name(spec.uri)
    connector: SourceConnector = backends.load("sources", str(name)).build(spec, settings)
    return connector
