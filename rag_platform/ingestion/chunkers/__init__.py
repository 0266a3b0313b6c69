"""Chunking strategies, found by file name: each module but those in ``SHARED`` has ``build``."""

SHARED = ("base", "sections", "sentences", "spans", "structure")
