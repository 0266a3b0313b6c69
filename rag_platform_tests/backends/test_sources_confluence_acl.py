"""Restrictions on the way up from a page become one list, never a longer one than Confluence's."""

from __future__ import annotations

import random

import pytest

from rag_platform.backends.sources import confluence_acl
from rag_platform.backends.sources.confluence_acl import NOBODY, Readers, effective


def readers(users: str = "", groups: str = "") -> Readers:
    return Readers(frozenset(users.split()), frozenset(groups.split()))


def test_one_restriction_needs_no_members() -> None:
    """Also when it is repeated below."""

    def asked(name: str, id_: str) -> frozenset[str]:
        raise AssertionError("no group needs to be looked into")

    one = readers("u1", "g1")
    assert effective([], asked) is None
    assert effective([one], asked) == effective([one, one, readers("u1", "g1")], asked) == one
    assert effective([one, NOBODY], lambda name, id_: frozenset()) == NOBODY


def test_who_passes_is_who_passes_every_restriction() -> None:
    """Against the definition, on random restrictions over random groups."""
    rng = random.Random(20261122)
    people = [f"u{n}" for n in range(6)]
    for _ in range(300):
        members = {f"g{n}": frozenset(rng.sample(people, rng.randint(0, 4))) for n in range(4)}
        levels = [
            Readers(frozenset(rng.sample(people, rng.randint(0, 3))), frozenset(rng.sample(sorted(members), rng.randint(0, 3))))
            for _ in range(rng.randint(1, 4))
        ]  # fmt: skip

        def passes(person: str, level: Readers, members: dict[str, frozenset[str]] = members) -> bool:
            return person in level.users or any(person in members[g] for g in level.groups)

        found = effective(levels, lambda name, id_, members=members: members[name])  # type: ignore[misc]
        assert found is not None
        let_in = {p for p in people if passes(p, found)}
        assert let_in == {p for p in people if all(passes(p, level) for level in levels)}, (levels, members)


def test_too_many_people_are_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the groups in common pass, and nobody else."""
    monkeypatch.setattr(confluence_acl, "MAX_PEOPLE", 2)
    crowd = frozenset(f"u{n}" for n in range(3))
    levels = [readers("", "common a"), readers("", "common b")]
    assert effective(levels, lambda name, id_: crowd) == readers("", "common")
