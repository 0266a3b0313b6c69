"""With which login, at which endpoint Google Cloud Storage is spoken to: ``RAG_GCS_…``, a source's ``storage`` option,
else Google's application default credentials (``GOOGLE_APPLICATION_CREDENTIALS``, ``gcloud auth application-default
login``, the service account of the machine)."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from rag_platform.errors import ConfigurationError
from rag_platform.settings import Settings as PlatformSettings
from rag_platform.settings import setting

GOOGLE = "https://storage.googleapis.com"
OPTIONS = ("endpoint_url", "anonymous", "user_project")
"""What a source may say in ``storage``."""


@dataclass(frozen=True)
class Settings:
    """``RAG_GCS_…`` variables."""

    endpoint_url: str | None = setting(None, "Address of the service; default: STORAGE_EMULATOR_HOST, else Google.")
    anonymous: bool = setting(False, "Send no login: public buckets, emulators.")
    user_project: str | None = setting(None, "Project that pays for requests to buckets whose requester pays.")
    timeout_s: float = setting(60.0, "Deadline of one request, waits and retries included.")
    listing_timeout_s: float = setting(3600.0, "Deadline of the whole listing of a source.")


@dataclass(frozen=True)
class GcsAccess:
    """How one client logs in. ``endpoint`` has no slash at its end; ``own_endpoint``: the source names it."""

    endpoint: str
    anonymous: bool
    user_project: str | None
    timeout_s: float
    listing_timeout_s: float
    own_endpoint: bool = False


def access(settings: PlatformSettings, where: str, storage: Any = None) -> GcsAccess:
    """Return the access of a source or store: its own ``storage`` before the installation's settings.

    Raises:
        ConfigurationError: an unknown name or value, or the package for logins is missing; names the cure.
    """
    own = settings.vendor(Settings, "RAG_GCS_")
    storage = {} if storage is None else storage
    if not isinstance(storage, Mapping):
        raise ConfigurationError(f"{where}: option storage must be a mapping with {', '.join(OPTIONS)}")
    if unknown := [name for name in storage if name not in OPTIONS]:
        raise ConfigurationError(f"{where}: storage has {unknown[0]!r}; GCS knows {', '.join(OPTIONS)}")
    for name, value in storage.items():
        wanted = bool if name == "anonymous" else str
        if not isinstance(value, wanted):
            raise ConfigurationError(f"{where}: storage {name} must be {'true or false' if wanted is bool else 'text'}")
    own = dataclasses.replace(own, **storage)
    emulator = settings.environ.get("STORAGE_EMULATOR_HOST")
    endpoint = own.endpoint_url or emulator or GOOGLE
    endpoint = (endpoint if "://" in endpoint else f"http://{endpoint}").rstrip("/")
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query or url.path:
        raise ConfigurationError(
            f"{where}: the endpoint must be http(s)://host[:port], without user name, path or query"
        )
    if own.timeout_s <= 0 or own.listing_timeout_s <= 0:
        raise ConfigurationError(f"{where}: RAG_GCS_TIMEOUT_S and RAG_GCS_LISTING_TIMEOUT_S must be above 0")
    anonymous = own.anonymous or (own.endpoint_url is None and emulator is not None)
    if not anonymous and not _can_log_in():
        raise ConfigurationError(f"{where}: logins of Google need a package: run `pip install google-auth`")
    return GcsAccess(
        endpoint, anonymous, own.user_project, own.timeout_s, own.listing_timeout_s, "endpoint_url" in storage
    )


def place(uri: str, where: str) -> tuple[str, str]:
    """Return bucket and name (or prefix, without slashes at its ends) of ``gs://bucket/name``; nothing is decoded.

    Raises:
        ConfigurationError: no bucket.
    """
    bucket, _, name = uri.partition("://")[2].partition("/")
    if not bucket or any(c in bucket for c in "@:?#%\\ "):
        raise ConfigurationError(f"{where}: {uri.partition('://')[0]}:// needs a bucket: gs://bucket/prefix")
    return bucket, name.strip("/")


def _can_log_in() -> bool:
    try:
        return importlib.util.find_spec("google.auth") is not None
    except ModuleNotFoundError:
        return False
