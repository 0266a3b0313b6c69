"""Embedders: text in, unit vectors out."""

SHARED = ("minilm_build", "openai_errors", "resilience", "throttle", "tokenizers")
"""Modules of this folder that are no vendor."""
