"""Has the release that serves become worse than what served before, by the golden sets' own demands?"""

from __future__ import annotations

from dataclasses import dataclass

from rag_platform.evaluation.gate import Verdict, decide, policy_of
from rag_platform.evaluation.golden import GoldenSet, golden_sets, set_path
from rag_platform.evaluation.stored import stored_report
from rag_platform.ledger import Ledger
from rag_platform.ledger.evaluations import Evaluation
from rag_platform.settings import Settings


@dataclass(frozen=True, slots=True)
class Regression:
    """A golden set by which the newest evaluation of what serves does not meet the demands, beside the one before."""

    newest: Evaluation
    before: Evaluation | None
    verdict: Verdict

    def __str__(self) -> str:
        against = "" if self.before is None else f", {self.before.release_id} before"
        failures = "; ".join(str(f) for f in self.verdict.failures)
        return f"{self.verdict.golden_set} of {self.newest.release_id}{against}: {failures}"


def regressions(settings: Settings, ledger: Ledger) -> list[Regression]:
    """Return the golden sets by which what serves has become worse, from what the ledger holds; asks nothing.

    The newest complete evaluation of the serving release is compared with the newest earlier one, by the same
    evaluators, of another state of the index: of the same release before its documents changed, or of a release that
    served before it.

    Raises:
        ConfigurationError: a golden set cannot be read.
    """
    found = []
    for golden in golden_sets(settings):
        pair = _pair(ledger, golden)
        if pair is None:
            continue
        newest, before = pair
        policy = policy_of(golden.gate, str(set_path(settings, golden.name)))
        compared = None if before is None else stored_report(ledger, before, golden)
        verdict = decide(policy, stored_report(ledger, newest, golden), compared)
        if not verdict.passed:
            found.append(Regression(newest, before, verdict))
    return found


def _pair(ledger: Ledger, golden: GoldenSet) -> tuple[Evaluation, Evaluation | None] | None:
    serving = ledger.releases.serving()
    if serving is None:
        return None
    served = {r.release_id for r in ledger.releases.all() if r.promoted_at is not None}
    complete = [
        e
        for e in ledger.evaluations.list(golden_set=golden.name, kind="golden")
        if e.set_fingerprint == golden.fingerprint and e.summary is not None and not e.summary["index_moved"]
    ]
    newest = next((e for e in complete if e.release_id == serving.release_id), None)
    if newest is None:
        return None
    same_way = (
        e for e in complete[complete.index(newest) :] if (e.evaluator, e.judge) == (newest.evaluator, newest.judge)
    )
    before = next(
        (
            e
            for e in same_way
            if e.release_id in served and (e.release_id, e.index_state) != (newest.release_id, newest.index_state)
        ),
        None,
    )
    return newest, before
