"""What follows when RAG_VECTOR_STORE names another store than the one that serves."""

from __future__ import annotations

from rag_platform.ingestion.workbench import Workbench


def disagreement(bench: Workbench) -> str | None:
    """Return what the next ingest will do about it, for people; None while setting and serving release agree."""
    serving = bench.ledger.releases.serving()
    wanted = bench.settings.vector_store
    if serving is None or serving.store == wanted:
        return None
    return (
        f"{serving.store} serves ({serving.release_id}), but RAG_VECTOR_STORE is {wanted}: the next `rag ingest` writes "
        f"what differs to {wanted} and then lets {wanted} serve; set RAG_VECTOR_STORE={serving.store} wherever "
        f"ingestion runs to stay with {serving.store}"
    )
