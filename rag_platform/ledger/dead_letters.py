"""Dead letters: what could not be read, why, and what was done about it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from rag_platform import identity
from rag_platform.errors import DocumentError
from rag_platform.ledger import schema
from rag_platform.ledger.database import Database, batches
from rag_platform.ledger.documents import Document

_l = schema.dead_letters


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One document version that failed at one stage. ``message`` never holds document text."""

    dead_letter_id: str
    document_id: str
    version_id: str
    stage: str
    source: str
    uri: str
    bucket: str
    content_hash: str
    error_code: str
    message: str
    attempts: int
    first_seen_at: float
    last_seen_at: float
    next_retry_at: float | None
    state: str
    resolution: str | None
    run_id: str
    trace_id: str | None


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure that is about to become a dead letter."""

    document: Document
    version_id: str
    stage: str
    error: DocumentError


class DeadLetters:
    def __init__(self, database: Database) -> None:
        self._db = database

    def record(
        self, failures: Sequence[Failure], *, run_id: str, max_attempts: int, backoff_s: float
    ) -> list[DeadLetter]:
        """Write failures down. A repeated one counts an attempt more and doubles its wait; after
        ``max_attempts`` it is replayed only by a person."""
        if not failures:
            return []
        now = time.time()
        ids = [_id(f) for f in failures]
        with self._db.write("dead_letters") as c:
            known = {r.dead_letter_id: r for r in self._select(c, _l.c.dead_letter_id, ids)}
            rows = []
            for failure, letter_id in zip(failures, ids, strict=True):
                old = known.get(letter_id)
                attempts = 1 if old is None else old.attempts + 1
                rows.append(
                    {
                        "dead_letter_id": letter_id,
                        "document_id": failure.document.document_id,
                        "version_id": failure.version_id,
                        "stage": failure.stage,
                        "source": failure.document.source,
                        "uri": failure.document.uri,
                        "bucket": failure.document.bucket,
                        "content_hash": failure.document.content_hash,
                        "error_code": failure.error.code,
                        "message": str(failure.error),
                        "attempts": attempts,
                        "first_seen_at": now if old is None else old.first_seen_at,
                        "last_seen_at": now,
                        "next_retry_at": None
                        if attempts >= max_attempts
                        else now + backoff_s * 2 ** min(attempts - 1, 20),
                        "state": "open",
                        "resolution": None,
                        "run_id": run_id,
                        "trace_id": None,
                    }
                )
            self._db.upsert(
                c,
                _l,
                rows,
                update=(
                    "error_code", "message", "attempts", "last_seen_at", "next_retry_at", "state", "resolution",
                    "run_id", "bucket",
                ),
            )  # fmt: skip
            return [DeadLetter(**r._mapping) for r in self._select(c, _l.c.dead_letter_id, ids)]

    def blocking(self, bucket: str) -> dict[str, set[str]]:
        """Return document → versions that must not be tried: open and discarded letters, but not
        those being replayed."""
        query = sa.select(_l.c.document_id, _l.c.version_id).where(
            _l.c.bucket == bucket, _l.c.state.in_(("open", "discarded"))
        )
        found: dict[str, set[str]] = {}
        with self._db.read() as c:
            for r in c.execute(query):
                found.setdefault(r.document_id, set()).add(r.version_id)
        return found

    def settle(self, bucket: str, wanted: Mapping[str, str], indexed: Collection[str]) -> int:
        """Resolve unsettled letters of a bucket that no longer matter; return how many.

        Args:
            bucket: the partition.
            wanted: live document → the version that is wanted now. A letter of another version was
                superseded; one of a document that is not here was deleted with it.
            indexed: documents whose wanted version is in the index: replayed with success.
        """
        query = sa.select(_l.c.dead_letter_id, _l.c.document_id, _l.c.version_id, _l.c.state).where(
            _l.c.bucket == bucket, _l.c.state.in_(("open", "replaying", "discarded"))
        )
        with self._db.read() as c:
            rows = c.execute(query).all()
        settled: dict[str, list[str]] = {}
        for r in rows:
            if r.document_id not in wanted:
                settled.setdefault("document deleted", []).append(r.dead_letter_id)
            elif wanted[r.document_id] != r.version_id:
                settled.setdefault("superseded by a new version", []).append(r.dead_letter_id)
            elif r.document_id in indexed and r.state != "discarded":
                settled.setdefault("replayed", []).append(r.dead_letter_id)
        if not settled:
            return 0
        with self._db.write("settle_dead_letters") as c:
            for resolution, ids in settled.items():
                for batch in batches(ids):
                    c.execute(
                        _l.update()
                        .where(_l.c.dead_letter_id.in_(batch))
                        .values(state="resolved", resolution=resolution, next_retry_at=None)
                    )
        return sum(map(len, settled.values()))

    def move(self, ids: Iterable[str], to: str, *, among: Collection[str]) -> list[str]:
        """Set the state of those letters whose state is in ``among``; return the ids that moved."""
        moved: list[str] = []
        with self._db.write(f"dead_letters_{to}") as c:
            for batch in batches(ids):
                query = sa.select(_l.c.dead_letter_id).where(_l.c.dead_letter_id.in_(batch), _l.c.state.in_(among))
                hits = [r.dead_letter_id for r in c.execute(query)]
                c.execute(_l.update().where(_l.c.dead_letter_id.in_(hits)).values(state=to))
                moved += hits
        return moved

    def due(self, now: float) -> list[DeadLetter]:
        """Return open letters whose next automatic replay has come."""
        return self._list(sa.and_(_l.c.state == "open", _l.c.next_retry_at.is_not(None), _l.c.next_retry_at <= now))

    def search(
        self, *, state: str | None = None, source: str | None = None, stage: str | None = None
    ) -> list[DeadLetter]:
        """List letters, newest failure first."""
        conditions = [
            column == value
            for column, value in ((_l.c.state, state), (_l.c.source, source), (_l.c.stage, stage))
            if value is not None
        ]
        return self._list(sa.and_(sa.true(), *conditions))

    def get(self, prefix: str) -> DeadLetter | None:
        """Return the letter whose id is, or uniquely starts with, ``prefix``."""
        found = self._list(_l.c.dead_letter_id.startswith(prefix, autoescape=True))
        return found[0] if len(found) == 1 else None

    def counts(self) -> dict[str, int]:
        """Count letters by state; every state is present."""
        with self._db.read() as c:
            rows = c.execute(sa.select(_l.c.state, sa.func.count()).group_by(_l.c.state)).all()
        return {state: 0 for state in schema.DeadLetterStates} | {r[0]: r[1] for r in rows}

    def _list(self, condition: sa.ColumnElement[bool]) -> list[DeadLetter]:
        query = sa.select(_l).where(condition).order_by(_l.c.last_seen_at.desc(), _l.c.uri)
        with self._db.read() as c:
            return [DeadLetter(**r._mapping) for r in c.execute(query)]

    @staticmethod
    def _select(
        c: sa.Connection, column: sa.ColumnElement[str], values: Iterable[str]
    ) -> list[sa.Row[tuple[object, ...]]]:
        return [r for batch in batches(values) for r in c.execute(sa.select(_l).where(column.in_(batch)))]


def _id(failure: Failure) -> str:
    return identity.digest("dead letter", failure.document.document_id, failure.version_id, failure.stage)[:16]
