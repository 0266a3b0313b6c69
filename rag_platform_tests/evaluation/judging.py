"""Evaluators on settings that name a judge, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rag_platform.evaluation.evaluators.base import Evaluator, Sample, Score
from rag_platform.evaluation.evaluators.opening import open_evaluators
from rag_platform.ledger import Ledger
from rag_platform.settings import Settings
from rag_platform_tests import harness

NOON = 1_800_014_400.0
"""2027-01-15 12:00 UTC."""
DAY = "2027-01-15"

KEYS = Sample(
    case_id="keys",
    question="How often is the signing key rotated?",
    answer="The signing key is rotated every 90 days [1]. Penguins guard the drawer [2].",
    contexts=("The signing key is rotated every 90 days by the platform team.", "The roof garden opens at eight."),
    reference="The signing key is rotated every 90 days.",
    reference_contexts=("The signing key is rotated every 90 days",),
    refused=False,
)
REFUSED = replace(KEYS, case_id="refused", answer="I do not know.", contexts=(), refused=True)


def judged_by(home: Path, base_url: str, **environ: str) -> Settings:
    """Settings with the judge at ``base_url``."""
    named = {"RAG_JUDGE": "openai_compatible", "RAG_JUDGE_BASE_URL": base_url, "RAG_JUDGE_MODEL": "judge-1"}
    return harness.settings(home, **(named | environ))


def scored(
    settings: Settings,
    ledger: Ledger,
    samples: Sequence[Sample],
    *,
    traffic: bool = False,
    now: Callable[[], float] = lambda: NOON,
) -> tuple[list[dict[str, Score]], tuple[str, ...]]:
    """Return what the judge alone says to each sample, one after the other, and its notes."""

    async def main() -> tuple[list[dict[str, Score]], tuple[str, ...]]:
        evaluators = open_evaluators(settings, ledger, traffic=traffic, now=now)
        judge: Evaluator = evaluators[-1]
        try:
            found = [{s.metric: s for s in await judge.score(sample)} for sample in samples]
            return found, judge.notes
        finally:
            for evaluator in evaluators:
                await evaluator.aclose()

    return asyncio.run(main())
