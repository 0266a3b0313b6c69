"""Caches: bytes by key, and keys by nearest vector."""

SHARED = ("table", "patience")
"""Modules of this folder that are no vendor."""
