"""Late interaction over the token vectors of the packaged MiniLM: no key, no server, no further model.

Not a cross-encoder: question and passage are read apart, and only their tokens meet. Score of a passage:
``z(MaxSim) + ¼ z(cosine) + ¾ z(BM25)``, each standardised over the candidates; the passage is read below
its heading path. Measured with ``benchmarks/retrieval_quality.py``: cosine weights from ¼ to ¾ with BM25
weights from ½ to 1 are within a point of these, and above the fused order on both corpora.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rag_platform.backends.embedders import minilm_build
from rag_platform.backends.embedders.tokenizers import encodable
from rag_platform.backends.rerankers.base import Candidate, RerankerSpec
from rag_platform.backends.rerankers.late_interaction import filled, maxsim, standardised, token_weights
from rag_platform.backends.rerankers.passage_cache import PackedPassage, PassageCache
from rag_platform.backends.rerankers.passages import passage
from rag_platform.backends.rerankers.scores import checked
from rag_platform.backends.token_encoder import TokenEncoder, TokenVectors
from rag_platform.errors import ConfigurationError, DependencyTimeout
from rag_platform.identity import fingerprint, text_hash
from rag_platform.settings import Settings as PlatformSettings
from rag_platform.settings import setting

NAME = "maxsim"
_DEPENDENCY = f"reranker:{NAME}"
_FORMULA = "maxsim-1"
"""Names the formula. Change it whenever scores change: it is part of the fingerprint."""
_COSINE_WEIGHT, _BM25_WEIGHT = 0.25, 0.75
_MAX_CANDIDATES = 200
_PING_S = 30.0


@dataclass(frozen=True)
class Settings:
    """``RAG_MAXSIM_…``"""

    cache_mb: int = setting(64, "Memory for token vectors of passages judged before, about 70 KB each; 0: none.")

    def validate(self) -> None:
        """Raises ConfigurationError that names the variable."""
        if not 0 <= self.cache_mb <= 2**20:
            raise ConfigurationError("RAG_MAXSIM_CACHE_MB: must be between 0 and 1048576")


class MaxSimReranker:
    """Judges candidates by MaxSim, cosine and BM25. Safe to share between threads and event loops."""

    def __init__(self, encoder: TokenEncoder, own: Settings) -> None:
        self._encoder = encoder
        self._cache = PassageCache(own.cache_mb * 2**20)

    @cached_property
    def spec(self) -> RerankerSpec:
        return RerankerSpec(
            name=NAME,
            model=minilm_build.MODEL,
            fingerprint=fingerprint(NAME, {"formula": _FORMULA, "encoder": self._encoder.fingerprint}),
            max_candidates=_MAX_CANDIDATES,
            usd_per_call=0.0,
        )

    async def rerank(self, question: str, candidates: Sequence[Candidate], *, timeout_s: float) -> list[float]:
        """Return the sum of the standardised scores.

        A leg that found some of the candidates counts its lowest score for the others. Where the vector
        leg found none (it did not run), MiniLM's own cosine takes its place; a missing keyword leg is left
        out.

        Raises:
            DependencyTimeout: not done within ``timeout_s`` seconds.
            DependencyError: onnxruntime failed.
            ConfigurationError: the model cannot be built or read.
        """
        if not candidates:
            return []
        texts = [passage(c) for c in candidates]
        keys = [text_hash(encodable(text)) for text in texts]
        known = {key: self._cache.get(key) for key in keys}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if known[key] is None}

        def judge(asked: TokenVectors, fresh: Sequence[TokenVectors]) -> list[float]:
            packed = {key: PackedPassage.pack(encoded) for key, encoded in zip(missing, fresh, strict=True)}
            for key, fresh_one in packed.items():
                self._cache.put(key, fresh_one)
            return _scores(question, asked, candidates, [known[key] or packed[key] for key in keys])

        try:
            async with asyncio.timeout(timeout_s):
                asked, *fresh = await self._encoder.encode([question, *missing.values()])
                # In a thread: some milliseconds of arithmetic, which no other question should wait for.
                scores = await asyncio.to_thread(judge, asked, fresh)
        except TimeoutError as e:
            raise DependencyTimeout(_DEPENDENCY, f"{len(missing)} passages took longer than {timeout_s:.3g} s") from e
        return checked(scores, len(candidates), _DEPENDENCY)

    async def ping(self) -> None:
        """Raise what ``rerank`` raises."""
        await self._encoder.encode(["ping"], timeout_s=_PING_S)

    async def aclose(self) -> None:
        """Give up the model and the cached passages. A later call takes them up again."""
        self._cache.clear()
        await self._encoder.aclose()


def _scores(
    question: str, asked: TokenVectors, candidates: Sequence[Candidate], passages: Sequence[PackedPassage]
) -> list[float]:
    is_word = [any(ch.isalnum() for ch in question[start:end]) for start, end in asked.offsets.tolist()]
    weights = token_weights(asked.ids, is_word, [p.ids for p in passages])
    total = standardised(np.array([maxsim(asked.vectors, weights, p.vectors) for p in passages]))
    cosine = filled([c.vector_score for c in candidates])
    if cosine is None:
        cosine = np.array([float(asked.pooled @ p.pooled) for p in passages])
    total = total + _COSINE_WEIGHT * standardised(cosine)
    keyword = filled([c.keyword_score for c in candidates])
    if keyword is not None:
        total = total + _BM25_WEIGHT * standardised(keyword)
    found: list[float] = total.tolist()
    return found


def build(settings: PlatformSettings) -> MaxSimReranker:
    """Build the reranker; does no I/O.

    Raises:
        ConfigurationError: a value makes no sense.
    """
    own = settings.vendor(Settings, "RAG_MAXSIM_")
    own.validate()
    return MaxSimReranker(TokenEncoder(settings), own)
