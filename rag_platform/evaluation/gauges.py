"""``rag_eval_score``: what the ledger holds of the newest evaluations, for Prometheus."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor

from rag_platform import metrics
from rag_platform.errors import RagError
from rag_platform.ledger import Ledger
from rag_platform.ledger.evaluations import Evaluation

EVERY_S = 10.0
TIMEOUT_S = 1.0


class ScoreGauges:
    """Shows the scores of one ledger in the registry of this process, read again when they are asked for."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._thread = ThreadPoolExecutor(1, "score-gauges")  # a ledger that hangs holds up this one alone
        self._look: Future[list[Evaluation] | None] | None = None
        self._looked_at = -EVERY_S

    async def refresh(self) -> None:
        """Read the ledger, for at most a second and not more often than every ten; when it does not answer, what is
        shown stays."""
        look = self._look
        if look is None:
            if time.monotonic() - self._looked_at < EVERY_S:
                return
            self._looked_at = time.monotonic()
            look = self._look = self._thread.submit(_newest_or_none, self._ledger)
        await asyncio.wait([asyncio.wrap_future(look)], timeout=TIMEOUT_S)
        if not look.done():
            return  # its answer is for a later call
        self._look = None
        found = look.result()
        if found is not None:
            show(found)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def _newest_or_none(ledger: Ledger) -> list[Evaluation] | None:
    try:
        return newest(ledger)
    except RagError:
        return None


def newest(ledger: Ledger) -> list[Evaluation]:
    """Return the newest complete evaluation of every release that still exists, on every set."""
    known = {r.release_id for r in ledger.releases.all()}
    found: dict[tuple[str, str], Evaluation] = {}
    for evaluation in ledger.evaluations.list(limit=500):
        if evaluation.summary is not None and evaluation.release_id in known:
            found.setdefault((evaluation.release_id, evaluation.golden_set), evaluation)
    return list(found.values())


def show(evaluations: list[Evaluation]) -> None:
    """Let ``rag_eval_score`` be the means of these evaluations, and nothing else."""
    metrics.EVAL_SCORE.clear()
    for evaluation in evaluations:
        for metric, values in (evaluation.summary or {})["metrics"].items():
            if values["mean"] is not None:
                metrics.EVAL_SCORE.labels(metric, evaluation.golden_set, evaluation.release_id).set(values["mean"])
