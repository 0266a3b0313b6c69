"""rag_platform: documents in, a correct and permission-aware search index out."""

__version__ = "0.1.0"
