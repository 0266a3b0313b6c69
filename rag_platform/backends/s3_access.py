"""With which login, at which endpoint S3 is spoken to: ``RAG_S3_…``, a source's ``storage`` option, else what
the AWS SDK finds by itself (``AWS_…`` variables, ``~/.aws``, the role of the machine)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from rag_platform.errors import ConfigurationError
from rag_platform.settings import setting


@dataclass(frozen=True)
class Settings:
    """``RAG_S3_…`` variables. What is not set is left to the AWS SDK."""

    endpoint_url: str | None = setting(
        None, "Address of an S3-compatible service; default: AWS_ENDPOINT_URL, else AWS."
    )
    region: str | None = setting(None, "Region; default: AWS_DEFAULT_REGION, or the profile's.")
    profile: str | None = setting(None, "Profile of ~/.aws; default: AWS_PROFILE.")
    access_key_id: str | None = setting(None, "Access key; default: what the AWS SDK finds.", secret=True)
    secret_access_key: str | None = setting(None, "Its secret.", secret=True)
    session_token: str | None = setting(None, "Its session token, for temporary keys.", secret=True)
    anonymous: bool = setting(False, "Send unsigned requests: public buckets without any login.")
    addressing: str = setting("auto", "auto, path (most services that are not AWS) or virtual.")
    verify_tls: bool = setting(True, "Check certificates; AWS_CA_BUNDLE names an authority of your own.")
    timeout_s: float = setting(60.0, "Deadline of one request, waits and retries included.")
    listing_timeout_s: float = setting(3600.0, "Deadline of the whole listing of a source.")
    tag_readers: int = setting(32, "Requests for object tags at a time, of a source with acl_from: s3-tags.")


OPTIONS = ("endpoint_url", "region", "profile", "anonymous", "addressing", "requester_pays")
"""What a source may say in ``storage``."""


@dataclass(frozen=True)
class S3Access:
    """How one client logs in. ``requester_pays``: the reader's account pays for requests and traffic."""

    settings: Settings
    requester_pays: bool = False


def source_access(settings: Settings, storage: Any, where: str) -> S3Access:
    """Return the access of a source: its own ``storage`` before the installation's settings.

    Raises:
        ConfigurationError: an unknown name or value; names the cure.
    """
    if not isinstance(storage, Mapping):
        raise ConfigurationError(f"{where}: option storage must be a mapping with {', '.join(OPTIONS)}")
    storage = dict(storage)
    if "anon" in storage:
        storage["anonymous"] = storage.pop("anon")
    if unknown := [name for name in storage if name not in OPTIONS]:
        raise ConfigurationError(f"{where}: storage has {unknown[0]!r}; S3 knows {', '.join(OPTIONS)}")
    for name, value in storage.items():
        wanted = bool if name in ("anonymous", "requester_pays") else str
        if not isinstance(value, wanted):
            raise ConfigurationError(f"{where}: storage {name} must be {'true or false' if wanted is bool else 'text'}")
    pays = bool(storage.pop("requester_pays", False))
    if storage.get("profile") or storage.get("anonymous"):
        # A login of its own: the installation's key would win over it inside the SDK.
        settings = dataclasses.replace(
            settings, access_key_id=None, secret_access_key=None, session_token=None, anonymous=False, profile=None
        )
    return checked(S3Access(dataclasses.replace(settings, **storage), pays), where)


def checked(access: S3Access, where: str) -> S3Access:
    """Return ``access`` when it can work. Raises ``ConfigurationError``."""
    s = access.settings
    if s.endpoint_url is not None:
        url = urlsplit(s.endpoint_url)
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query:
            raise ConfigurationError(f"{where}: the endpoint must be http(s)://host[:port], without user name or query")
    if s.addressing not in ("auto", "path", "virtual"):
        raise ConfigurationError(f"{where}: addressing {s.addressing!r}: use auto, path or virtual")
    if (s.access_key_id is None) != (s.secret_access_key is None):
        raise ConfigurationError(f"{where}: set RAG_S3_ACCESS_KEY_ID and RAG_S3_SECRET_ACCESS_KEY together")
    if s.timeout_s <= 0 or s.listing_timeout_s <= 0:
        raise ConfigurationError(f"{where}: RAG_S3_TIMEOUT_S and RAG_S3_LISTING_TIMEOUT_S must be above 0")
    if not 1 <= s.tag_readers <= 256:
        raise ConfigurationError(f"{where}: RAG_S3_TAG_READERS must be between 1 and 256")
    return access


def place(uri: str, where: str) -> tuple[str, str]:
    """Return bucket and key (or prefix, without slashes at its ends) of ``s3://bucket/key``.

    A key may hold any character, so nothing is decoded and nothing is a query or fragment.

    Raises:
        ConfigurationError: no bucket.
    """
    bucket, _, key = uri.partition("://")[2].partition("/")
    if not bucket or any(c in bucket for c in "@:?#%\\ "):
        raise ConfigurationError(f"{where}: {uri.partition('://')[0]}:// needs a bucket: s3://bucket/prefix")
    return bucket, key.strip("/")
