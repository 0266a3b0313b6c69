"""Embedders: text in, unit vectors out."""

SHARED = ("minilm_build", "resilience", "tokenizers")
"""Modules of this folder that are no vendor."""
