"""API keys and their usage in the ledger."""

from __future__ import annotations

import hashlib
import re
import threading
import time

import pytest
import sqlalchemy as sa

from rag_platform.ledger import Ledger, open_ledger, schema
from rag_platform.ledger.keys import ApiKey, KeyLimits, KeyUse, hash_secret, utc_day
from rag_platform.records import Principal
from rag_platform.settings import Settings


def make(ledger: Ledger, **changes: object) -> tuple[ApiKey, str]:
    return ledger.keys.create(**({"name": "n", "tenant": "acme"} | changes))  # type: ignore[arg-type]


def test_a_key_keeps_what_it_was_made_with_and_not_its_secret(ledger: Ledger) -> None:
    """All fields come back; the secret is 256 random bits behind a findable prefix, and only its SHA-256 is stored."""
    limits = KeyLimits(60, 10_000, 1.5)
    key, secret = make(
        ledger, groups=["staff", "board", "staff"], scopes=["query", "admin"], limits=limits, expires_at=5e9
    )
    assert re.fullmatch(r"rag_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", secret)
    assert secret.startswith(f"rag_{key.key_id}_")
    assert key.secret_hash == hash_secret(secret) == hashlib.sha256(secret.encode()).hexdigest()
    assert key.secret_hash not in repr(key)
    [stored] = ledger.keys.all()
    assert stored == key
    assert stored.principal == Principal("acme", frozenset({"staff", "board"}))
    assert (stored.scopes, stored.limits, stored.expires_at) == (("admin", "query"), limits, 5e9)
    with ledger.database.read() as c:
        row = c.execute(sa.select(schema.api_keys)).one()
    assert secret.split("_", 2)[2] not in str(row)


def test_keys_are_found_by_the_beginning_of_their_id(ledger: Ledger) -> None:
    """A unique prefix is enough, an ambiguous or foreign one finds nothing, wildcards are letters."""
    first, _ = make(ledger)
    second, _ = make(ledger)
    assert ledger.keys.get(first.key_id) == first
    assert ledger.keys.get(second.key_id[:11]) == (None if first.key_id.startswith(second.key_id[:11]) else second)
    assert ledger.keys.get("") is None
    assert ledger.keys.get("%") is None


def test_revoking_is_for_good(ledger: Ledger) -> None:
    """A revoked key stays listed as revoked, is revoked once, cannot be rotated, and still counts as a key."""
    assert not ledger.keys.exist()
    key, _ = make(ledger)
    assert ledger.keys.revoke(key.key_id)
    assert not ledger.keys.revoke(key.key_id)
    assert not ledger.keys.revoke("unknown")
    [stored] = ledger.keys.all()
    assert stored.state(time.time()) == "revoked"
    assert ledger.keys.rotate(key.key_id, grace_s=60) is None
    assert ledger.keys.exist()


def test_rotation_makes_an_equal_key_and_ends_the_old_one(ledger: Ledger) -> None:
    """Rights, limits and length of life go over; the old key works for the grace time, never beyond its own end."""
    limits = KeyLimits(5, None, 2.0)
    old, old_secret = make(ledger, name="ci", groups=["g"], scopes=["ingest"], limits=limits)
    before = time.time()
    made = ledger.keys.rotate(old.key_id, grace_s=100)
    assert made is not None
    new, secret = made
    assert secret != old_secret and new.key_id != old.key_id and new.expires_at is None
    assert (new.name, new.tenant, new.groups, new.scopes, new.limits) == ("ci", "acme", ("g",), ("ingest",), limits)
    ended = ledger.keys.get(old.key_id)
    assert ended is not None and ended.expires_at is not None
    assert before + 100 <= ended.expires_at <= time.time() + 100
    assert ended.state(before) == "active" and ended.state(time.time() + 101) == "expired"

    ends = time.time() + 50
    short, _ = make(ledger, expires_at=ends)
    again = ledger.keys.rotate(short.key_id, grace_s=100)
    assert again is not None and again[0].expires_at is not None
    assert again[0].expires_at - again[0].created_at == pytest.approx(ends - short.created_at)
    kept = ledger.keys.get(short.key_id)
    assert kept is not None and kept.expires_at == pytest.approx(ends)
    assert ledger.keys.rotate("unknown", grace_s=1) is None


def test_every_change_of_keys_moves_the_stamp(ledger: Ledger) -> None:
    """Making, revoking and rotating do; using a key and doing nothing do not."""
    stamps = [ledger.keys.stamp()]
    key, _ = make(ledger)
    stamps.append(ledger.keys.stamp())
    ledger.keys.rotate(key.key_id, grace_s=60)
    stamps.append(ledger.keys.stamp())
    ledger.keys.revoke(key.key_id)
    stamps.append(ledger.keys.stamp())
    assert len(set(stamps)) == 4
    ledger.keys.revoke(key.key_id)
    ledger.keys.add_usage([KeyUse(key.key_id, "2026-11-22", 1, 1, 1.0, 1.0)])
    assert ledger.keys.stamp() == stamps[-1]


def test_usage_adds_up_whoever_writes(ledger: Ledger, ledger_settings: Settings) -> None:
    """Increments of several connections at once are all counted, by key and UTC day."""
    key, _ = make(ledger)
    day = "2026-11-22"

    def work() -> None:
        own = open_ledger(ledger_settings)
        for n in range(10):
            own.keys.add_usage(
                [KeyUse(key.key_id, day, 1, 10, 0.25, float(n)), KeyUse(key.key_id, "2026-11-23", 1, 1, 0.0, 1.0)]
            )
        own.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert ledger.keys.usage(day) == {key.key_id: KeyUse(key.key_id, day, 40, 400, 10.0)}
    assert ledger.keys.usage("2026-11-23")[key.key_id].requests == 40
    assert ledger.keys.usage("2026-11-24") == {}


def test_last_use_only_moves_forward(ledger: Ledger) -> None:
    """Batches that arrive out of order leave the newest time."""
    key, _ = make(ledger)
    for at, expected in ((100.0, 100.0), (50.0, 100.0), (150.0, 150.0)):
        ledger.keys.add_usage([KeyUse(key.key_id, "2026-11-22", 1, 0, 0.0, at)])
        stored = ledger.keys.get(key.key_id)
        assert stored is not None and stored.last_used_at == expected


def test_the_day_is_that_of_utc() -> None:
    """The last second of a UTC day and the first of the next."""
    assert utc_day(1_795_391_999) == "2026-11-22"
    assert utc_day(1_795_392_000) == "2026-11-23"
