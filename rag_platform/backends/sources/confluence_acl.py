"""From Confluence's view restrictions to the platform's access lists.

A page may be viewed by who passes its own restriction *and* that of everything above it; an access list
of the platform names groups of which *one* suffices. So several restrictions on the way up are turned
into one list of the groups and people that pass them all. Whenever that cannot be found out, the list is
shorter than Confluence's and never longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rag_platform.errors import ConfigurationError

MAX_PEOPLE = 1000
"""People that one list may name because they are in several groups at once; beyond, nobody of them."""


@dataclass(frozen=True, slots=True)
class Readers:
    """Users (account ids, or names on Data Center) and groups that one restriction lets through.
    ``group_ids`` are Confluence's ids by group name."""

    users: frozenset[str]
    groups: frozenset[str]
    group_ids: Mapping[str, str] = field(default_factory=dict, compare=False)


NOBODY = Readers(frozenset(), frozenset())


@dataclass(frozen=True, slots=True)
class GroupMapping:
    """Which groups of the platform stand for Confluence's; what is in no table keeps a name of its own,
    ``confluence:group:<name>`` or ``confluence:user:<id>``."""

    groups: Mapping[str, tuple[str, ...]]
    users: Mapping[str, tuple[str, ...]]

    def acl(self, allowed: Readers) -> tuple[str, ...]:
        """Return the access list of what these readers may see; empty is nobody."""
        names: set[str] = set()
        for group in allowed.groups:
            names.update(self.groups.get(group, (f"confluence:group:{group}",)))
        for user in allowed.users:
            names.update(self.users.get(user, (f"confluence:user:{user}",)))
        return tuple(sorted(names))


def effective(levels: Sequence[Readers], members: Callable[[str, str], frozenset[str]]) -> Readers | None:
    """Return who passes every restriction of a page and of what is above it; None when there is none.

    Args:
        levels: the restrictions, in any order.
        members: the users of a group, by its name and id; asked only where two restrictions differ.
    """
    distinct = list(dict.fromkeys(levels))
    if len(distinct) < 2:
        return distinct[0] if distinct else None
    groups = frozenset.intersection(*(level.groups for level in distinct))

    def expanded(level: Readers) -> frozenset[str]:
        inside = (members(g, level.group_ids.get(g, g)) for g in sorted(level.groups - groups))
        return level.users.union(*inside)

    users = frozenset.intersection(*map(expanded, distinct))
    if len(users) > MAX_PEOPLE:
        users = frozenset()
    return Readers(users, groups)


def group_mapping(where: str, options: Mapping[str, object]) -> GroupMapping:
    """Read the options ``groups`` and ``users``.

    Raises:
        ConfigurationError: they are no tables of names.
    """
    return GroupMapping(
        name_table(where, "groups", options.get("groups")), name_table(where, "users", options.get("users"))
    )


def name_table(where: str, key: str, value: object) -> dict[str, tuple[str, ...]]:
    """Read an option that maps a name to a group or a list of groups.

    Raises:
        ConfigurationError: it is none.
    """
    if value is None:
        return {}
    table: dict[str, tuple[str, ...]] = {}
    for name, given in value.items() if isinstance(value, Mapping) else [("", None)]:
        named = [given] if isinstance(given, str) else given
        if not isinstance(named, Sequence) or not all(isinstance(n, str) and n for n in named):
            raise ConfigurationError(
                f"{where}: option {key} must be a mapping such as {{confluence-users: staff, legal-eu: [legal, eu]}}"
            )
        table[str(name)] = tuple(named)
    return table
