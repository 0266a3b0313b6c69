"""What a metric needs of a sample, and what its value means: the same for every metric of RAGAS."""

from __future__ import annotations

import asyncio
import importlib.metadata
import math
import re
from dataclasses import dataclass, replace
from typing import Any

from rag_platform.evaluation.evaluators.base import Sample, Score

_MARK = re.compile(r"\s*\[\d{1,3}\]")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a metric looks at: the answer, the passages, the right answer, the gold quotes."""

    answer: bool = False
    contexts: bool = False
    reference: bool = False
    quotes: bool = False

    def unmet(self, metric: str, sample: Sample) -> Score | None:
        """Return the score of a sample that the metric is not asked about; None when it is."""
        missing = (
            (self.reference and not sample.reference, "no reference answer"),
            (self.quotes and not sample.reference_contexts, "no gold quotes"),
            (self.contexts and not any(sample.contexts), "no passages"),
        )
        why = next((reason for holds, reason in missing if holds), None)
        if why is not None:
            return Score(metric, None, "empty", why)
        if self.answer and sample.refused:
            return Score(metric, None, "nan", "the question was not answered")
        if self.answer and not sample.answer.strip():
            return Score(metric, None, "empty", "no answer")
        return None


def of_value(metric: str, value: float, usd: float = 0.0) -> Score:
    """Return the score for what a metric came to; a NaN is counted and not averaged."""
    if math.isnan(value):
        return Score(metric, None, "nan", "undefined for this answer", usd)
    if not -1 - 1e-6 <= value <= 1 + 1e-6:
        return Score(metric, None, "failed", "a value out of range", usd)
    return Score(metric, round(min(1.0, max(-1.0, value)), 9), "scored", usd=usd)


def plain(sample: Sample) -> Sample:
    """Return the sample with its answer as a person would say it, without the marks of its citations, and without
    passages that hold nothing."""
    contexts = tuple(c for c in sample.contexts if c.strip())
    return replace(sample, answer=_MARK.sub("", sample.answer).strip(), contexts=contexts)


def ragas_version() -> str:
    """Return the installed version, without importing it."""
    return importlib.metadata.version("ragas")


async def library() -> Any:
    """Import RAGAS, which takes seconds, beside the event loop; return ``ragas_library``."""

    def load() -> Any:
        from rag_platform.evaluation.evaluators import ragas_library

        return ragas_library

    return await asyncio.to_thread(load)
