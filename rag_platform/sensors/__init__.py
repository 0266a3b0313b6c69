"""Sensors: what is noticed, and the run that follows."""

from rag_platform.sensors.quality_regression import quality_regression
from rag_platform.sensors.source_changes import source_changes

sensors = [source_changes, quality_regression]
