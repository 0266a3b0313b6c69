"""The one place where values become DataFusion SQL.

LanceDB's ``where`` takes no parameters, so every value passes through ``literal`` or ``number``;
nothing else in the adapter may quote. Predicates are two-valued: a missing value satisfies no
comparison, so ``not`` is an exact complement.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from rag_platform.backends.vector_stores.filters import FIELDS, And, Compare, Filter, Not
from rag_platform.records import Principal

MAX_IDS = 2000
"""Ids in one ``IN`` list. Longer lists are cut by ``slices``."""


def literal(text: str) -> str:
    """Quote ``text`` as a SQL string. Backslashes are plain characters in this dialect.

    Raises:
        ValueError: it holds a NUL or a lone surrogate, which no stored text does.
    """
    if "\0" in text:
        raise ValueError("a filter value may not hold NUL")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as e:
        raise ValueError("a filter value must be valid Unicode") from e
    return "'" + text.replace("'", "''") + "'"


def number(value: int | float) -> str:
    """Write a finite number as a SQL double.

    Raises:
        ValueError: it is not finite or too large for a double.
    """
    try:
        as_float = float(value)
    except OverflowError as e:
        raise ValueError("a filter number is too large") from e
    if not math.isfinite(as_float):
        raise ValueError("a filter number must be finite")
    return f"CAST('{as_float!r}' AS DOUBLE)"


def any_of(column: str, values: Iterable[str]) -> str:
    """``column IN (values)``; false for no values."""
    listed = ",".join(literal(v) for v in values)
    return f"{column} IN ({listed})" if listed else "false"


def slices(ids: Iterable[str], size: int = MAX_IDS) -> Iterator[Sequence[str]]:
    """Cut ids into lists of at most ``size``."""
    remaining = iter(ids)
    while part := list(islice(remaining, size)):
        yield part


def filter_sql(tree: Filter) -> str:
    """Encode a filter tree."""
    if isinstance(tree, Compare):
        return _compare(tree)
    if isinstance(tree, Not):
        return f"(NOT {filter_sql(tree.part)})"
    joined = (" AND " if isinstance(tree, And) else " OR ").join(filter_sql(part) for part in tree.parts)
    if not joined:
        return "true" if isinstance(tree, And) else "false"
    return f"({joined})"


def _compare(node: Compare) -> str:
    if node.op == "has":
        return f"array_has({node.field}, {literal(str(node.value))})"
    if node.op == "^=":
        return f"starts_with({node.field}, {literal(str(node.value))})"
    if FIELDS[node.field][0] is str:
        return f"({node.field} {node.op} {literal(str(node.value))})"
    assert not isinstance(node.value, str)  # Compare has checked it
    return f"coalesce(CAST({node.field} AS DOUBLE) {node.op} {number(node.value)}, false)"


def principal_sql(principal: Principal) -> str | None:
    """Encode what ``principal`` may read; ``None`` for an operator. An empty ACL is readable by nobody."""
    if principal.operator:
        return None
    groups = ",".join(literal(g) for g in sorted(principal.effective_groups))
    return f"(tenant = {literal(principal.tenant)} AND array_has_any(acl, [{groups}]))"


def visible_sql(principal: Principal, where: Filter | None) -> str | None:
    """Both restrictions of a read, or ``None`` when there is none."""
    parts = [p for p in (principal_sql(principal), filter_sql(where) if where is not None else None) if p]
    return " AND ".join(parts) or None
