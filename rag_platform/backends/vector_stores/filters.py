"""A typed filter tree: the only way to narrow a search.

No adapter concatenates user text into a query language: it walks this tree and encodes values by
its own single literal encoder. ``parse`` reads the small expression language of the command line
and of the HTTP API: ``source = "docs" and (tags has "howto" or page >= 3) and not uri ^= "old/"``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

Op = Literal["=", "!=", "<", "<=", ">", ">=", "has", "^="]

FIELDS: dict[str, tuple[type, frozenset[str]]] = {
    "source": (str, frozenset({"=", "!=", "^="})),
    "uri": (str, frozenset({"=", "!=", "^="})),
    "title": (str, frozenset({"=", "!=", "^="})),
    "document_id": (str, frozenset({"=", "!="})),
    "mime_type": (str, frozenset({"=", "!=", "^="})),
    "language": (str, frozenset({"=", "!="})),
    "heading_path": (str, frozenset({"=", "!=", "^="})),
    "tags": (str, frozenset({"has"})),
    "page": (int, frozenset({"=", "!=", "<", "<=", ">", ">="})),
    "modified_at": (float, frozenset({"<", "<=", ">", ">="})),
}
"""Fields that may be filtered on, the type of their value and their operators. Tenant and ACL are
not here: they come from the principal alone."""


@dataclass(frozen=True, slots=True)
class Compare:
    """``field op value``; ``has`` is membership in a list field, ``^=`` is starts-with.

    A missing value (a page, a modification time) satisfies no comparison, not even ``!=``.
    """

    field: str
    op: Op
    value: str | int | float

    def __post_init__(self) -> None:
        if self.field not in FIELDS:
            raise ValueError(f"cannot filter on {self.field!r}; known fields: {', '.join(sorted(FIELDS))}")
        kind, ops = FIELDS[self.field]
        if self.op not in ops:
            raise ValueError(f"{self.field} takes {', '.join(sorted(ops))}, not {self.op!r}")
        ok = (
            isinstance(self.value, str)
            if kind is str
            else (isinstance(self.value, int | float) and not isinstance(self.value, bool))
        )
        if not ok:
            raise ValueError(f"{self.field} needs a {'text' if kind is str else 'number'}, not {self.value!r}")
        if isinstance(self.value, float) and not math.isfinite(self.value):
            raise ValueError(f"{self.field} needs a finite number")


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Filter


Filter = Compare | And | Or | Not

MAX_NODES = 64

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>-?\d+(?:\.\d+)?)|(?P<op><=|>=|!=|\^=|=|<|>)"""
    r"""|(?P<paren>[()])|(?P<word>[A-Za-z_][A-Za-z_0-9]*))""",
    re.DOTALL,
)


def parse(expression: str) -> Filter:
    """Parse a filter expression.

    Raises:
        ValueError: it is not well formed, names an unknown field, or is larger than ``MAX_NODES``
            comparisons; the message says where.
    """
    tokens = _tokens(expression)
    if not tokens:
        raise ValueError("empty filter")
    tree, at = _or(tokens, 0, 0)
    if at != len(tokens):
        raise ValueError(f"unexpected {tokens[at][1]!r} in the filter")
    return tree


def _tokens(expression: str) -> list[tuple[str, str]]:
    found, at, comparisons = [], 0, 0
    text = expression.rstrip()
    while at < len(text):
        m = _TOKEN.match(text, at)
        if m is None or m.lastgroup is None:
            raise ValueError(f"cannot read the filter at position {at}: {text[at : at + 12]!r}")
        comparisons += m.lastgroup in ("string", "number")
        found.append((m.lastgroup, m.group(m.lastgroup)))
        at = m.end()
    if comparisons > MAX_NODES:
        raise ValueError(f"a filter may hold at most {MAX_NODES} comparisons")
    return found


def _or(tokens: list[tuple[str, str]], at: int, depth: int) -> tuple[Filter, int]:
    part, at = _and(tokens, at, depth)
    parts = [part]
    while at < len(tokens) and tokens[at] == ("word", "or"):
        part, at = _and(tokens, at + 1, depth)
        parts.append(part)
    return (parts[0] if len(parts) == 1 else Or(tuple(parts))), at


def _and(tokens: list[tuple[str, str]], at: int, depth: int) -> tuple[Filter, int]:
    part, at = _unary(tokens, at, depth)
    parts = [part]
    while at < len(tokens) and tokens[at] == ("word", "and"):
        part, at = _unary(tokens, at + 1, depth)
        parts.append(part)
    return (parts[0] if len(parts) == 1 else And(tuple(parts))), at


def _unary(tokens: list[tuple[str, str]], at: int, depth: int) -> tuple[Filter, int]:
    if depth > 32:
        raise ValueError("the filter is nested too deeply")
    if at >= len(tokens):
        raise ValueError("the filter ends too early")
    if tokens[at] == ("word", "not"):
        part, at = _unary(tokens, at + 1, depth + 1)
        return Not(part), at
    if tokens[at] == ("paren", "("):
        part, at = _or(tokens, at + 1, depth + 1)
        if at >= len(tokens) or tokens[at] != ("paren", ")"):
            raise ValueError("missing ')' in the filter")
        return part, at + 1
    return _compare(tokens, at)


def _compare(tokens: list[tuple[str, str]], at: int) -> tuple[Filter, int]:
    if at + 2 >= len(tokens):
        raise ValueError("the filter ends too early: a comparison is FIELD OPERATOR VALUE")
    (fk, name), (ok, op), (vk, raw) = tokens[at : at + 3]
    if fk != "word" or not (ok == "op" or op == "has") or vk not in ("string", "number"):
        raise ValueError(f"a comparison is FIELD OPERATOR VALUE with text in double quotes, not {name} {op} {raw}")
    value: str | int | float
    value = re.sub(r"\\(.)", r"\1", raw[1:-1], flags=re.DOTALL) if vk == "string" else _number(raw)
    return Compare(name, op, value), at + 3  # type: ignore[arg-type]


def _number(raw: str) -> int | float:
    return float(raw) if "." in raw else int(raw)
