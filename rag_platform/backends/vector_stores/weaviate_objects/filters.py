"""Filter trees and principals as Weaviate filters. Values travel as values: there is no query language.

``not`` is pushed down to the comparisons, whose complements are written out: a missing number satisfies no
comparison, so the complement of one holds for it.
"""

from __future__ import annotations

from typing import Any

from rag_platform.backends.vector_stores.filters import FIELDS, And, Compare, Filter, Not
from rag_platform.backends.vector_stores.weaviate_objects.properties import coded, filtered
from rag_platform.records import Principal

_COMPLEMENTS = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}


def visible(principal: Principal, where: Filter | None) -> Any | None:
    """Return the filter of what ``principal`` may read and ``where`` selects; None: everything."""
    from weaviate.classes.query import Filter as F

    parts: list[Any] = []
    if not principal.operator:
        groups = [coded(g) for g in sorted(principal.effective_groups)]
        parts.append(F.by_property(filtered("tenant")).equal(coded(principal.tenant)))
        parts.append(F.by_property(filtered("acl")).contains_any(groups))
    if where is not None:
        parts.append(_tree(where, wanted=True))
    return F.all_of(parts) if len(parts) > 1 else (parts[0] if parts else None)


def plain(name: str, values: list[str]) -> Any:
    """Return the filter of the objects whose property ``name``, of our own making, is one of ``values``."""
    from weaviate.classes.query import Filter as F

    return F.by_property(name).contains_any(values)


def _tree(tree: Filter, *, wanted: bool) -> Any:
    from weaviate.classes.query import Filter as F

    if isinstance(tree, Not):
        return _tree(tree.part, wanted=not wanted)
    if isinstance(tree, Compare):
        return _compare(tree, wanted=wanted)
    parts = [_tree(part, wanted=wanted) for part in tree.parts]
    if isinstance(tree, And) == wanted:
        return (F.all_of(parts) if len(parts) > 1 else parts[0]) if parts else _everything()
    return (F.any_of(parts) if len(parts) > 1 else parts[0]) if parts else _nothing()


def _compare(node: Compare, *, wanted: bool) -> Any:
    from weaviate.classes.query import Filter as F

    field = F.by_property(filtered(node.field))
    if FIELDS[node.field][0] is str:
        value = coded(str(node.value))
        if node.op == "has":
            return field.contains_any([value]) if wanted else field.contains_none([value])
        if node.op == "^=":
            return field.like(f"{value}*") if wanted else F.not_(field.like(f"{value}*"))
        return field.equal(value) if (node.op == "=") == wanted else field.not_equal(value)
    number = _number(node.value)
    if wanted:
        return _number_is(field, node.op, number)
    if node.op in _COMPLEMENTS:
        held = _number_is(field, _COMPLEMENTS[node.op], number)
    else:
        held = _number_is(field, "=" if node.op == "!=" else "!=", number)
    return F.any_of([held, field.is_none(True)])


def _number_is(field: Any, op: str, number: float) -> Any:
    from weaviate.classes.query import Filter as F

    if op == "=":
        return field.equal(number)
    if op == "!=":  # Weaviate's own holds for what has no value
        return F.any_of([field.less_than(number), field.greater_than(number)])
    by_name = {"<": "less_than", "<=": "less_or_equal", ">": "greater_than", ">=": "greater_or_equal"}
    return getattr(field, by_name[op])(number)


def _number(value: str | int | float) -> float:
    assert not isinstance(value, str)  # Compare has checked it
    return float(value)


def _nothing() -> Any:
    from weaviate.classes.query import Filter as F

    return F.by_property("write_id").equal("-")


def _everything() -> Any:
    from weaviate.classes.query import Filter as F

    return F.by_property("write_id").not_equal("-")
