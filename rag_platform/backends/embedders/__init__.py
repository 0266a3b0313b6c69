"""Embedders: text in, unit vectors out.

A vendor's file has one more name than other backends': ``PREFIX``, of the variables of its ``Settings``, so that a
release can record how its embedder was set up (``recorded``).
"""

SHARED = ("minilm_build", "recorded", "resilience", "tokenizers")
"""Modules of this folder that are no vendor."""
