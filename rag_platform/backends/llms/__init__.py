"""Language models: messages in, text out."""

SHARED = ("fallback", "guarded", "openai_replies")
"""Modules of this folder that are no vendor."""
