"""Rerankers: a question and candidates in, one score a candidate out."""

SHARED = ("fallback", "guarded", "late_interaction", "passage_cache", "passages", "scores")
"""Modules of this folder that are no vendor."""
