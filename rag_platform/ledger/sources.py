"""Registered sources and their listings."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from rag_platform.ledger import schema
from rag_platform.ledger.database import Database
from rag_platform.records import SourceSpec

Origin = Literal["file", "command"]


@dataclass(frozen=True, slots=True)
class RegisteredSource:
    """A source with what its last listing told."""

    spec: SourceSpec
    origin: Origin
    listed_at: float | None
    listed_count: int | None
    problem: str | None


class Sources:
    def __init__(self, database: Database) -> None:
        self._db = database

    def register(self, spec: SourceSpec, origin: Origin) -> None:
        """Remember a source, or its new definition; what is known of its documents stays."""
        row = {
            "name": spec.name,
            "spec": json.dumps(dataclasses.asdict(spec), sort_keys=True),
            "origin": origin,
            "registered_at": time.time(),
        }
        known = self.get(spec.name)
        if known is not None and known.spec == spec and known.origin == origin:
            return
        with self._db.write("register_source") as c:
            self._db.upsert(c, schema.sources, [row], update=("spec", "origin"))

    def all(self) -> list[RegisteredSource]:
        with self._db.read() as c:
            return [_from_row(r) for r in c.execute(sa.select(schema.sources).order_by(schema.sources.c.name))]

    def get(self, name: str) -> RegisteredSource | None:
        with self._db.read() as c:
            row = c.execute(sa.select(schema.sources).where(schema.sources.c.name == name)).first()
        return None if row is None else _from_row(row)

    def remove(self, name: str) -> None:
        """Forget the source's definition. Its documents are marked deleted by the caller."""
        with self._db.write("remove_source") as c:
            c.execute(schema.sources.delete().where(schema.sources.c.name == name))

    def note_listing(self, name: str, *, count: int, size: int) -> None:
        """Record a complete listing."""
        with self._db.write("note_listing") as c:
            c.execute(
                schema.sources.update()
                .where(schema.sources.c.name == name)
                .values(listed_at=time.time(), listed_count=count, listed_bytes=size, problem=None)
            )

    def note_problem(self, name: str, problem: str) -> None:
        """Record why the last listing failed or is held back."""
        with self._db.write("note_problem") as c:
            c.execute(schema.sources.update().where(schema.sources.c.name == name).values(problem=problem))


def _from_row(row: sa.Row[tuple[object, ...]]) -> RegisteredSource:
    fields = json.loads(row.spec)
    for name in ("include", "exclude", "acl", "tags"):
        fields[name] = tuple(fields[name])
    return RegisteredSource(SourceSpec(**fields), row.origin, row.listed_at, row.listed_count, row.problem)
