"""``rag keys`` as people and programs use it: real processes on one RAG_HOME."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from rag_platform.ledger import open_ledger
from rag_platform.ledger.keys import KeyUse, hash_secret, utc_day
from rag_platform_tests import harness
from rag_platform_tests.integration.rag_command import Rag

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cli")]

SECRET = re.compile(r"rag_[0-9a-f]{12}_[A-Za-z0-9_-]{43}")


@pytest.fixture
def rag(tmp_path: Path) -> Rag:
    return Rag(tmp_path / "home")


def test_a_key_from_its_making_to_its_end(rag: Rag) -> None:
    """Create prints the secret once and the ledger knows only its hash; list, rotate and revoke agree on the rest."""
    made = rag.json(
        "keys", "create", "--tenant", "acme", "--group", "staff", "--group", "board", "--name", "ci", "--scope", "query",
        "--scope", "eval", "--expires", "30d", "--requests-per-minute", "60", "--daily-tokens", "1000",
        "--daily-usd", "1.5",
    )  # fmt: skip
    assert SECRET.fullmatch(made["secret"])
    assert (made["tenant"], made["groups"], made["scopes"]) == ("acme", ["board", "staff"], ["eval", "query"])
    assert (made["requests_per_minute"], made["daily_tokens"], made["daily_usd"]) == (60, 1000, 1.5)
    assert made["expires_at"] == pytest.approx(time.time() + 30 * 86_400, abs=300)
    ledger = open_ledger(harness.settings(rag.home))
    try:
        [key] = ledger.keys.all()
        assert key.secret_hash == hash_secret(made["secret"])
        now = time.time()
        ledger.keys.add_usage([KeyUse(key.key_id, utc_day(now), 3, 40, 0.25, now)])
        day_of_use = utc_day(now)
    finally:
        ledger.close()

    listed = rag("keys", "list", "--json").stdout
    assert made["secret"] not in listed and key.secret_hash not in listed and "secret" not in listed
    [row] = json.loads(listed)
    assert row["state"] == "active" and row["last_used_at"] == pytest.approx(now)
    if utc_day(time.time()) == day_of_use:
        assert row["used_today"] == {"requests": 3, "tokens": 40, "usd": 0.25}
    table = rag("keys", "list").stdout
    assert key.key_id[:8] in table and made["secret"] not in table

    new = rag.json("keys", "rotate", key.key_id[:8], "--grace", "0")
    assert SECRET.fullmatch(new["secret"]) and new["secret"] != made["secret"]
    assert new["replaces"]["key_id"] == key.key_id
    same = ("name", "tenant", "groups", "scopes", "requests_per_minute", "daily_tokens", "daily_usd")
    assert [new[k] for k in same] == [made[k] for k in same]
    assert {r["key_id"]: r["state"] for r in rag.json("keys", "list")} == {
        key.key_id: "expired",
        new["key_id"]: "active",
    }
    assert rag.json("keys", "revoke", new["key_id"])["state"] == "revoked"
    refusal = rag("keys", "rotate", new["key_id"], code=2)
    assert "is revoked" in refusal.stderr and "rag keys create" in refusal.stderr


def test_for_people(rag: Rag) -> None:
    """Without keys list says what to do; create prints a curl line that carries the secret, the secret alone on
    standard output; a key that is revoked twice says when it was."""
    assert "rag keys create" in rag("keys", "list").stdout
    made = rag("keys", "create", "--tenant", "acme")
    [secret] = SECRET.findall(made.stdout)
    assert f'-H "Authorization: Bearer {secret}"' in made.stderr and "curl" in made.stderr
    key_id = secret.split("_")[1]
    assert f"revoked {key_id}" in rag("keys", "revoke", key_id).stdout
    assert "was revoked at" in rag("keys", "revoke", key_id).stdout


def test_mistakes_are_answered_with_the_cure_and_no_secret(rag: Rag) -> None:
    """Exit code 2 and nothing made; a secret pasted where an id belongs is not repeated."""
    for wrong in (
        ["--tenant", " "],
        ["--tenant", "a", "--scope", "root"],
        ["--tenant", "a", "--expires", "soon"],
        ["--tenant", "a", "--expires", "0"],
        ["--tenant", "a", "--requests-per-minute", "0"],
        ["--tenant", "a", "--daily-usd", "0"],
        ["--tenant", "a", "--group", ""],
        [],
    ):
        rag("keys", "create", *wrong, code=2)
    assert rag.json("keys", "list") == []
    pasted = "rag_000000000000_" + "x" * 43
    refusal = rag("keys", "revoke", pasted, code=2)
    assert "rag keys list" in refusal.stderr
    assert pasted not in refusal.stderr + refusal.stdout
