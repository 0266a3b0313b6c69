"""Evaluations: how well a release answers, and what judging that cost.

An evaluation belongs to one release in one state of its index, one golden set (or sample of the traffic) and one way
of measuring. Its cases are kept one by one, each with all its scores in one transaction: what was killed goes on
where it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import sqlalchemy as sa

from rag_platform.ledger import schema
from rag_platform.ledger.database import Database

Kind = Literal["golden", "traffic"]
ScoreState = Literal["scored", "nan", "failed", "empty"]
"""``nan``: the metric is undefined for what was answered. ``failed``: it could not be computed. ``empty``: there was
nothing to compare (no gold span, no reference, no citation)."""

_e, _c, _s = schema.evaluations, schema.evaluation_cases, schema.evaluation_scores
_j = schema.judge_spend
_last = sa.func.coalesce(_e.c.finished_at, _e.c.started_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One evaluation; ``finished_at`` and ``summary`` are None while cases are missing.

    Attributes:
        finished_at: when it was last found to be so: asked for again while nothing has changed, it is not held again.
        evaluator: names of what scored it, joined by +.
        judge: the model that judged, with what pins it; None without one.
        settings_fingerprint: of everything beside release and set that decides the scores.
        index_state: of the release's index when it began (``Releases.index_state``).
        summary: metric → mean, interval and counts.
    """

    evaluation_id: str
    release_id: str
    golden_set: str
    set_fingerprint: str
    kind: Kind
    evaluator: str
    judge: str | None
    settings_fingerprint: str
    index_state: str
    started_at: float
    finished_at: float | None
    summary: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class CaseRow:
    """What came of one case.

    Attributes:
        refused: None when no answer was asked for, or none came.
        uris: documents that the answer cites; without answers, those of the passages found, best first.
        failure: class of the error that ended it.
        seconds: wall time of question and scores.
        usd: None when a price is unknown.
    """

    evaluation_id: str
    case_id: str
    refused: bool | None
    uris: tuple[str, ...]
    failure: str | None
    seconds: float
    usd: float | None


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One metric of one case. ``value`` is None unless ``state`` is ``scored``."""

    evaluation_id: str
    case_id: str
    metric: str
    value: float | None
    state: ScoreState
    detail: str = ""
    seconds: float = 0.0
    usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Spend:
    """What judges have used on one day (UTC)."""

    usd: float
    tokens: int
    calls: int


class Evaluations:
    def __init__(self, database: Database) -> None:
        self._db = database

    # ── evaluations ──

    def begin(
        self,
        evaluation_id: str,
        *,
        release_id: str,
        golden_set: str,
        set_fingerprint: str,
        kind: Kind,
        evaluator: str,
        judge: str | None,
        settings_fingerprint: str,
        at: float,
        index_state: str = "",
    ) -> Evaluation:
        """Create an evaluation; one that exists already is left as it is, to be resumed."""
        row = {
            "evaluation_id": evaluation_id,
            "release_id": release_id,
            "golden_set": golden_set,
            "set_fingerprint": set_fingerprint,
            "kind": kind,
            "evaluator": evaluator,
            "judge": judge,
            "settings_fingerprint": settings_fingerprint,
            "index_state": index_state,
            "started_at": at,
        }
        with self._db.write("evaluation") as c:
            self._db.upsert(c, _e, [row])
        found = self.get(evaluation_id)
        assert found is not None
        return found

    def put(self, scores: Sequence[ScoreRow], case: CaseRow | None = None) -> None:
        """Keep scores, and with ``case`` all that came of it, in one transaction; a second time replaces the first."""
        with self._db.write("evaluation_scores") as c:
            self._db.upsert(c, _s, [asdict(s) for s in scores], update=("value", "state", "detail", "seconds", "usd"))
            if case is not None:
                row = asdict(case) | {"uris": json.dumps(case.uris)}
                self._db.upsert(c, _c, [row], update=("refused", "uris", "failure", "seconds", "usd"))

    def finish(self, evaluation_id: str, summary: Mapping[str, Any], at: float) -> None:
        """Mark an evaluation as complete."""
        values = {"summary": json.dumps(dict(summary)), "finished_at": at}
        with self._db.write("evaluation") as c:
            c.execute(_e.update().where(_e.c.evaluation_id == evaluation_id).values(values))

    def confirm(self, evaluation_id: str, at: float) -> None:
        """Make a complete evaluation the newest one: what it measured was found to be so again."""
        with self._db.write("evaluation") as c:
            c.execute(_e.update().where(_e.c.evaluation_id == evaluation_id).values({"finished_at": at}))

    def get(self, evaluation_id: str) -> Evaluation | None:
        with self._db.read() as c:
            row = c.execute(sa.select(_e).where(_e.c.evaluation_id == evaluation_id)).first()
        return None if row is None else _evaluation(row)

    def latest(
        self,
        release_id: str,
        golden_set: str,
        set_fingerprint: str | None = None,
        *,
        kind: Kind = "golden",
        finished: bool = True,
    ) -> Evaluation | None:
        """Return the newest evaluation of a release on a set (with any content, when no fingerprint is given)."""
        query = sa.select(_e).where(_e.c.release_id == release_id, _e.c.golden_set == golden_set, _e.c.kind == kind)
        if set_fingerprint is not None:
            query = query.where(_e.c.set_fingerprint == set_fingerprint)
        if finished:
            query = query.where(_e.c.finished_at.is_not(None))
        with self._db.read() as c:
            row = c.execute(query.order_by(_last.desc(), _e.c.evaluation_id).limit(1)).first()
        return None if row is None else _evaluation(row)

    def list(
        self,
        *,
        release_id: str | None = None,
        golden_set: str | None = None,
        kind: Kind | None = None,
        limit: int = 100,
    ) -> Sequence[Evaluation]:
        """Return evaluations, the newest first."""
        query = sa.select(_e).order_by(_last.desc(), _e.c.evaluation_id).limit(limit)
        for column, wanted in ((_e.c.release_id, release_id), (_e.c.golden_set, golden_set), (_e.c.kind, kind)):
            if wanted is not None:
                query = query.where(column == wanted)
        with self._db.read() as c:
            return [_evaluation(r) for r in c.execute(query)]

    def scores(self, evaluation_id: str) -> Sequence[ScoreRow]:
        """Return every score so far, by case and metric."""
        query = sa.select(_s).where(_s.c.evaluation_id == evaluation_id).order_by(_s.c.case_id, _s.c.metric)
        with self._db.read() as c:
            return [ScoreRow(**r._mapping) for r in c.execute(query)]

    def cases(self, evaluation_id: str) -> Sequence[CaseRow]:
        """Return what came of every case so far."""
        query = sa.select(_c).where(_c.c.evaluation_id == evaluation_id).order_by(_c.c.case_id)
        with self._db.read() as c:
            return [CaseRow(**{**r._mapping, "uris": tuple(json.loads(r.uris))}) for r in c.execute(query)]

    def delete_before(self, at: float) -> int:
        """Delete evaluations that nobody asked for since ``at``, with their cases, one by one; return how many."""
        query = sa.select(_e.c.evaluation_id).where(_last < at)
        with self._db.read() as c:
            old = [row.evaluation_id for row in c.execute(query)]
        for evaluation_id in old:
            with self._db.write("delete_evaluation") as c:
                for table in (_s, _c, _e):
                    c.execute(table.delete().where(table.c.evaluation_id == evaluation_id))
        return len(old)

    # ── judges ──

    def judge_spend(self, day: str) -> Spend:
        """Return what all judges have used on a day (YYYY-MM-DD, UTC)."""
        sums = [sa.func.coalesce(sa.func.sum(column), 0) for column in (_j.c.usd, _j.c.tokens, _j.c.calls)]
        with self._db.read() as c:
            usd, tokens, calls = c.execute(sa.select(*sums).where(_j.c.day == day)).one()
        return Spend(float(usd), int(tokens), int(calls))

    def add_spend(self, day: str, judge: str, *, usd: float, tokens: int, calls: int = 1) -> None:
        """Add to what a judge has used on a day."""
        row = {"day": day, "judge": judge, "usd": usd, "tokens": tokens, "calls": calls}
        with self._db.write("judge_spend") as c:
            self._db.upsert(c, _j, [row], add=("usd", "tokens", "calls"))


def _evaluation(row: sa.Row[tuple[object, ...]]) -> Evaluation:
    values = dict(row._mapping)
    values["summary"] = None if row.summary is None else json.loads(row.summary)
    return Evaluation(**values)
