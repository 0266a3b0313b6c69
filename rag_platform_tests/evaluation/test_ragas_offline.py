"""RAGAS without a model: its real metrics, with the local embedder."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from rag_platform.evaluation.evaluators.base import Evaluator, Sample, Score
from rag_platform.evaluation.evaluators.opening import open_evaluators
from rag_platform.ledger import Ledger, open_ledger
from rag_platform.settings import Settings
from rag_platform_tests.evaluation.judging import KEYS, REFUSED

RECALL, PRECISION = "ragas_non_llm_context_recall", "ragas_non_llm_context_precision"
WORDS, MEANING = "ragas_string_similarity", "ragas_semantic_similarity"


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    opened = open_ledger(settings)
    yield opened
    opened.close()


def offline(settings: Settings, ledger: Ledger, samples: Sequence[Sample]) -> list[dict[str, Score]]:
    async def main() -> list[dict[str, Score]]:
        evaluator: Evaluator
        [evaluator] = open_evaluators(settings, ledger)
        try:
            assert evaluator.judge is None and set(evaluator.metrics) == {RECALL, PRECISION, WORDS, MEANING}
            return [{s.metric: s for s in await evaluator.score(sample)} for sample in samples]
        finally:
            await evaluator.aclose()

    return asyncio.run(main())


def test_a_good_answer_scores_higher_than_a_bad_one(settings: Settings, ledger: Ledger) -> None:
    """Passages that hold the gold quotes in the first place; words and meaning of the reference."""
    reference = KEYS.reference or ""
    good = replace(KEYS, answer=f"{reference} [1]")
    other = "Bees live in the two hives near the north wall of the garden, which opens at eight."
    bad = replace(KEYS, answer=other, contexts=(other, "Visitors sign the green book at the reception."))
    late = replace(KEYS, contexts=(other, KEYS.contexts[0]))
    best, worst, second = offline(settings, ledger, [good, bad, late])
    assert {m: s.value for m, s in best.items()} == dict.fromkeys((RECALL, PRECISION, WORDS, MEANING), 1.0)
    assert worst[RECALL].value == 0.0 and worst[PRECISION].value == 0.0
    assert (worst[MEANING].value or 0) < 0.4 and (worst[WORDS].value or 0) < 0.4
    assert second[RECALL].value == 1.0 and second[PRECISION].value == 0.5


def test_a_quote_is_found_inside_a_long_passage(settings: Settings, ledger: Ledger) -> None:
    """What RAGAS' own distance of whole strings cannot see: a sentence in a chunk of two thousand characters."""
    around = "The reception keeps a list of visitors and of their cars. " * 20
    chunk = around + KEYS.reference_contexts[0] + ". " + around
    [found, without] = offline(settings, ledger, [replace(KEYS, contexts=(chunk,)), replace(KEYS, contexts=(around,))])
    assert found[RECALL].value == 1.0 and without[RECALL].value == 0.0


def test_what_cannot_be_compared_is_counted_apart(settings: Settings, ledger: Ledger) -> None:
    """Empty without gold or passages, NaN for an abstention; and without any work RAGAS is not even imported."""
    [refused, bare] = offline(settings, ledger, [REFUSED, replace(KEYS, reference=None, reference_contexts=())])
    assert {m: s.state for m, s in refused.items()} == {
        RECALL: "empty",
        PRECISION: "empty",
        WORDS: "nan",
        MEANING: "nan",
    }
    assert {s.state for s in bare.values()} == {"empty"} and all(s.value is None for s in bare.values())


def test_opening_evaluators_imports_no_ragas() -> None:
    """RAGAS takes seconds to import: only a sample that it scores may wait for it."""
    code = (
        "import sys; import rag_platform.evaluation.evaluators.opening, rag_platform.evaluation.traffic; "
        "sys.exit(any(m in sys.modules for m in ('ragas', 'langchain_core', 'openai', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
