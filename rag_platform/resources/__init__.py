"""Dagster's thin view of the platform."""

from typing import Any

from rag_platform.resources.platform import PlatformResource
from rag_platform.resources.segment_io_manager import SegmentIOManager
from rag_platform.settings import Settings

__all__ = ["PlatformResource", "SegmentIOManager", "platform_resources"]


def platform_resources(settings: Settings) -> dict[str, Any]:
    """Return the resources by role. Where S3 is configured (asset storage on it, or a ``RAG_S3_…`` variable), also
    ``s3``, which assets of your own share with the platform; replacing it changes the platform's login."""
    if _uses_s3(settings):
        from rag_platform.resources.s3 import S3PlatformResource, s3_resource

        s3 = s3_resource(settings)
        platform: PlatformResource = S3PlatformResource(s3=s3)
        return {"platform": platform, "segments": SegmentIOManager(platform=platform), "s3": s3}
    platform = PlatformResource()
    return {"platform": platform, "segments": SegmentIOManager(platform=platform)}


def _uses_s3(settings: Settings) -> bool:
    stored = (settings.object_store_url or "").startswith(("s3://", "s3a://"))
    return stored or any(name.startswith("RAG_S3_") and value for name, value in settings.environ.items())
