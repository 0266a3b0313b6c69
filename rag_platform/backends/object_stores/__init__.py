"""Object stores: immutable bytes under keys.

``SHARED`` names the modules of this folder that are not stores.
"""

from __future__ import annotations

from rag_platform import backends
from rag_platform.backends.object_stores.base import ObjectStore
from rag_platform.settings import Settings

SHARED = ("keys",)


_BY_SCHEME = {"": "local_folder", "file": "local_folder", "s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


def open_object_store(settings: Settings) -> ObjectStore:
    """Return the store at ``RAG_OBJECT_STORE_URL``: a path or ``file://`` is a folder, ``s3://`` and ``gs://`` are
    S3 and Google Cloud Storage, any other scheme goes through fsspec.

    Raises:
        ConfigurationError: the scheme is unknown or its package is missing.
    """
    url = settings.resolved_object_store_url
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    store: ObjectStore = backends.load("object_stores", _BY_SCHEME.get(scheme, "fsspec_url")).build(settings)
    return store
