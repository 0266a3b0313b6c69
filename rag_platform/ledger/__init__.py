"""The transactional truth: which documents exist, what was made of them, what is being served.

``Ledger`` groups one small class a concern over one database:
sources, documents, artifacts, releases, dead letters, runs, API keys, query log, feedback,
evaluations.
"""

from rag_platform.ledger.ledger import Ledger, open_ledger

__all__ = ["Ledger", "open_ledger"]
