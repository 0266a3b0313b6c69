"""The one place that knows RAGAS 0.4: its metrics, its two interfaces, and what its results mean.

Imported late, by ``load``: that takes ten seconds.

RAGAS' own client (``llm_factory``) is not used: it tries again by itself, sets no deadline, does not say how many
tokens were billed, and reports its use to its vendor. Its interfaces for models and embeddings are made to be
implemented, so the judge is asked through ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import pydantic
from ragas.dataset_schema import SingleTurnSample
from ragas.embeddings.base import BaseRagasEmbedding
from ragas.llms.base import InstructorBaseRagasLLM
from ragas.metrics._context_precision import NonLLMContextPrecisionWithReference
from ragas.metrics._context_recall import NonLLMContextRecall
from ragas.metrics.collections import (
    AnswerRelevancy,
    ContextPrecisionWithoutReference,
    ContextPrecisionWithReference,
    ContextRecall,
    Faithfulness,
    NonLLMStringSimilarity,
    SemanticSimilarity,
)
from rapidfuzz import fuzz

from rag_platform.backends.embedders.base import Embedder
from rag_platform.evaluation.evaluators.base import Sample
from rag_platform.evaluation.evaluators.judge import Session

R = TypeVar("R", bound=pydantic.BaseModel)

QUOTED = 0.8
"""Share of a gold quote's characters in a passage, at its best place, from which the passage holds it. RAGAS' own 0.5
is for its distance of whole strings, by which a sentence is never like a passage that holds it; at its best place,
half of any sentence is found in any text."""
STRICTNESS = 1
"""Questions that the judge makes up from an answer. RAGAS asks three times; without sampling they would be equal."""


# ── without a judge ──


async def context_recall_by_words(sample: Sample) -> float:
    """Return the share of the gold quotes that a passage holds."""
    metric = NonLLMContextRecall(threshold=QUOTED)
    metric._distance_measure = _Containment()  # type: ignore[assignment]
    return await metric._single_turn_ascore(_contexts(sample), callbacks=None)


async def context_precision_by_words(sample: Sample) -> float:
    """Return the average precision of the passages that hold a gold quote."""
    metric = NonLLMContextPrecisionWithReference(distance_measure=_Containment(), threshold=QUOTED)  # type: ignore[arg-type]
    return await metric._single_turn_ascore(_contexts(sample), callbacks=None)


async def string_similarity(sample: Sample) -> float:
    """Return 1 − the normalised Levenshtein distance of answer and reference."""
    metric = NonLLMStringSimilarity()
    return float((await metric.ascore(reference=sample.reference or "", response=sample.answer)).value)


async def semantic_similarity(sample: Sample, embedder: Embedder) -> float:
    """Return the cosine of the embeddings of answer and reference; of a long text, of its beginning."""
    texts = [sample.reference or "", sample.answer]
    # RAGAS embeds without await here, so the vectors are there before it asks.
    vectors = dict(zip(texts, (await embedder.embed(texts)).vectors.tolist(), strict=True))
    metric = SemanticSimilarity(embeddings=_Known(vectors))
    return float((await metric.ascore(reference=texts[0], response=texts[1])).value)


# ── with a judge ──


async def faithfulness(sample: Sample, session: Session, embedder: Embedder) -> float:
    """Return the share of the answer's statements that the passages support; NaN when it makes none."""
    metric = Faithfulness(llm=_Judged(session))
    found = await metric.ascore(
        user_input=sample.question, response=sample.answer, retrieved_contexts=list(sample.contexts)
    )
    return float(found.value)


async def answer_relevancy(sample: Sample, session: Session, embedder: Embedder) -> float:
    """Return the cosine of the question and one that the judge makes up from the answer; 0 for an evasive one."""
    metric = AnswerRelevancy(llm=_Judged(session), embeddings=_Embeddings(embedder), strictness=STRICTNESS)
    return float((await metric.ascore(user_input=sample.question, response=sample.answer)).value)


async def context_precision(sample: Sample, session: Session, embedder: Embedder) -> float:
    """Return the average precision of the passages that are of use for the reference answer."""
    metric = ContextPrecisionWithReference(llm=_Judged(session))
    found = await metric.ascore(
        user_input=sample.question, reference=sample.reference or "", retrieved_contexts=list(sample.contexts)
    )
    return float(found.value)


async def context_utilization(sample: Sample, session: Session, embedder: Embedder) -> float:
    """Return the average precision of the passages that are of use for the answer that was given."""
    metric = ContextPrecisionWithoutReference(llm=_Judged(session))
    found = await metric.ascore(
        user_input=sample.question, response=sample.answer, retrieved_contexts=list(sample.contexts)
    )
    return float(found.value)


async def context_recall(sample: Sample, session: Session, embedder: Embedder) -> float:
    """Return the share of the reference's statements that the passages support; NaN when it makes none."""
    metric = ContextRecall(llm=_Judged(session))
    found = await metric.ascore(
        user_input=sample.question, reference=sample.reference or "", retrieved_contexts=list(sample.contexts)
    )
    return float(found.value)


# ── our side of RAGAS' interfaces ──


class _Judged(InstructorBaseRagasLLM):
    def __init__(self, session: Session) -> None:
        self._session = session

    def generate(self, prompt: str, response_model: type[R]) -> R:
        raise NotImplementedError("the judge is asked on the event loop")

    async def agenerate(self, prompt: str, response_model: type[R]) -> R:
        return await self._session.ask(prompt, response_model)


class _Embeddings(BaseRagasEmbedding):
    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self._embedder = embedder

    def embed_text(self, text: str, **kwargs: Any) -> list[float]:
        raise NotImplementedError("the embedder is asked on the event loop")

    async def aembed_text(self, text: str, **kwargs: Any) -> list[float]:
        return (await self.aembed_texts([text]))[0]

    async def aembed_texts(self, texts: list[str], **kwargs: Any) -> list[list[float]]:
        found: list[list[float]] = (await self._embedder.embed(texts, kind="query")).vectors.tolist()
        return found


class _Known(BaseRagasEmbedding):
    def __init__(self, vectors: Mapping[str, list[float]]) -> None:
        super().__init__()
        self._vectors = vectors

    def embed_text(self, text: str, **kwargs: Any) -> list[float]:
        return self._vectors[text]

    async def aembed_text(self, text: str, **kwargs: Any) -> list[float]:
        return self._vectors[text]


class _Containment:
    """How much of the shorter of two texts stands in the longer one, at its best place: 0 to 1."""

    async def single_turn_ascore(self, sample: SingleTurnSample, callbacks: Any = None) -> float:
        return fuzz.partial_ratio(sample.reference or "", sample.response or "") / 100


def _contexts(sample: Sample) -> SingleTurnSample:
    return SingleTurnSample(
        retrieved_contexts=list(sample.contexts), reference_contexts=list(sample.reference_contexts)
    )
