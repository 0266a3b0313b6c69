"""The metrics of RAGAS that need no language model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from rag_platform.backends.embedders.base import Embedder
from rag_platform.errors import EmbeddingRefused
from rag_platform.evaluation.evaluators.base import Sample, Score
from rag_platform.evaluation.evaluators.scoring import Needs, library, of_value, plain, ragas_version
from rag_platform.identity import fingerprint

VERSION = "1"
"""Of what we do around RAGAS."""

METRICS = {
    "ragas_non_llm_context_recall": Needs(contexts=True, quotes=True),
    "ragas_non_llm_context_precision": Needs(contexts=True, quotes=True),
    "ragas_string_similarity": Needs(answer=True, reference=True),
    "ragas_semantic_similarity": Needs(answer=True, reference=True),
}


class RagasOffline:
    """Costs nothing beside two local embeddings an answer. All metrics need a golden case.

    Args:
        embedder: for the similarity of meaning; closed with the evaluator.
    """

    judge: str | None = None
    notes: tuple[str, ...] = ()

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    @property
    def name(self) -> str:
        pinned = {"version": VERSION, "ragas": ragas_version(), "embedder": self._embedder.spec.fingerprint}
        return f"ragas_offline-{ragas_version()}:{fingerprint('ragas_offline', pinned)[:8]}"

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(METRICS)

    async def score(self, sample: Sample) -> list[Score]:
        """See ``Evaluator``."""
        sample = plain(sample)
        scores = {metric: needs.unmet(metric, sample) for metric, needs in METRICS.items()}
        if all(scores.values()):
            return [s for s in scores.values() if s is not None]
        ragas = await library()
        ways: dict[str, Callable[[], Awaitable[float]]] = {
            "ragas_non_llm_context_recall": lambda: ragas.context_recall_by_words(sample),
            "ragas_non_llm_context_precision": lambda: ragas.context_precision_by_words(sample),
            "ragas_string_similarity": lambda: ragas.string_similarity(sample),
            "ragas_semantic_similarity": lambda: ragas.semantic_similarity(sample, self._embedder),
        }
        return [unmet or await _scored(metric, ways[metric]) for metric, unmet in scores.items()]

    async def aclose(self) -> None:
        await self._embedder.aclose()


async def _scored(metric: str, compute: Callable[[], Awaitable[float]]) -> Score:
    try:
        return of_value(metric, await compute())
    except EmbeddingRefused as e:
        return Score(metric, None, "failed", str(e))
