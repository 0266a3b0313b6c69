"""S3 as Dagster sees it: one ``S3Resource`` that the platform's own clients take login and endpoint from.

Imported only where S3 is configured: ``dagster_aws`` brings boto3, 1.5 CPU seconds at every start.
"""

import dataclasses
from typing import Any

import dagster as dg
from dagster_aws.s3 import S3Resource

from rag_platform.errors import ConfigurationError
from rag_platform.resources.platform import PlatformResource
from rag_platform.settings import Settings

_FIELDS = {
    "endpoint_url": "RAG_S3_ENDPOINT_URL",
    "region_name": "RAG_S3_REGION",
    "profile_name": "RAG_S3_PROFILE",
    "aws_access_key_id": "RAG_S3_ACCESS_KEY_ID",
    "aws_secret_access_key": "RAG_S3_SECRET_ACCESS_KEY",
    "aws_session_token": "RAG_S3_SESSION_TOKEN",
}


def s3_resource(settings: Settings) -> S3Resource:
    """Return the resource as the ``RAG_S3_…`` variables describe it. It holds names of variables, not their values:
    Dagster shows and stores what a resource is configured with."""
    named: dict[str, Any] = {field: dg.EnvVar(name) for field, name in _FIELDS.items() if settings.environ.get(name)}
    flags = {"use_unsigned_session": "RAG_S3_ANONYMOUS"}
    switched: dict[str, Any] = {field: True for field, name in flags.items() if _on(settings, name)}
    return S3Resource(**named, **switched, verify=None if _on(settings, "RAG_S3_VERIFY_TLS", True) else False)


def with_s3(settings: Settings, s3: S3Resource) -> Settings:
    """Return settings under which S3 is spoken to as the resource says, in place of the ``RAG_S3_…`` variables of
    login and endpoint. Its ``max_attempts`` concerns its own client: the platform retries until
    ``RAG_S3_TIMEOUT_S``.

    Raises:
        ConfigurationError: ``use_ssl`` is off.
    """
    if not s3.use_ssl:
        raise ConfigurationError("the resource s3: use_ssl=False is not supported; write http:// into endpoint_url")
    environ = {k: v for k, v in settings.environ.items() if k not in _FIELDS.values()}
    environ |= {name: value for field, name in _FIELDS.items() if (value := getattr(s3, field))}
    environ |= {"RAG_S3_ANONYMOUS": str(s3.use_unsigned_session), "RAG_S3_VERIFY_TLS": str(s3.verify is not False)}
    return dataclasses.replace(settings, environ=environ)


class S3PlatformResource(PlatformResource):
    """The platform with S3 as the resource ``s3`` says: sources, asset storage and the sensor's look use it."""

    s3: dg.ResourceDependency[S3Resource]

    def settings(self) -> Settings:
        return with_s3(super().settings(), self.s3)


def _on(settings: Settings, name: str, default: bool = False) -> bool:
    value = settings.environ.get(name)
    return default if not value else value.strip().lower() in ("1", "true", "yes", "on")
