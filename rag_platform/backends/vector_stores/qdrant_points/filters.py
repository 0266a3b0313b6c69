"""Filter trees and principals as Qdrant conditions. Values travel as values: there is no query language.

Every condition on a field is false for a point without it, so ``must_not`` is an exact complement.
"""

from __future__ import annotations

from typing import Any

from rag_platform.backends.vector_stores.filters import FIELDS, And, Compare, Filter, Not
from rag_platform.records import Principal


def visible(principal: Principal, where: Filter | None) -> list[Any]:
    """Conditions that all hold for what ``principal`` may read and ``where`` selects; none for an operator."""
    from qdrant_client import models

    conditions: list[Any] = []
    if not principal.operator:
        conditions.append(models.FieldCondition(key="tenant", match=models.MatchValue(value=principal.tenant)))
        conditions.append(any_of("acl", sorted(principal.effective_groups)))
    if where is not None:
        conditions.append(_condition(where))
    return conditions


def any_of(field: str, values: list[str]) -> Any:
    """``field`` is, or holds, one of ``values``."""
    from qdrant_client import models

    return models.FieldCondition(key=field, match=models.MatchAny(any=values))


def _condition(tree: Filter) -> Any:
    from qdrant_client import models

    if isinstance(tree, Compare):
        return _compare(tree)
    if isinstance(tree, Not):
        return models.Filter(must_not=[_condition(tree.part)])
    parts = [_condition(part) for part in tree.parts]
    if isinstance(tree, And):
        return models.Filter(must=parts)
    # To Qdrant an empty ``should`` is no condition; to us it is false, as is asking for none of the ids.
    return models.Filter(should=parts) if parts else models.HasIdCondition(has_id=[])


def _compare(node: Compare) -> Any:
    from qdrant_client import models

    if node.op == "^=":
        return models.FieldCondition(key=node.field, match=models.MatchPrefix(prefix=str(node.value)))
    if FIELDS[node.field][0] is str:
        held = models.FieldCondition(key=node.field, match=models.MatchValue(value=str(node.value)))
        return models.Filter(must_not=[held]) if node.op == "!=" else held
    number = _number(node.value)
    if node.op == "!=":
        return models.Filter(should=[_range(node.field, lt=number), _range(node.field, gt=number)])
    if node.op == "=":
        return _range(node.field, gte=number, lte=number)
    return _range(node.field, **{{"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}[node.op]: number})


def _range(field: str, **bounds: float) -> Any:
    from qdrant_client import models

    return models.FieldCondition(key=field, range=models.Range(**bounds))


def _number(value: str | int | float) -> float:
    """
    Raises:
        ValueError: it is too large for a double.
    """
    try:
        return float(value)
    except OverflowError as e:
        raise ValueError("a filter number is too large") from e
