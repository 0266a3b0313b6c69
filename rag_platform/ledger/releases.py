"""Releases: which index serves, with which pipeline it was made, and what was decided about it."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import sqlalchemy as sa

from rag_platform import identity
from rag_platform.ledger import schema
from rag_platform.ledger.database import Database, batches

_r, _d = schema.releases, schema.release_decisions

Decision = Literal["promoted", "refused", "rolled_back"]


@dataclass(frozen=True, slots=True)
class Release:
    """``pipeline`` describes parser, chunker and embedder, enough to embed a question for it; ``store`` names
    the vector store that holds its index."""

    release_id: str
    index_name: str
    fingerprint: str
    pipeline: Mapping[str, Any]
    state: str
    created_at: float
    promoted_at: float | None
    verified_state: str | None
    store: str


@dataclass(frozen=True, slots=True)
class ReleaseDecision:
    """Why a release serves, or does not.

    Attributes:
        decision_id: the newest has the highest.
        at: seconds since the epoch.
        by: ``ingest``, ``gate`` or a person's ``cli``.
        reasons: sentences for people.
    """

    decision_id: int
    release_id: str
    decision: Decision
    at: float
    by: str
    reasons: tuple[str, ...]


EMBEDDER_SETTINGS = "embedder_settings"
"""Where in ``Release.pipeline`` it says how the embedder was set up. Releases of earlier versions do not say it."""

CHUNKING = "chunking"
"""Where in ``Release.pipeline`` it says how documents were cut. Releases of earlier versions do not say it."""

EMBEDDED_STORE = "lancedb"
"""The store of the releases whose id does not name one: they are older than the choice."""

REBUILDING = "rebuilding"
"""``verified_state`` of an index that is being written again, until it has been found right."""


def release_id(fingerprint: str, store: str) -> str:
    """Return the id of the release that a pipeline makes in a store."""
    return f"r-{fingerprint}" if store == EMBEDDED_STORE else f"r-{fingerprint}-{store}"


def replica_id(release_id: str, place: str = "") -> str:
    """Return the id of a release's keyword replica among the index entries. A replica in another place is another
    replica: nothing is believed of it before it was written."""
    return f"keyword:{release_id}:{place}"


class Releases:
    def __init__(self, database: Database) -> None:
        self._db = database

    def ensure(self, fingerprint: str, pipeline: Mapping[str, Any], store: str) -> Release:
        """Return the release of this pipeline in this store, created as a candidate when it is new. Of one that is
        there already, only how its embedder is set up is brought up to date: a server moves, the model stays."""
        name = release_id(fingerprint, store)
        found = self.get(name)
        if found is None:
            with self._db.write("release") as c:
                self._db.upsert(
                    c,
                    _r,
                    [
                        {
                            "release_id": name,
                            "index_name": f"chunks_{fingerprint}",
                            "fingerprint": fingerprint,
                            "pipeline": json.dumps(dict(pipeline), sort_keys=True),
                            "state": "candidate",
                            "created_at": time.time(),
                            "store": store,
                        }
                    ],
                )
            found = self.get(name)
            assert found is not None
        elif pipeline.get(EMBEDDER_SETTINGS) not in (None, found.pipeline.get(EMBEDDER_SETTINGS)):
            found = replace(found, pipeline={**found.pipeline, EMBEDDER_SETTINGS: pipeline[EMBEDDER_SETTINGS]})
            with self._db.write("release") as c:
                described = json.dumps(dict(found.pipeline), sort_keys=True)
                c.execute(_r.update().where(_r.c.release_id == name).values(pipeline=described))
        return found

    def get(self, release_id: str) -> Release | None:
        with self._db.read() as c:
            row = c.execute(sa.select(_r).where(_r.c.release_id == release_id)).first()
        return None if row is None else _release(row)

    def serving(self) -> Release | None:
        """Return the release that answers questions; None before the first promotion."""
        with self._db.read() as c:
            row = c.execute(sa.select(_r).where(_r.c.state == "serving")).first()
        return None if row is None else _release(row)

    def all(self) -> list[Release]:
        with self._db.read() as c:
            return [_release(r) for r in c.execute(sa.select(_r).order_by(_r.c.created_at))]

    def promote(self, release_id: str, *, by: str, reasons: Sequence[str], rolled_back: str | None = None) -> None:
        """Let this release serve, in one transaction with why; the one that served becomes ``retired``.

        Args:
            rolled_back: a release that shall not serve again unless somebody promotes it.
        """
        now = time.time()
        with self._db.write("promote") as c:
            c.execute(_r.update().where(_r.c.state == "serving", _r.c.release_id != release_id).values(state="retired"))
            c.execute(_r.update().where(_r.c.release_id == release_id).values(state="serving", promoted_at=now))
            if rolled_back is not None:
                _decide(c, rolled_back, "rolled_back", now, by, reasons)
            _decide(c, release_id, "promoted", now, by, reasons)

    def refuse(self, release_id: str, *, by: str, reasons: Sequence[str]) -> bool:
        """Keep why a release may not serve; False when just this was decided last."""
        newest = self.decisions(release_id, limit=1)
        if newest and (newest[0].decision, newest[0].reasons) == ("refused", tuple(reasons)):
            return False
        with self._db.write("refuse") as c:
            _decide(c, release_id, "refused", time.time(), by, reasons)
        return True

    def decisions(self, release_id: str | None = None, *, limit: int = 100) -> Sequence[ReleaseDecision]:
        """Return what was decided (about one release), the newest first."""
        query = sa.select(_d).order_by(_d.c.decision_id.desc()).limit(limit)
        if release_id is not None:
            query = query.where(_d.c.release_id == release_id)
        with self._db.read() as c:
            return [
                ReleaseDecision(
                    r.decision_id, r.release_id, r.decision, r.at, r.decided_by, tuple(json.loads(r.reasons))
                )
                for r in c.execute(query)
            ]

    def note_verified(self, release_id: str, state: str | None) -> None:
        """Remember the store's state token at which the index was last found equal to the ledger, or
        ``REBUILDING``."""
        with self._db.write("verified") as c:
            c.execute(_r.update().where(_r.c.release_id == release_id).values(verified_state=state))

    def forget(self, release_id: str) -> None:
        """Remove a release, its index entries and its replicas' (the indexes were dropped)."""
        with self._db.write("forget_release") as c:
            e = schema.index_entries
            replicas = e.c.release_id.startswith(replica_id(release_id), autoescape=True)
            c.execute(e.delete().where(sa.or_(e.c.release_id == release_id, replicas)))
            c.execute(_r.delete().where(_r.c.release_id == release_id))

    def versions(self, release_id: str, document_ids: Collection[str]) -> dict[str, str | None]:
        """Return the version of each document in the release's index: None while it is being replaced; one
        that is not in the index is absent."""
        e = schema.index_entries
        found: dict[str, str | None] = {}
        with self._db.read() as c:
            for some in batches(document_ids):
                wanted = e.c.release_id == release_id, e.c.document_id.in_(some)
                found.update({d: v for d, v in c.execute(sa.select(e.c.document_id, e.c.version_id).where(*wanted))})
        return found

    def index_state(self, release_id: str) -> str:
        """Return a digest of what the release's index holds: every document and its version (bytes, metadata, ACL,
        pipeline). Equal for equal contents, also after a change and back; 32 hex digits."""
        e = schema.index_entries
        query = sa.select(e.c.document_id, e.c.version_id).where(e.c.release_id == release_id).order_by(e.c.document_id)
        with self._db.read() as c:
            return identity.digest("index", *(f"{d}:{v or ''}" for d, v in c.execute(query)))[:32]

    def reset_entries(self, release_id: str, buckets: Sequence[str]) -> None:
        """Mark all that the release's index holds of these buckets as dirty, so that it is written again."""
        with self._db.write("reset_entries") as c:
            e = schema.index_entries
            c.execute(e.update().where(e.c.release_id == release_id, e.c.bucket.in_(buckets)).values(version_id=None))


def _decide(c: sa.Connection, release_id: str, decision: Decision, at: float, by: str, reasons: Sequence[str]) -> None:
    row = {"release_id": release_id, "decision": decision, "at": at, "decided_by": by}
    c.execute(_d.insert().values(row | {"reasons": json.dumps(list(reasons), ensure_ascii=False)}))


def _release(row: sa.Row[tuple[object, ...]]) -> Release:
    return Release(
        row.release_id,
        row.index_name,
        row.fingerprint,
        json.loads(row.pipeline),
        row.state,
        row.created_at,
        row.promoted_at,
        row.verified_state,
        row.store,
    )
