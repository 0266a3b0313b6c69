"""Vector stores."""

SHARED = ("filters", "stems", "two_phase")
"""Modules of this folder that are no vendor."""
