"""RAGAS with a real model behind a real server: SmolLM2-135M, far too weak to judge, in llama.cpp."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rag_platform.evaluation.evaluators import judge
from rag_platform.ledger import Ledger, open_ledger
from rag_platform.settings import Settings
from rag_platform_tests.backends import real_llm
from rag_platform_tests.evaluation.judging import DAY, KEYS, judged_by, scored

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(real_llm.missing() is not None, reason=str(real_llm.missing())),
]

REPLY_TOKENS = 64
"""A small model that is bound to a schema with texts in it often never ends one."""


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    opened = open_ledger(settings)
    yield opened
    opened.close()


def test_a_judge_that_is_too_weak_costs_failed_scores_and_nothing_else(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every metric of every answer ends in exactly one state, within its deadline; what was scored is a number of the
    metric's range, what was not is counted; the tokens that the server counted are in the ledger."""
    monkeypatch.setattr(judge, "MAX_REPLY_TOKENS", REPLY_TOKENS)
    short = replace(KEYS, answer="The signing key is rotated every 90 days.", reference=None)
    with real_llm.real_llm() as server:
        settings = judged_by(
            tmp_path,
            server.base_url,
            RAG_JUDGE_MODEL=server.model,
            RAG_JUDGE_MAX_CONTEXT_TOKENS=str(real_llm.CONTEXT_TOKENS),
            RAG_JUDGE_CONCURRENCY="1",
            RAG_JUDGE_REQUEST_TIMEOUT_S="240",
            RAG_JUDGE_TIMEOUT_S="300",
        )
        [found], notes = scored(settings, ledger, [short])
    assert len(found) == 4 and notes == (), (found, notes)
    counted = Counter(s.state for s in found.values())
    assert counted["scored"] + counted["nan"] + counted["failed"] == 2 and counted["empty"] == 2
    for score in found.values():
        assert (score.value is not None) == (score.state == "scored")
        assert score.value is None or -1 <= score.value <= 1
        assert score.state != "failed" or score.detail
    spent = ledger.evaluations.judge_spend(DAY)
    assert spent.calls >= 2 and spent.tokens > 500
