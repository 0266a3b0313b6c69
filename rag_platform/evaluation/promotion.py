"""Which release serves, decided: by the exam, or by a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.evaluation.exam import Exam, examine, gated
from rag_platform.ingestion.stages.audit import Conservation, audit_index, conservation
from rag_platform.ingestion.stages.exchange import ensure, index_of
from rag_platform.ingestion.stages.index import bring_up
from rag_platform.ingestion.stages.promote import ready, rolled_back
from rag_platform.ingestion.stages.replica import replicate
from rag_platform.ingestion.stages.report import StageReport
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.releases import Release

LOCK = "promotion"
"""Held while it is decided which release serves: one decision at a time, on whatever machine."""

Progress = Callable[[int, int], None]


def _silent(done: int, cases: int) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Takeover:
    """A release that a person let serve.

    Attributes:
        before: the release that served; None: none did, or this one already.
        standing: where the live documents stand in it; those in flight are served in an older version, or not yet.
        exam: None when none was held.
    """

    release: Release
    before: Release | None
    standing: Conservation
    exam: Exam | None


class Refused(ConfigurationError):
    """A release did not pass; ``exam`` says why."""

    def __init__(self, message: str, exam: Exam) -> None:
        super().__init__(message)
        self.exam = exam


def waits(bench: Workbench) -> bool:
    """Whether the release of this bench's pipeline could serve and waits for a decision.

    Raises:
        DependencyError: its store failed.
    """
    serving = bench.ledger.releases.serving()
    if serving is None or serving.release_id == bench.release_id or rolled_back(bench):
        return False
    return ready(bench)


def hold_exam(bench: Workbench, progress: Progress = _silent) -> Exam | None:
    """Examine the release of this bench's pipeline against the one that serves, and keep a refusal in the ledger.
    None when none waits, or no exam is asked for.

    Raises:
        DependencyError: a dependency is down; what was scored is kept.
        ConfigurationError: a golden set cannot be read.
    """
    if not gated(bench.settings) or not waits(bench):
        return None
    with bench.ledger.database.lock(LOCK):
        exam = _exam(bench, bench.release, progress)
        if not exam.passed and not exam.moved:
            news = bench.ledger.releases.refuse(bench.release_id, by="gate", reasons=exam.reasons)
            return replace(exam, known=not news)
    return exam


def promote_if_passed(bench: Workbench) -> Exam | None:
    """Let the release of this bench's pipeline serve when it passes its exam; return that, None when none waits.

    What was asked a moment ago is not asked again.
    """
    if not waits(bench):
        return None
    with bench.ledger.database.lock(LOCK):
        release, serving = bench.release, bench.ledger.releases.serving()
        exam = _exam(bench, release, _silent) if gated(bench.settings) else Exam(release.release_id, ())
        if exam.passed and serving is not None and serving.release_id != release.release_id:
            bench.ledger.releases.promote(release.release_id, by="gate", reasons=_passed(exam))
    return exam


def promote(
    bench: Workbench, release: Release, *, by: str, run_id: str, force: bool = False, progress: Progress = _silent
) -> Takeover:
    """Let a release serve because a person wants it: brought up to the ledger first, then examined.

    Args:
        force: without an exam, and although documents are missing.

    Raises:
        Refused: it did not pass.
        ConfigurationError: it is not complete, or cannot be opened here.
        DependencyError: its store is down, or its index is not what the ledger says.
    """
    serving = bench.ledger.releases.serving()
    view = bench.of_release(release)
    standing = _bring_up(view, run_id)
    if not force and not ready(view):
        raise ConfigurationError(
            f"{release.release_id} is not complete: {standing.in_flight} documents wait and {standing.dead_lettered} "
            "are dead letters. Run `rag ingest` with the settings that make it, or promote it all the same with --force"
        )
    exam: Exam | None = None
    with bench.ledger.database.lock(LOCK):
        if not force and gated(bench.settings):
            exam = _exam(view, release, progress)
            if not exam.passed:
                if not exam.moved:
                    bench.ledger.releases.refuse(release.release_id, by=by, reasons=exam.reasons)
                raise Refused(refusal(exam), exam)
        reasons = ["forced: no exam was held"] if force else _passed(exam)
        bench.ledger.releases.promote(release.release_id, by=by, reasons=reasons)
    before = None if serving is None or serving.release_id == release.release_id else serving
    return Takeover(release, before, standing, exam)


def roll_back(bench: Workbench, *, by: str, reason: str, run_id: str, to: Release | None = None) -> Takeover:
    """Let the release serve again that served before. The one that serves now comes back only by ``promote``.

    What was deleted since, and permissions that moved, reach the old index before it serves; documents whose text the
    old pipeline has not read are served as it last knew them, or not yet.

    Args:
        to: another release than the last that was retired.

    Raises:
        ConfigurationError: there is no earlier release, or it cannot be opened here.
        DependencyError: its store is down, or its index is not what the ledger says.
    """
    releases = bench.ledger.releases
    serving = releases.serving()
    target = to or previous(bench)
    if serving is None or target is None:
        raise ConfigurationError("there is no earlier release to go back to: see `rag release list`")
    if target.release_id == serving.release_id:
        raise ConfigurationError(f"{target.release_id} serves already")
    standing = _bring_up(bench.of_release(target), run_id)
    with bench.ledger.database.lock(LOCK):
        releases.promote(
            target.release_id,
            by=by,
            reasons=[f"instead of {serving.release_id}: {reason}"],
            rolled_back=serving.release_id,
        )
    return Takeover(target, serving, standing, None)


def previous(bench: Workbench) -> Release | None:
    """Return the release that served before the one that does; None when it is gone."""
    retired = [r for r in bench.ledger.releases.all() if r.state == "retired"]
    return max(retired, key=lambda r: r.promoted_at or 0.0, default=None)


def refusal(exam: Exam) -> str:
    """Return for people why a release does not serve."""
    if exam.moved:
        return f"the index changed while {exam.release_id} was examined; the next run examines it again"
    return f"{exam.release_id} does not pass the gate:" + "".join(f"\n  - {reason}" for reason in exam.reasons)


def _exam(bench: Workbench, release: Release, progress: Progress) -> Exam:
    serving = bench.ledger.releases.serving()
    if serving is not None and serving.release_id == release.release_id:
        serving = None
    exam = bench.run(examine(bench.settings, bench.ledger, release, serving, progress=progress))
    if exam.moved:  # once more: what moved it is most likely over
        exam = bench.run(examine(bench.settings, bench.ledger, release, serving, progress=progress))
    return exam


def _passed(exam: Exam | None) -> list[str]:
    if exam is None or not exam.papers:
        return ["complete; no gate asked for more"]
    return [f"passed {p.verdict.golden_set} ({len(p.candidate.cases)} questions)" for p in exam.papers] + [*exam.notes]


def _bring_up(view: Workbench, run_id: str) -> Conservation:
    """Let an index that no run cared for hold what the ledger says, as far as its chunks and vectors are stored."""
    ensure(view, index_of(view))
    bring_up(view, view.bucket_names, run_id, StageReport("index"))
    replicate(view, view.bucket_names, run_id=run_id)
    audit = audit_index(view, force=True)
    if audit.wrong:
        raise DependencyError(
            f"vector_store:{view.store_name}",
            f"the index of {view.release_id} differs from the ledger in {len(audit.wrong)} documents: run `rag rebuild` "
            "with the settings that make it",
            retryable=False,
        )
    return conservation(view, view.bucket_names)
