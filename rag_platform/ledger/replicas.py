"""What separates the keyword replica of a release from the release's own index.

A replica follows the index and not the sources: it holds the versions that the index holds, so that a question
finds the same documents in both.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from rag_platform.ledger import schema
from rag_platform.ledger.database import Database
from rag_platform.ledger.documents import IndexEntry


@dataclass(frozen=True, slots=True)
class Lag:
    """A document that the replica does not hold as the index does.

    Attributes:
        entry: what the index holds of it; None: nothing, the replica must lose it.
        held: whether the replica may hold something of it.
    """

    document_id: str
    bucket: str
    entry: IndexEntry | None
    held: bool


class Replicas:
    def __init__(self, database: Database) -> None:
        self._db = database

    def lag(self, release_id: str, replica_id: str, bucket: str | None = None) -> list[Lag]:
        """Return every document, of one bucket or of all, in which the replica differs from the index. One that is just being
        replaced in the index is not among them: what to hold of it is not known yet."""
        index, replica = schema.index_entries.alias("i"), schema.index_entries.alias("r")
        of_index, of_replica = index.c.release_id == release_id, replica.c.release_id == replica_id
        same = index.c.document_id == replica.c.document_id
        missing = (
            sa.select(index, replica.c.document_id.label("held"))
            .select_from(sa.outerjoin(index, replica, sa.and_(same, of_replica)))
            .where(of_index, index.c.version_id.is_not(None))
            .where(sa.or_(replica.c.version_id.is_(None), replica.c.version_id != index.c.version_id))
        )
        surplus = (
            sa.select(replica.c.document_id, replica.c.bucket)
            .select_from(sa.outerjoin(replica, index, sa.and_(same, of_index)))
            .where(of_replica, index.c.document_id.is_(None))
        )
        if bucket is not None:
            missing, surplus = missing.where(index.c.bucket == bucket), surplus.where(replica.c.bucket == bucket)
        with self._db.read() as c:
            found = [
                Lag(
                    r.document_id,
                    r.bucket,
                    IndexEntry(r.document_id, r.version_id, r.content_hash, r.metadata_hash, r.chunk_count),
                    r.held is not None,
                )
                for r in c.execute(missing)
            ]
            return found + [Lag(r.document_id, r.bucket, None, True) for r in c.execute(surplus)]
