"""Runs and their counters."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from rag_platform.ledger import schema
from rag_platform.ledger.database import Database

_r = schema.runs
_c = schema.run_counters


@dataclass(frozen=True, slots=True)
class RunRecord:
    run_id: str
    started_at: float
    finished_at: float | None
    sources: tuple[str, ...]
    counters: Mapping[str, float]


class Runs:
    def __init__(self, database: Database) -> None:
        self._db = database

    def start(self, run_id: str, sources: Sequence[str]) -> None:
        """Record the start of a run; a no-op for a run that is known (a step that is retried)."""
        row = {"run_id": run_id, "started_at": time.time(), "sources": json.dumps(list(sources))}
        with self._db.write("run_start") as c:
            self._db.upsert(c, _r, [row])

    def set_counters(self, run_id: str, counters: Mapping[str, float]) -> None:
        """Set counters of a run, overwriting those of the same name."""
        if not counters:
            return
        with self._db.write("counters") as c:
            rows = [{"run_id": run_id, "name": n, "value": float(v)} for n, v in counters.items()]
            self._db.upsert(c, _c, rows, update=("value",))

    def counters(self, run_id: str) -> dict[str, float]:
        """Return the counters of a run, also of one that lists no source and so has no record."""
        with self._db.read() as c:
            return {x.name: x.value for x in c.execute(sa.select(_c).where(_c.c.run_id == run_id))}

    def finish(self, run_id: str) -> None:
        with self._db.write("run_finish") as c:
            c.execute(_r.update().where(_r.c.run_id == run_id).values(finished_at=time.time()))

    def get(self, run_id: str) -> RunRecord | None:
        return self._one(sa.select(_r).where(_r.c.run_id == run_id))

    def last(self) -> RunRecord | None:
        return self._one(sa.select(_r).order_by(_r.c.started_at.desc()).limit(1))

    def recent(self, count: int) -> list[RunRecord]:
        with self._db.read() as c:
            ids = [r.run_id for r in c.execute(sa.select(_r.c.run_id).order_by(_r.c.started_at.desc()).limit(count))]
        return [record for i in ids if (record := self.get(i)) is not None]

    def _one(self, query: sa.Select[tuple[object, ...]]) -> RunRecord | None:
        with self._db.read() as c:
            row = c.execute(query).first()
            if row is None:
                return None
            counters = {x.name: x.value for x in c.execute(sa.select(_c).where(_c.c.run_id == row.run_id))}
        return RunRecord(row.run_id, row.started_at, row.finished_at, tuple(json.loads(row.sources)), counters)
