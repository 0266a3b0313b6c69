"""The exam of a release that is to serve: every golden set, asked of it and of the one that serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from rag_platform.backends.vector_stores.base import VectorStore
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.evaluation.evaluators.base import Evaluator
from rag_platform.evaluation.evaluators.opening import open_evaluators
from rag_platform.evaluation.gate import Policy, Verdict, decide, policy_of
from rag_platform.evaluation.golden import GoldenSet, golden_sets, set_path
from rag_platform.evaluation.report import EvaluationReport
from rag_platform.evaluation.run import evaluate
from rag_platform.evaluation.stored import stored_report
from rag_platform.ledger import Ledger
from rag_platform.ledger.releases import Release
from rag_platform.settings import Settings

RAGAS = "ragas_"
"""Metrics with this prefix are scored only where a policy asks for one: they take longer, or cost money."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Paper:
    """One golden set of an exam. ``serving`` None: there is nothing to compare with."""

    verdict: Verdict
    candidate: EvaluationReport
    serving: EvaluationReport | None


@dataclass(frozen=True, slots=True)
class Exam:
    """What a release achieved.

    Attributes:
        notes: what the reader of the verdict should know, such as that an older evaluation was compared with.
        not_held: parts of the exam that could not be held, with the cure: it is not passed.
        known: it was refused before, for the same reasons.
    """

    release_id: str
    papers: tuple[Paper, ...]
    notes: tuple[str, ...] = ()
    not_held: tuple[str, ...] = ()
    known: bool = False

    @property
    def moved(self) -> bool:
        """Whether an index changed while it was asked: nothing can be concluded, a later exam will."""
        return any(p.candidate.index_moved or (p.serving is not None and p.serving.index_moved) for p in self.papers)

    @property
    def passed(self) -> bool:
        return not self.moved and not self.not_held and all(p.verdict.passed for p in self.papers)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not passed, one sentence for each demand: set, metric, values, worst questions."""
        failed = (f"{p.verdict.golden_set}: {failure}" for p in self.papers for failure in p.verdict.failures)
        return (*self.not_held, *failed)


def gated(settings: Settings) -> bool:
    """Whether a later release must pass an exam before it serves: the gate is on, and there are golden sets, readable
    or not."""
    return settings.gate == "on" and next(settings.resolved_golden_dir.glob("*.y*ml"), None) is not None


async def examine(
    settings: Settings,
    ledger: Ledger,
    candidate: Release,
    serving: Release | None,
    *,
    stores: Mapping[str, VectorStore] | None = None,
    progress: Progress = lambda done, cases: None,
) -> Exam:
    """Evaluate both releases on every golden set, and decide by the policy of each.

    What the ledger holds of either evaluation is not asked again. A serving release that cannot be asked any more (its
    store is gone, its embedder cannot be built here) is compared with by its newest evaluation of the same set.

    Raises:
        DependencyError: a dependency of the candidate is down; what was scored is kept.
        ConfigurationError: a golden set or its policy cannot be read, or the candidate cannot be asked here.
    """
    sets = golden_sets(settings)
    policies = [policy_of(one.gate, str(set_path(settings, one.name))) for one in sets]
    cases = sum(len(one.cases) for one in sets) * (1 if serving is None else 2)
    papers: list[Paper] = []
    notes: list[str] = []
    not_held: list[str] = []
    before = 0
    async with AsyncExitStack() as opened:
        evaluators = await _evaluators(settings, ledger, policies, opened)
        for golden, policy in zip(sets, policies, strict=True):

            async def ask(release: Release, golden: GoldenSet = golden) -> EvaluationReport:
                nonlocal before
                report = await evaluate(
                    settings,
                    ledger,
                    release,
                    golden,
                    stores=stores,
                    evaluators=evaluators,
                    progress=lambda done, _: progress(before + done, cases),
                )
                before += len(golden.cases)
                return report

            found = await ask(candidate)
            compared: EvaluationReport | None = None
            if serving is not None:
                try:
                    compared = await ask(serving)
                except (ConfigurationError, DependencyError) as e:
                    if isinstance(e, DependencyError) and not _of_another_store(e, serving, candidate):
                        raise
                    compared = _newest(ledger, serving, golden)
                    before += len(golden.cases)
                    if compared is not None:
                        notes.append(
                            f"{golden.name}: compared with the newest evaluation of {serving.release_id}, because {e}"
                        )
                    elif any(demand.max_drop is not None for demand in policy.values()):
                        not_held.append(
                            f"{golden.name}: nothing to compare with, because {e}. Run `rag evaluate` with the settings that "
                            "made the serving release, or promote this one with --force"
                        )
            papers.append(Paper(decide(policy, found, compared), found, compared))
    return Exam(candidate.release_id, tuple(papers), tuple(notes), tuple(not_held))


async def _evaluators(
    settings: Settings, ledger: Ledger, policies: Sequence[Policy], opened: AsyncExitStack
) -> list[Evaluator]:
    if not any(metric.startswith(RAGAS) for policy in policies for metric in policy):
        return []
    evaluators = open_evaluators(settings, ledger)
    for evaluator in evaluators:
        opened.push_async_callback(evaluator.aclose)
    return evaluators


def _of_another_store(e: DependencyError, serving: Release, candidate: Release) -> bool:
    """Whether it is the store of the serving release that failed, and the candidate has another one: that may be
    why there is a candidate."""
    return serving.store != candidate.store and e.dependency.startswith("vector_store")


def _newest(ledger: Ledger, release: Release, golden: GoldenSet) -> EvaluationReport | None:
    found = ledger.evaluations.latest(release.release_id, golden.name, golden.fingerprint)
    return None if found is None else stored_report(ledger, found, golden)
