"""Object stores: immutable bytes under keys.

``SHARED`` names the modules of this folder that are not stores.
"""

from __future__ import annotations

from rag_platform import backends
from rag_platform.backends.object_stores.base import ObjectStore
from rag_platform.settings import Settings

SHARED = ("keys",)


def open_object_store(settings: Settings) -> ObjectStore:
    """Return the store at ``RAG_OBJECT_STORE_URL``: a path or ``file://`` is a folder, any other scheme
    goes through fsspec.

    Raises:
        ConfigurationError: the scheme is unknown or its package is missing.
    """
    url = settings.resolved_object_store_url
    local = "://" not in url or url.startswith("file://")
    store: ObjectStore = backends.load("object_stores", "local_folder" if local else "fsspec_url").build(settings)
    return store
