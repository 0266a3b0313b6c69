"""Evaluate a release on a golden set, with the query pipeline that serves.

Every case is kept in the ledger as soon as it is scored, so that an evaluation that was killed, or that an outage
ended, goes on where it was.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

from rag_platform import identity
from rag_platform.backends.vector_stores.base import VectorStore
from rag_platform.errors import DependencyError
from rag_platform.evaluation.case_scores import CaseScores, case_row
from rag_platform.evaluation.evaluators.base import Evaluator
from rag_platform.evaluation.golden import GoldenCase, GoldenSet
from rag_platform.evaluation.measure import VERSION, summaries
from rag_platform.evaluation.report import CaseResult, EvaluationReport, MetricSummary
from rag_platform.evaluation.stored import stored_report
from rag_platform.ledger import Ledger
from rag_platform.ledger.evaluations import CaseRow, Evaluation, ScoreRow
from rag_platform.ledger.releases import Release
from rag_platform.query.offline import NotAnswered, OfflineQueries, Outcome
from rag_platform.query.profiles import PROFILES
from rag_platform.records import Principal
from rag_platform.settings import Settings

__all__ = ["CaseResult", "EvaluationReport", "MetricSummary", "evaluate", "stored_report"]

MAX_FAILED_IN_A_ROW = 10
"""Cases without an answer, one after the other, that are taken for an outage although every dependency answers."""
MAX_AT_ONCE = 4
"""Questions in flight; fewer on a machine with fewer cores."""

Progress = Callable[[int, int], None]
"""Told (cases done, cases in all)."""


async def evaluate(
    settings: Settings,
    ledger: Ledger,
    release: Release,
    golden: GoldenSet,
    *,
    stores: Mapping[str, VectorStore] | None = None,
    evaluators: Sequence[Evaluator] = (),
    answers: bool = True,
    progress: Progress = lambda done, cases: None,
) -> EvaluationReport:
    """Ask every case of a set, as its own reader, of one release, and score what comes of it.

    What the ledger holds of the same evaluation (release, state of its index, set, models, settings, evaluators) is
    not asked again, but for cases that failed and those that an evaluator left for another day. One that is complete
    costs no question at all.

    Args:
        stores: vector stores of the caller's, by name.
        evaluators: score answers beside our own metrics; closed by the caller.
        answers: False measures retrieval alone, without generator and evaluators.

    Raises:
        DependencyError: a dependency is down. What was scored is kept: the same call goes on from there.
        ConfigurationError: the release cannot be asked here.
    """
    queries = OfflineQueries(settings, ledger, release, stores=stores)
    try:
        run = _Run(settings, ledger, queries, golden, evaluators, answers, progress)
        await run.begin()
        if run.waiting:
            await queries.start()
            await run.score_all()
        if run.waiting or run.evaluation.summary is None:
            await run.finish()
        else:
            await asyncio.to_thread(ledger.evaluations.confirm, run.evaluation.evaluation_id, time.time())
    finally:
        await queries.aclose()
    found = await asyncio.to_thread(ledger.evaluations.get, run.evaluation.evaluation_id)
    assert found is not None
    return await asyncio.to_thread(stored_report, ledger, found, golden)


class _Run:
    """One call of ``evaluate``. ``waiting`` are the cases that are still to be asked."""

    evaluation: Evaluation
    waiting: list[GoldenCase]

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        queries: OfflineQueries,
        golden: GoldenSet,
        evaluators: Sequence[Evaluator],
        answers: bool,
        progress: Progress,
    ) -> None:
        self._settings, self._ledger, self._queries, self._golden = settings, ledger, queries, golden
        self._answers, self._progress = answers, progress
        self._scores = CaseScores(evaluators, answers=answers)
        self._scored: dict[str, set[str]] = {}
        self._failed_in_a_row = 0
        self._done = 0

    # ── the whole ──

    async def begin(self) -> None:
        """Create the evaluation, or find what was scored of it."""
        judges = sorted({e.judge for e in self._scores.evaluators if e.judge is not None})
        names = [e.name for e in self._scores.evaluators]
        measured_by = identity.fingerprint(
            "evaluation",
            {
                "version": VERSION,
                "parts": list(self._queries.fingerprints),
                "profile": dataclasses.asdict(PROFILES[self._settings.profile]),
                "metrics": list(self._scores.metrics),
                "evaluators": names,
                "judges": judges,
            },
        )
        release, golden = self._queries.release, self._golden
        evaluations = self._ledger.evaluations

        def in_ledger() -> tuple[Evaluation, Sequence[CaseRow], Sequence[ScoreRow]]:
            state = self._ledger.releases.index_state(release.release_id)
            scope = (release.release_id, state, golden.name, golden.fingerprint, measured_by)
            found = evaluations.begin(
                identity.digest("evaluation", *scope)[:32],
                release_id=release.release_id,
                golden_set=golden.name,
                set_fingerprint=golden.fingerprint,
                kind="golden",
                evaluator="+".join(["rag_platform", *names]),
                judge="+".join(judges) or None,
                settings_fingerprint=measured_by,
                at=time.time(),
                index_state=state,
            )
            return found, evaluations.cases(found.evaluation_id), evaluations.scores(found.evaluation_id)

        self.evaluation, cases, scores = await asyncio.to_thread(in_ledger)
        summary = self.evaluation.summary
        if summary is None or not summary["index_moved"]:
            answered = {c.case_id for c in cases if c.failure is None}
            for score in scores:
                if score.case_id in answered:
                    self._scored.setdefault(score.case_id, set()).add(score.metric)
        every = set(self._scores.metrics)
        self.waiting = [c for c in golden.cases if not every <= self._scored.get(c.case_id, set())]
        self._done = len(golden.cases) - len(self.waiting)

    async def score_all(self) -> None:
        """Ask and score what waits, some cases at a time; an outage ends them all."""
        self._progress(self._done, len(self._golden.cases))
        waiting = iter(self.waiting)

        async def work() -> None:
            for case in waiting:  # shared: each case is taken by one of the workers
                await self._score(case)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(MAX_AT_ONCE, self._settings.cores, len(self.waiting))):
                    group.create_task(work())
        except ExceptionGroup as e:
            first = next((x for x in e.exceptions if isinstance(x, DependencyError)), e.exceptions[0])
            raise first from first.__cause__

    async def finish(self) -> None:
        """Sum up what was scored."""
        evaluation_id, release_id = self.evaluation.evaluation_id, self.evaluation.release_id

        def in_ledger() -> None:
            moved = self._ledger.releases.index_state(release_id) != self.evaluation.index_state
            scores = self._ledger.evaluations.scores(evaluation_id)
            found = summaries(scores, self._scores.metrics, len(self._golden.cases))
            summary = {"metrics": {m: dataclasses.asdict(s) for m, s in found.items()}, "index_moved": moved}
            self._ledger.evaluations.finish(evaluation_id, summary, time.time())

        await asyncio.to_thread(in_ledger)

    # ── one case ──

    async def _score(self, case: GoldenCase) -> None:
        started = time.perf_counter()
        evaluation_id = self.evaluation.evaluation_id
        outcome: Outcome | None = None
        failure: Exception | None = None
        try:
            question = self._queries.question(case.question, Principal(case.tenant, frozenset(case.groups)))
            outcome = await (self._queries.ask if self._answers else self._queries.retrieve)(question)
        except (NotAnswered, ValueError) as e:
            failure = e
            rows = self._scores.of_failure(evaluation_id, case, e)
        else:
            scored = self._scored.get(case.case_id, set())
            rows = await self._scores.of_outcome(evaluation_id, case, outcome, scored)
        row = case_row(evaluation_id, case, outcome, failure, time.perf_counter() - started)
        await asyncio.to_thread(self._ledger.evaluations.put, rows, row)
        self._done += 1
        self._progress(self._done, len(self._golden.cases))
        self._failed_in_a_row = self._failed_in_a_row + 1 if failure is not None else 0
        if self._failed_in_a_row >= MAX_FAILED_IN_A_ROW:
            raise DependencyError("query", f"{MAX_FAILED_IN_A_ROW} questions in a row got no answer") from failure
