"""Filter trees and principals as Pinecone metadata filters, and the exact check of what comes back.

Pinecone has no negation of a whole expression, no starts-with, and its documentation leaves open what ``$ne``
and ``$nin`` say of a missing field and of a list. So a filter that is sent may let more through than the tree
does, never less, and every hit is checked again here. What is sent relies on documented behaviour only.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rag_platform.backends.vector_stores.filters import FIELDS, And, Compare, Filter, Not
from rag_platform.records import Principal

Sent = dict[str, Any]

LONGEST_VALUE = 200
"""Characters of a text that are compared by Pinecone; the rest is compared here."""
PREFIX_LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Lengths of the beginnings that are stored for ``^=``."""
NO_VALUE = "*"
"""In every list, so that none is empty. No stored value is equal to it: see ``value_key``."""

_OPS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_SENT = {"=": "$eq", "!=": "$ne", "<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"}
_OPPOSITE = {"=": "!=", "!=": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}


def value_key(value: str) -> str:
    """A text as it is stored to be compared: never empty, never equal to ``NO_VALUE``, not too long."""
    return "=" + value[:LONGEST_VALUE]


def prefix_keys(fields: Mapping[str, str]) -> list[str]:
    """The beginnings of every field that can be asked for by ``^=``."""
    return [
        f"{name}:{fields[name][:length]}"
        for name, (_, ops) in FIELDS.items()
        if "^=" in ops
        for length in PREFIX_LENGTHS
        if length <= len(fields[name])
    ]


def visible(principal: Principal, where: Filter | None) -> list[Sent]:
    """Filters that all hold for what ``principal`` may read and ``where`` selects."""
    sent: list[Sent] = []
    if not principal.operator:
        sent.append({"tenant": {"$eq": value_key(principal.tenant)}})
        sent.append({"acl": {"$in": [value_key(g) for g in sorted(principal.effective_groups)]}})
    if where is not None and (widened := _widened(where, negated=False)) is not None:
        sent.append(widened)
    return sent


def all_of(parts: Iterable[Sent]) -> Sent | None:
    """One filter of many; None for none."""
    listed = list(parts)
    return (listed[0] if len(listed) == 1 else {"$and": listed}) if listed else None


def readable(row: Mapping[str, Any], principal: Principal) -> bool:
    """Whether ``principal`` may read the row."""
    return principal.operator or (
        row["tenant"] == principal.tenant and not principal.effective_groups.isdisjoint(row["acl"])
    )


def matches(tree: Filter, row: Mapping[str, Any]) -> bool:
    """Whether the row satisfies the tree; a missing value satisfies no comparison."""
    if isinstance(tree, Compare):
        value = row[tree.field]
        if tree.op == "has":
            return tree.value in value
        if tree.op == "^=":
            return str(value).startswith(str(tree.value))
        wanted = tree.value if FIELDS[tree.field][0] is str else _number(tree.value)
        return value is not None and _OPS[tree.op](value, wanted)
    if isinstance(tree, Not):
        return not matches(tree.part, row)
    return (all if isinstance(tree, And) else any)(matches(part, row) for part in tree.parts)


def _widened(tree: Filter, *, negated: bool) -> Sent | None:
    """A filter that holds wherever the tree (or its negation) does; None: that cannot be narrowed."""
    if isinstance(tree, Compare):
        return _compare(tree, negated)
    if isinstance(tree, Not):
        return _widened(tree.part, negated=not negated)
    parts = [_widened(part, negated=negated) for part in tree.parts]
    if isinstance(tree, And) != negated:
        return all_of(p for p in parts if p is not None)
    kept = [p for p in parts if p is not None]
    return {"$or": kept} if kept and len(kept) == len(parts) else None


def _compare(node: Compare, negated: bool) -> Sent | None:
    if node.op == "^=":
        return None if negated else _prefix(node.field, str(node.value))
    if node.op == "has":
        value = value_key(str(node.value))
        return {"tags": {"$nin": [value]}} if negated else {"tags": {"$eq": value}}
    op = _OPPOSITE[node.op] if negated else node.op
    if FIELDS[node.field][0] is str:
        value = str(node.value)
        if op == "!=" and len(value) >= LONGEST_VALUE:
            return None
        return {node.field: {_SENT[op]: value_key(value)}}
    number = _number(node.value)
    held: Sent = {node.field: {_SENT[op]: number}}
    if op == "!=":
        held = {"$or": [{node.field: {"$lt": number}}, {node.field: {"$gt": number}}]}
    return {"$or": [{node.field: {"$exists": False}}, held]} if negated else held


def _prefix(field: str, value: str) -> Sent | None:
    lengths = [n for n in PREFIX_LENGTHS if n <= len(value)]
    return {"prefixes": {"$eq": f"{field}:{value[: lengths[-1]]}"}} if lengths else None


def _number(value: str | int | float) -> float:
    """
    Raises:
        ValueError: it is too large for a double.
    """
    try:
        return float(value)
    except OverflowError as e:
        raise ValueError("a filter number is too large") from e
