"""Vector stores."""

SHARED = ("deadlines", "filters", "stems", "two_phase")
"""Modules of this folder that are no vendor."""
