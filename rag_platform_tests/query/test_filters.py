"""The filter language: what it reads, what it refuses, and that values survive SQL."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_platform.backends.vector_stores.filters import FIELDS, MAX_NODES, And, Compare, Filter, Not, Or, parse
from rag_platform.backends.vector_stores.lance.sql import any_of, filter_sql, literal, number, slices, visible_sql
from rag_platform.records import LOCAL_OPERATOR, Principal

A, B, C = Compare("source", "=", "a"), Compare("page", ">=", 3), Compare("tags", "has", "x")


@pytest.mark.parametrize(
    ("expression", "tree"),
    [
        ('source = "a"', A),
        ('  source="a"  ', A),
        ("page >= 3", B),
        ("page >= -3", Compare("page", ">=", -3)),
        ("modified_at < 1.5", Compare("modified_at", "<", 1.5)),
        ('tags has "x"', C),
        ('uri ^= "old/"', Compare("uri", "^=", "old/")),
        ('source = "a" and page >= 3 or tags has "x"', Or((And((A, B)), C))),
        ('source = "a" and (page >= 3 or tags has "x")', And((A, Or((B, C))))),
        ('not source = "a" and page >= 3', And((Not(A), B))),
        ('not not (source = "a")', Not(Not(A))),
        ('title = "say \\"and\\" \\\\ \'x\'"', Compare("title", "=", "say \"and\" \\ 'x'")),
        ('title = ""', Compare("title", "=", "")),
    ],
)
def test_parse(expression: str, tree: Filter) -> None:
    """Precedence is not, and, or; strings are in double quotes with backslash escapes."""
    assert parse(expression) == tree


@pytest.mark.parametrize(
    "expression",
    [
        "",
        " ",
        "source",
        "source =",
        'source = "a',
        "source = a",
        "source = 'a'",
        'secret = "a"',
        'tenant = "t"',
        'acl has "public"',
        'source < "a"',
        'page = "3"',
        "source = 3",
        'tags = "x"',
        "page has 3",
        '(source = "a"',
        'source = "a")',
        'source = "a" source = "b"',
        'source = "a" and',
        "and",
        "not",
        '= "a"',
        'source "a" =',
        "page >= 3; DROP TABLE x",
        'source == "a"',
        "page >= 3 -- x",
        "page = 1e5",
        "page = --3",
        'source = "a" AND page = 3',
        "(" * 200 + 'source = "a"' + ")" * 200,
        "not " * 5000 + 'source = "a"',
        " or ".join(['source = "a"'] * (MAX_NODES + 1)),
    ],
)
def test_refuse(expression: str) -> None:
    """Anything else is a ValueError with a message, never a crash and never a guess."""
    with pytest.raises(ValueError, match=r"\w"):
        parse(expression)


@given(st.text(max_size=40) | st.text(st.sampled_from('"\\()=<>!^ andorthspge123.-'), max_size=40))
def test_no_input_crashes_the_parser(expression: str) -> None:
    """Any text is read or refused with ValueError."""
    try:
        parse(expression)
    except ValueError:
        return


@st.composite
def comparisons(draw: st.DrawFn) -> Compare:
    name = draw(st.sampled_from(sorted(FIELDS)))
    kind, ops = FIELDS[name]
    value = draw(
        st.text(max_size=10) if kind is str else st.integers(-(10**12), 10**12) | st.sampled_from([0.5, -2.25])
    )
    return Compare(name, draw(st.sampled_from(sorted(ops))), value)  # type: ignore[arg-type]


TREES: st.SearchStrategy[Filter] = st.recursive(
    comparisons(),
    lambda t: (
        st.lists(t, min_size=2, max_size=3).map(lambda p: And(tuple(p)))
        | st.lists(t, min_size=2, max_size=3).map(lambda p: Or(tuple(p)))
        | t.map(Not)
    ),
    max_leaves=8,
)


def written(tree: Filter) -> str:
    if isinstance(tree, Compare):
        value = tree.value
        text = (
            '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' if isinstance(value, str) else json.dumps(value)
        )
        return f"{tree.field} {tree.op} {text}"
    if isinstance(tree, Not):
        return f"not ({written(tree.part)})"
    return (" and " if isinstance(tree, And) else " or ").join(f"({written(p)})" for p in tree.parts)


@given(TREES)
def test_parse_inverts_writing(tree: Filter) -> None:
    """Every tree has an expression that reads back as that tree, whatever its values hold."""
    assert parse(written(tree)) == tree


@given(st.text(), st.text())
def test_literal_is_one_string(value: str, more: str) -> None:
    """A literal holds an even number of quotes and reads back as its value; NUL is refused."""
    if "\0" in value:
        with pytest.raises(ValueError):
            literal(value)
        return
    encoded = literal(value)
    assert encoded[0] == encoded[-1] == "'" and encoded[1:-1].replace("''", "'") == value
    assert encoded[1:-1].replace("''", "").count("'") == 0


def test_numbers() -> None:
    """Numbers are doubles; what no double holds is refused."""
    assert number(3) == "CAST('3.0' AS DOUBLE)" and number(-1e-300) == "CAST('-1e-300' AS DOUBLE)"
    for bad in (math.nan, math.inf, -math.inf, 10**400):
        with pytest.raises(ValueError):
            number(bad)
    with pytest.raises(ValueError):
        literal("\ud800")


def test_principal_is_always_there() -> None:
    """The permission clause stands first and is joined by AND, whatever the filter says."""
    who = Principal("t'1", frozenset({"b", "a"}))
    clause = "(tenant = 't''1' AND array_has_any(acl, ['a','b','public']))"
    assert visible_sql(who, None) == clause
    assert visible_sql(who, Or((A, C))) == f"{clause} AND ((source = 'a') OR array_has(tags, 'x'))"
    assert visible_sql(LOCAL_OPERATOR, None) is None
    assert visible_sql(LOCAL_OPERATOR, A) == "(source = 'a')"
    assert (filter_sql(And(())), filter_sql(Or(())), any_of("x", [])) == ("true", "false", "false")
    assert [len(s) for s in slices(map(str, range(5)), 2)] == [2, 2, 1]
