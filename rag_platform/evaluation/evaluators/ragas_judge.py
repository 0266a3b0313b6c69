"""The metrics of RAGAS that ask a language model to judge."""

from __future__ import annotations

import asyncio
from collections import Counter

from rag_platform.backends.embedders.base import Embedder
from rag_platform.backends.llms.base import LLMSpec
from rag_platform.errors import DependencyError, DependencyTimeout, EmbeddingRefused, RequestRefused
from rag_platform.evaluation.evaluators.base import Sample, Score
from rag_platform.evaluation.evaluators.budget import BudgetSpent
from rag_platform.evaluation.evaluators.judge import MAX_REPLY_TOKENS, REPAIRS, Judge, Unparsable
from rag_platform.evaluation.evaluators.scoring import Needs, library, of_value, plain, ragas_version
from rag_platform.identity import fingerprint

VERSION = "1"
"""Of what we do around RAGAS: how the judge is asked and how its replies are read."""

REFERENCE_FREE = {
    "ragas_faithfulness": Needs(answer=True, contexts=True),
    "ragas_answer_relevancy": Needs(answer=True),
}
WITH_REFERENCE = {
    "ragas_context_precision": Needs(contexts=True, reference=True),
    "ragas_context_recall": Needs(contexts=True, reference=True),
}
OF_TRAFFIC = {"ragas_context_utilization": Needs(answer=True, contexts=True)}


def pinned(spec: LLMSpec, embedder: Embedder) -> str:
    """Return the judge as it is kept with every score: its model, and a digest of everything else that decides what
    it says: its address, RAGAS' version (and with it the prompts), how we ask, and the embedder."""
    digest = fingerprint(
        "ragas_judge",
        {
            "version": VERSION,
            "ragas": ragas_version(),
            "model": spec.fingerprint,
            "max_reply_tokens": min(MAX_REPLY_TOKENS, spec.max_context_tokens // 2),
            "repairs": REPAIRS,
            "embedder": embedder.spec.fingerprint,
        },
    )
    return f"{spec.model}@{digest[:12]}"


class RagasJudge:
    """
    Args:
        judge: who judges; closed with the evaluator.
        pin: see ``pinned``.
        embedder: for answer relevancy; closed with the evaluator.
        timeout_s: for one metric of one answer, waits and retries included.
        traffic: logged answers, which have no reference: only the metrics that need none.
    """

    def __init__(self, judge: Judge, pin: str, embedder: Embedder, *, timeout_s: float, traffic: bool = False) -> None:
        self._judge, self._pin, self._embedder, self._timeout_s = judge, pin, embedder, timeout_s
        self._needs = REFERENCE_FREE | (OF_TRAFFIC if traffic else WITH_REFERENCE)
        self._left: Counter[tuple[str, str]] = Counter()

    @property
    def name(self) -> str:
        return f"ragas_judge-{ragas_version()}"

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(self._needs)

    @property
    def judge(self) -> str | None:
        return self._pin

    @property
    def notes(self) -> tuple[str, ...]:
        """See ``Evaluator``."""
        return tuple(f"{metric} of {count} answers: {why}" for (metric, why), count in sorted(self._left.items()))

    async def score(self, sample: Sample) -> list[Score]:
        """See ``Evaluator``. The metrics of a sample are asked for side by side."""
        sample = plain(sample)
        scores = await asyncio.gather(*(self._metric(metric, needs, sample) for metric, needs in self._needs.items()))
        return [s for s in scores if s is not None]

    async def aclose(self) -> None:
        await self._judge.aclose()
        await self._embedder.aclose()

    async def _metric(self, metric: str, needs: Needs, sample: Sample) -> Score | None:
        """Return None for what is left for another time: what went wrong says nothing about this sample."""
        unmet = needs.unmet(metric, sample)
        if unmet is not None:
            return unmet
        compute = getattr(await library(), metric.removeprefix("ragas_"))
        session = self._judge.session(self._timeout_s)
        try:
            async with asyncio.timeout(self._timeout_s):
                value = await compute(sample, session, self._embedder)
        except (TimeoutError, DependencyTimeout):
            return Score(metric, None, "failed", f"no result within {self._timeout_s:g} s", session.usd)
        except (Unparsable, RequestRefused, EmbeddingRefused) as e:
            return Score(metric, None, "failed", str(e), session.usd)
        except (BudgetSpent, DependencyError) as e:
            self._left[metric, str(e)] += 1
            return None
        return of_value(metric, value, session.usd)
