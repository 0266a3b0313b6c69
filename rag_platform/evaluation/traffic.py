"""Score a sample of the live traffic: answers as readers got them, by metrics that need no reference."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rag_platform import identity
from rag_platform.backends.vector_stores.base import VectorStore
from rag_platform.errors import DependencyError
from rag_platform.evaluation.evaluators.base import Evaluator
from rag_platform.evaluation.measure import summaries
from rag_platform.evaluation.report import CaseResult, EvaluationReport
from rag_platform.evaluation.sampling import MAX_SAMPLES, Traffic, TrafficSample, traffic
from rag_platform.ledger import Ledger
from rag_platform.ledger.evaluations import CaseRow, ScoreRow
from rag_platform.settings import Settings

NAME = "traffic"
"""Stands for the golden set in tables and gauges."""
MAX_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class TrafficReport:
    """
    Attributes:
        traffic: what was scored, and what was left out.
        reports: one for each release that answered; its questions have no text, which is the readers'.
    """

    traffic: Traffic
    reports: tuple[EvaluationReport, ...]


async def evaluate_traffic(
    settings: Settings,
    ledger: Ledger,
    since: float,
    until: float,
    evaluators: Sequence[Evaluator],
    *,
    stores: Mapping[str, VectorStore] | None = None,
    limit: int = MAX_SAMPLES,
    progress: Callable[[int, int], None] = lambda done, cases: None,
) -> TrafficReport:
    """Score the logged questions of ``[since, until)`` that the sampling chooses, each once.

    What the ledger holds of the same days and evaluators is not scored again; what a budget left out is.

    Args:
        evaluators: of ``open_evaluators(…, traffic=True)``; closed by the caller. None score nothing.

    Raises:
        DependencyError: a store, or what an evaluator needs, is down. What was scored is kept.
    """
    found = await traffic(settings, ledger, since, until, stores=stores, limit=limit)
    by_release: dict[str, list[TrafficSample]] = {}
    for one in found.samples:
        by_release.setdefault(one.release_id, []).append(one)
    done = 0
    reports: list[EvaluationReport] = []
    for release_id, samples in sorted(by_release.items()) if evaluators else ():
        run = _Run(ledger, release_id, since, until, samples, evaluators)
        await run.begin()
        await run.score_all(lambda count, before=done: progress(before + count, len(found.samples)))  # type: ignore[misc]
        done += len(samples)
        reports.append(await asyncio.to_thread(run.finish))
    return TrafficReport(found, tuple(reports))


class _Run:
    """The answers of one release."""

    def __init__(
        self,
        ledger: Ledger,
        release_id: str,
        since: float,
        until: float,
        samples: Sequence[TrafficSample],
        evaluators: Sequence[Evaluator],
    ) -> None:
        self._ledger, self._release_id, self._samples, self._evaluators = ledger, release_id, samples, evaluators
        self._metrics = tuple(m for e in evaluators for m in e.metrics)
        judges = [e.judge for e in evaluators if e.judge is not None]
        self._judge = "+".join(sorted(judges)) or None
        self._measured_by = identity.fingerprint("traffic", {"names": [e.name for e in evaluators], "judges": judges})
        self._days = f"{since:.0f}-{until:.0f}"
        self._id = identity.digest("evaluation", NAME, release_id, self._days, self._measured_by)[:32]
        self._have: dict[str, set[str]] = {}

    async def begin(self) -> None:
        """Create the evaluation, or find what was scored of it."""

        def in_ledger() -> Sequence[ScoreRow]:
            self._ledger.evaluations.begin(
                self._id,
                release_id=self._release_id,
                golden_set=NAME,
                set_fingerprint=self._days,
                kind="traffic",
                evaluator="+".join(e.name for e in self._evaluators),
                judge=self._judge,
                settings_fingerprint=self._measured_by,
                at=time.time(),
            )
            return self._ledger.evaluations.scores(self._id)

        for row in await asyncio.to_thread(in_ledger):
            self._have.setdefault(row.case_id, set()).add(row.metric)

    async def score_all(self, progress: Callable[[int], None]) -> None:
        """Score what has no score yet, some answers at a time; ``progress`` is told how many are done."""
        wanted = set(self._metrics)
        waiting = [s for s in self._samples if self._have.get(s.sample.case_id, set()) != wanted]
        done = len(self._samples) - len(waiting)
        progress(done)
        queue = iter(waiting)

        async def work() -> None:
            nonlocal done
            for one in queue:  # shared: each answer is taken by one of the workers
                await self._score(one)
                done += 1
                progress(done)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(MAX_AT_ONCE, len(waiting))):
                    group.create_task(work())
        except ExceptionGroup as e:
            first = next((x for x in e.exceptions if isinstance(x, DependencyError)), e.exceptions[0])
            raise first from first.__cause__

    def finish(self) -> EvaluationReport:
        """Sum up what was scored."""
        rows = self._ledger.evaluations.scores(self._id)
        found = summaries(rows, self._metrics, len(self._samples))
        summary = {"metrics": {m: dataclasses.asdict(s) for m, s in found.items()}, "index_moved": False}
        self._ledger.evaluations.finish(self._id, summary, time.time())
        by_case: dict[str, dict[str, float | None]] = {}
        for row in rows:
            by_case.setdefault(row.case_id, {})[row.metric] = row.value
        cases = tuple(
            CaseResult(s.sample.case_id, "", by_case.get(s.sample.case_id, {}), s.sample.refused) for s in self._samples
        )
        return EvaluationReport(
            self._id,
            self._release_id,
            NAME,
            self._days,
            found,
            cases,
            seconds=sum(r.seconds for r in rows),
            usd=sum(r.usd for r in rows),
        )

    async def _score(self, one: TrafficSample) -> None:
        case_id = one.sample.case_id
        rows: list[ScoreRow] = []
        for evaluator in self._evaluators:
            if self._have.get(case_id, set()).issuperset(evaluator.metrics):
                continue
            started = time.perf_counter()
            scores = await evaluator.score(one.sample)
            seconds = (time.perf_counter() - started) / max(1, len(scores))
            rows += [ScoreRow(self._id, case_id, s.metric, s.value, s.state, s.detail, seconds, s.usd) for s in scores]
        if rows:
            case = CaseRow(self._id, case_id, one.sample.refused, (), None, sum(r.seconds for r in rows), 0.0)
            await asyncio.to_thread(self._ledger.evaluations.put, rows, case)
