"""Dagster's thin view of the platform."""

from rag_platform.resources.platform import PlatformResource
from rag_platform.resources.segment_io_manager import SegmentIOManager

__all__ = ["PlatformResource", "SegmentIOManager"]
