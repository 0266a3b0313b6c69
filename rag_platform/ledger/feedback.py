"""Feedback: what readers thought of an answer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from rag_platform import identity
from rag_platform.ledger import schema
from rag_platform.ledger.database import Database, batches
from rag_platform.ledger.query_log import delete_before, storable

_f = schema.feedback


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackRow:
    """One reader's thumb for one answer.

    Attributes:
        key_id: None without keys.
        rating: 1 (up) or -1 (down).
        at: seconds since the epoch.
    """

    request_id: str
    key_id: str | None
    rating: int
    comment: str | None
    at: float

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: the rating is neither 1 nor -1.
        """
        if self.rating not in (-1, 1):
            raise ValueError("a rating is 1 or -1")

    @property
    def feedback_id(self) -> str:
        """Equal for the same reader and answer, so that a second thumb replaces the first."""
        return identity.digest("feedback", self.request_id, self.key_id or "")[:32]


class FeedbackTable:
    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, row: FeedbackRow) -> bool:
        """Keep a thumb. False, and nothing is kept, when this reader has no such answer in the query log: a key
        rates the answers of its tenant, a reader without a key those that were given without one."""
        q, k = schema.query_log, schema.api_keys
        values = {
            "feedback_id": row.feedback_id,
            "request_id": row.request_id,
            "at": row.at,
            "key_id": row.key_id or "",
            "rating": row.rating,
            "comment": storable(row.comment),
        }
        own: sa.ColumnElement[bool]
        if row.key_id is None:
            own = q.c.key_id.is_(None)
        else:
            own = q.c.tenant == sa.select(k.c.tenant).where(k.c.key_id == row.key_id).scalar_subquery()
        with self._db.write("feedback") as c:
            if c.execute(sa.select(q.c.request_id).where(q.c.request_id == row.request_id, own)).first() is None:
                return False
            self._db.upsert(c, _f, [values], update=("at", "rating", "comment"))
        return True

    def of_request(self, request_id: str) -> list[FeedbackRow]:
        """Return the thumbs for one answer, the oldest first."""
        return self._list(sa.select(_f).where(_f.c.request_id == request_id).order_by(_f.c.at, _f.c.key_id))

    def of_requests(self, request_ids: Collection[str]) -> list[FeedbackRow]:
        """Return the thumbs for these answers, the oldest first."""
        found: list[FeedbackRow] = []
        for some in batches(request_ids):
            found += self._list(sa.select(_f).where(_f.c.request_id.in_(some)))
        return sorted(found, key=lambda r: (r.at, r.key_id or ""))

    def since(self, at: float, *, limit: int = 1000) -> list[FeedbackRow]:
        """Return the newest ``limit`` thumbs from ``at`` on, the newest first."""
        return self._list(sa.select(_f).where(_f.c.at >= at).order_by(_f.c.at.desc(), _f.c.feedback_id).limit(limit))

    def delete_before(self, at: float) -> int:
        """Delete thumbs older than ``at``; return how many."""
        return delete_before(self._db, _f, _f.c.feedback_id, at)

    def _list(self, query: sa.Select[tuple[object, ...]]) -> list[FeedbackRow]:
        with self._db.read() as c:
            return [
                FeedbackRow(
                    request_id=r.request_id, key_id=r.key_id or None, rating=r.rating, comment=r.comment, at=r.at
                )
                for r in c.execute(query)
            ]
