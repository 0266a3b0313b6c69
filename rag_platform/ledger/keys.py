"""API keys: who may ask what, how much of it, and how much they have used."""

from __future__ import annotations

import functools
import hashlib
import json
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import sqlalchemy as sa

from rag_platform.ledger import schema
from rag_platform.ledger.database import Database
from rag_platform.records import Principal

_k = schema.api_keys
_u = schema.key_usage

Scope = Literal["query", "ingest", "admin", "eval"]
SCOPES: tuple[Scope, ...] = ("query", "ingest", "admin", "eval")
_DEFAULT_SCOPES: tuple[Scope, ...] = ("query",)

KEY_PREFIX = "rag_"
"""Every secret begins with it, so that secret scanners find a leaked one and we tell ours from others'."""


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What a key may use; None is no limit. Days are UTC days."""

    requests_per_minute: int | None = None
    daily_tokens: int | None = None
    daily_usd: float | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key, without its secret. Times are seconds since the epoch."""

    key_id: str
    name: str
    secret_hash: str = field(repr=False)
    tenant: str
    groups: tuple[str, ...]
    scopes: tuple[Scope, ...]
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None
    limits: KeyLimits

    @property
    def principal(self) -> Principal:
        return Principal(self.tenant, frozenset(self.groups))

    def state(self, now: float) -> Literal["active", "expired", "revoked"]:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What one key used on one UTC day (``YYYY-MM-DD``). ``usd`` leaves out what has no known price."""

    key_id: str
    day: str
    requests: int
    tokens: int
    usd: float
    last_used_at: float | None = None


def hash_secret(secret: str) -> str:
    """Return the SHA-256 of a secret, hex. Fast is right here: 256 random bits cannot be guessed, unlike a
    password, and every request pays for this."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def utc_day(at: float) -> str:
    """Return the UTC day of a time as ``YYYY-MM-DD``."""
    return _day(int(at // 86_400))


@functools.lru_cache(maxsize=8)
def _day(number: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(number * 86_400))


class Keys:
    def __init__(self, database: Database) -> None:
        self._db = database

    def create(
        self,
        *,
        name: str,
        tenant: str,
        groups: Collection[str] = (),
        scopes: Collection[Scope] = _DEFAULT_SCOPES,
        limits: KeyLimits = KeyLimits(),
        expires_at: float | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key; return it with its secret, which is stored nowhere."""
        with self._db.write("create_key") as c:
            return self._insert(c, name, tenant, groups, scopes, limits, time.time(), expires_at)

    def all(self) -> list[ApiKey]:
        """Return every key that was ever made, the oldest first."""
        with self._db.read() as c:
            return [_key(r) for r in c.execute(sa.select(_k).order_by(_k.c.created_at, _k.c.key_id))]

    def exist(self) -> bool:
        """Whether a key was ever made: from then on nobody is let in without one, also when all are revoked."""
        with self._db.read() as c:
            return c.execute(sa.select(_k.c.key_id).limit(1)).first() is not None

    def stamp(self) -> tuple[int, int]:
        """Return how many keys were ever made and how many revoked: moves with every change that this class makes,
        and takes a fiftieth of the time of ``all`` with 2,000 keys."""
        with self._db.read() as c:
            made, revoked = c.execute(sa.select(sa.func.count(), sa.func.count(_k.c.revoked_at)).select_from(_k)).one()
        return int(made), int(revoked)

    def get(self, prefix: str) -> ApiKey | None:
        """Return the key whose id is, or uniquely starts with, ``prefix``."""
        with self._db.read() as c:
            rows = c.execute(sa.select(_k).where(_k.c.key_id.startswith(prefix, autoescape=True)).limit(2)).all()
        return _key(rows[0]) if len(rows) == 1 else None

    def revoke(self, key_id: str) -> bool:
        """Revoke a key for good; False when it is unknown or was revoked before."""
        with self._db.write("revoke_key") as c:
            done = c.execute(
                _k.update().where(_k.c.key_id == key_id, _k.c.revoked_at.is_(None)).values(revoked_at=time.time())
            )
        return bool(done.rowcount)

    def rotate(self, key_id: str, *, grace_s: float) -> tuple[ApiKey, str] | None:
        """Make a successor with the same rights and limits (and as long a life); the old key works for
        ``grace_s`` seconds more. None when the key is unknown or not active."""
        now = time.time()
        with self._db.write("rotate_key") as c:
            row = c.execute(sa.select(_k).where(_k.c.key_id == key_id)).first()
            old = None if row is None else _key(row)
            if old is None or old.state(now) != "active":
                return None
            ends = now + grace_s if old.expires_at is None else min(old.expires_at, now + grace_s)
            c.execute(_k.update().where(_k.c.key_id == key_id).values(expires_at=ends))
            expires_at = None if old.expires_at is None else now + (old.expires_at - old.created_at)
            return self._insert(c, old.name, old.tenant, old.groups, old.scopes, old.limits, now, expires_at)

    def add_usage(self, uses: Sequence[KeyUse]) -> None:
        """Add to the counts of the keys' days, and move ``last_used_at`` forward."""
        rows = [
            {"day": u.day, "key_id": u.key_id, "requests": u.requests, "tokens": u.tokens, "usd": u.usd} for u in uses
        ]
        last: dict[str, float] = {}
        for use in uses:
            if use.last_used_at is not None:
                last[use.key_id] = max(last.get(use.key_id, 0.0), use.last_used_at)
        with self._db.write("key_usage") as c:
            self._db.upsert(c, _u, rows, add=("requests", "tokens", "usd"))
            for key_id, at in last.items():
                c.execute(
                    _k.update()
                    .where(_k.c.key_id == key_id, sa.or_(_k.c.last_used_at.is_(None), _k.c.last_used_at < at))
                    .values(last_used_at=at)
                )

    def usage(self, day: str) -> dict[str, KeyUse]:
        """Return what each key used on a UTC day; keys that used nothing are missing."""
        with self._db.read() as c:
            rows = c.execute(sa.select(_u).where(_u.c.day == day))
            return {r.key_id: KeyUse(r.key_id, r.day, r.requests, r.tokens, r.usd) for r in rows}

    def _insert(
        self,
        c: sa.Connection,
        name: str,
        tenant: str,
        groups: Collection[str],
        scopes: Collection[Scope],
        limits: KeyLimits,
        created_at: float,
        expires_at: float | None,
    ) -> tuple[ApiKey, str]:
        key_id = secrets.token_hex(6)
        secret = f"{KEY_PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
        key = ApiKey(
            key_id, name, hash_secret(secret), tenant, tuple(sorted(set(groups))), tuple(sorted(set(scopes))),
            created_at, expires_at, None, None, limits,
        )  # fmt: skip
        c.execute(
            _k.insert().values(
                key_id=key.key_id,
                name=key.name,
                secret_hash=key.secret_hash,
                tenant=key.tenant,
                groups=json.dumps(key.groups),
                scopes=json.dumps(key.scopes),
                created_at=key.created_at,
                expires_at=key.expires_at,
                requests_per_minute=limits.requests_per_minute,
                daily_tokens=limits.daily_tokens,
                daily_usd=limits.daily_usd,
            )
        )
        return key, secret


def _key(row: sa.Row[tuple[object, ...]]) -> ApiKey:
    return ApiKey(
        key_id=row.key_id,
        name=row.name,
        secret_hash=row.secret_hash,
        tenant=row.tenant,
        groups=tuple(json.loads(row.groups)),
        scopes=tuple(json.loads(row.scopes)),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        limits=KeyLimits(row.requests_per_minute, row.daily_tokens, row.daily_usd),
    )
