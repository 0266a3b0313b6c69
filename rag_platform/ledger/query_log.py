"""The query log: what was asked, by whom, what it rested on, and what it cost."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from rag_platform.ledger import schema
from rag_platform.ledger.database import Database, batches
from rag_platform.records import Principal

_q = schema.query_log

DELETE_BATCH = 2000
"""Rows deleted in one transaction: SQLite's one write lock is never held for long."""


class LoggedChunk(msgspec.Struct, frozen=True):
    """A chunk that the answer was made from.

    Attributes:
        rank: counts from 1.
        cited: whether the answer cites it; False, too, in rows of earlier versions.
    """

    document_id: str
    chunk_id: str
    rank: int
    cited: bool = False


class QueryLogRow(msgspec.Struct, frozen=True, kw_only=True):
    """One question and what came of it. A struct and no dataclass: every answer from the cache makes one, and a
    frozen dataclass of this size takes 30 µs.

    Attributes:
        at: when it came in, seconds since the epoch.
        key_id: None when no key was needed.
        groups, operator: with ``tenant`` the permissions it was answered with.
        question_hash: keyed hash of tenant and question; equal questions have equal hashes.
        question, answer: None unless the log is ``full``.
        documents: in the order of their rank.
        degraded: (stage, reason) pairs.
        cost_usd: None when a price is unknown.
        status: ``ok``, or the class of the error that ended it.
    """

    request_id: str
    at: float
    tenant: str
    profile: str
    status: str = "ok"
    key_id: str | None = None
    groups: tuple[str, ...] = ()
    operator: bool = False
    question_hash: str = ""
    question: str | None = None
    answer: str | None = None
    release_id: str | None = None
    mode: str = ""
    cache: str = ""
    generator: str = ""
    refused: bool = False
    degraded: tuple[tuple[str, str], ...] = ()
    documents: tuple[LoggedChunk, ...] = ()
    total_ms: float = 0.0
    timings_ms: Mapping[str, float] = {}
    prompt_tokens: int = 0
    completion_tokens: int = 0
    embedding_tokens: int = 0
    cost_usd: float | None = None
    trace_id: str | None = None

    @property
    def principal(self) -> Principal:
        """Who to be when the question is asked again."""
        return Principal(self.tenant, frozenset(self.groups), self.operator)

    @property
    def tokens(self) -> int:
        """All tokens that were billed."""
        return self.prompt_tokens + self.completion_tokens + self.embedding_tokens


class QueryLogTable:
    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, rows: Sequence[QueryLogRow]) -> None:
        """Write rows; one whose request id is there already is left as it is."""
        with self._db.write("query_log") as c:
            self._db.upsert(c, _q, [_to_row(r) for r in rows])

    def get(self, request_id: str) -> QueryLogRow | None:
        with self._db.read() as c:
            row = c.execute(sa.select(_q).where(_q.c.request_id == request_id)).first()
        return None if row is None else _from_row(row)

    def of_requests(self, request_ids: Collection[str]) -> dict[str, QueryLogRow]:
        """Return the rows of these requests by their id; one that is not, or no longer, in the log is missing."""
        found: dict[str, QueryLogRow] = {}
        with self._db.read() as c:
            for some in batches(request_ids):
                rows = c.execute(sa.select(_q).where(_q.c.request_id.in_(some)))
                found.update({r.request_id: _from_row(r) for r in rows})
        return found

    def since(self, at: float, *, limit: int = 1000) -> list[QueryLogRow]:
        """Return the newest ``limit`` rows from ``at`` on, the newest first."""
        query = sa.select(_q).where(_q.c.at >= at).order_by(_q.c.at.desc(), _q.c.request_id).limit(limit)
        with self._db.read() as c:
            return [_from_row(r) for r in c.execute(query)]

    def between(self, since: float, until: float, *, page: int = 5000) -> Iterator[list[QueryLogRow]]:
        """Yield the rows of ``[since, until)``, the oldest first, page by page; each page is one short transaction."""
        last: tuple[float, str] | None = None
        while True:
            query = (
                sa.select(_q).where(_q.c.at >= since, _q.c.at < until).order_by(_q.c.at, _q.c.request_id).limit(page)
            )
            if last is not None:
                query = query.where(sa.or_(_q.c.at > last[0], sa.and_(_q.c.at == last[0], _q.c.request_id > last[1])))
            with self._db.read() as c:
                rows = [_from_row(r) for r in c.execute(query)]
            if rows:
                yield rows
            if len(rows) < page:
                return
            last = rows[-1].at, rows[-1].request_id

    def delete_before(self, at: float) -> int:
        """Delete rows older than ``at``; return how many."""
        return delete_before(self._db, _q, _q.c.request_id, at)


def delete_before(database: Database, table: sa.Table, key: sa.Column[str], at: float) -> int:
    """Delete the rows of ``table`` whose column ``at`` is older, in short transactions; return how many."""
    deleted = 0
    while True:
        old = sa.select(key).where(table.c.at < at).limit(DELETE_BATCH)
        with database.write(f"delete_{table.name}") as c:
            count = c.execute(table.delete().where(key.in_(old))).rowcount
        deleted += count
        if count < DELETE_BATCH:
            return deleted


def storable(text: str | None) -> str | None:
    """Return text that every database takes: no lone surrogate (UTF-8) and no NUL (PostgreSQL)."""
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8").replace("\0", " ")


def _to_row(entry: QueryLogRow) -> dict[str, Any]:
    row = msgspec.structs.asdict(entry)
    row["question"], row["answer"] = storable(entry.question), storable(entry.answer)
    row["groups"] = _json(sorted(entry.groups))
    row["degraded"] = _json(entry.degraded)
    row["documents"] = _json([(d.document_id, d.chunk_id, d.rank, d.cited) for d in entry.documents])
    row["timings_ms"] = _json(dict(entry.timings_ms))
    return row


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _from_row(row: sa.Row[tuple[object, ...]]) -> QueryLogRow:
    values = dict(row._mapping)
    values["groups"] = tuple(msgspec.json.decode(row.groups))
    values["degraded"] = tuple((stage, reason) for stage, reason in msgspec.json.decode(row.degraded))
    values["documents"] = tuple(LoggedChunk(*d) for d in msgspec.json.decode(row.documents))
    values["timings_ms"] = msgspec.json.decode(row.timings_ms)
    return QueryLogRow(**values)
