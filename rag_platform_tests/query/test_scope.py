"""No two questions share a scope unless an answer to one may be given to the other."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_platform.backends.vector_stores.filters import And, Compare, Filter, Not, Or
from rag_platform.query.profiles import PROFILES
from rag_platform.query.question import Question
from rag_platform.query.scope import canonical, scope
from rag_platform.records import Principal
from rag_platform_tests.backends.memory_store import matches

RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""This machine may be busy."""

NAMES = st.text("ab,\x00\x1f|é", max_size=3)
PRINCIPALS = st.builds(Principal, NAMES, st.frozensets(st.one_of(NAMES, st.just("public")), max_size=3), st.booleans())

SOURCES = ("docs", 'd"ocs', "do")
COMPARES = st.one_of(
    st.builds(Compare, st.just("source"), st.sampled_from(["=", "!=", "^="]), st.sampled_from(SOURCES)),
    st.builds(Compare, st.just("page"), st.sampled_from(["=", "<", ">="]), st.integers(1, 3)),
    st.builds(Compare, st.just("tags"), st.just("has"), st.sampled_from(["a", "b"])),
)
FILTERS: st.SearchStrategy[Filter] = st.recursive(
    COMPARES,
    lambda inner: st.one_of(
        st.builds(And, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=6,
)
ROWS: list[dict[str, Any]] = [
    {"source": source, "page": page, "tags": tags}
    for source in SOURCES
    for page in (1, 2, 3, None)
    for tags in ([], ["a"], ["b"], ["a", "b"])
]
QUESTIONS = st.fixed_dictionaries(
    {
        "principal": PRINCIPALS,
        "where": st.one_of(st.none(), FILTERS),
        "mode": st.sampled_from(["hybrid", "vector", "keyword"]),
        "profile_name": st.sampled_from(sorted(PROFILES)),
        "k": st.sampled_from([None, 1, 6]),
        "rerank": st.sampled_from([None, True, False]),
        "max_answer_tokens": st.sampled_from([None, 100, 200]),
    }
)
CONTEXTS = st.tuples(st.sampled_from(["r-1", "r-2"]), st.lists(NAMES, max_size=3).map(tuple))


def reads(principal: Principal) -> tuple[Any, ...]:
    return ("operator", principal.tenant) if principal.operator else (principal.tenant, principal.effective_groups)


def meaning(fields: dict[str, Any]) -> tuple[Any, ...]:
    """What an answer depends on: equal only where one answer fits both."""
    where = fields["where"]
    kept = None if where is None else tuple(matches(where, row) for row in ROWS)
    return (reads(fields["principal"]), kept, *(v for k, v in fields.items() if k not in ("principal", "where")))


def scope_of(fields: dict[str, Any], context: tuple[str, tuple[str, ...]]) -> str:
    return scope(Question(text="q", request_id="r", **fields), *context)


@RELAXED
@given(QUESTIONS, QUESTIONS, CONTEXTS, CONTEXTS)
def test_equal_scopes_mean_equal_rights(a: dict[str, Any], b: dict[str, Any], c: Any, d: Any) -> None:
    """P10: whatever differs in principal, filter, release, models or options gives another scope."""
    if scope_of(a, c) == scope_of(b, d):
        assert meaning(a) == meaning(b) and c == d


@RELAXED
@given(QUESTIONS, CONTEXTS, st.sampled_from(["principal", "where", "mode", "profile_name", "k", "rerank"]), st.data())
def test_one_change_is_another_scope(a: dict[str, Any], context: Any, name: str, data: st.DataObject) -> None:
    """Each part counts by itself."""
    b = {**a, name: data.draw(QUESTIONS)[name]}
    if meaning(a) != meaning(b):
        assert scope_of(a, context) != scope_of(b, context)


@RELAXED
@given(FILTERS, st.randoms())
def test_the_order_of_a_filter_does_not_matter(tree: Filter, rng: Any) -> None:
    """``a and b`` is ``b and a``, at any depth."""

    def shuffled(t: Filter) -> Filter:
        if isinstance(t, Compare):
            return t
        if isinstance(t, Not):
            return Not(shuffled(t.part))
        parts = [shuffled(p) for p in t.parts]
        rng.shuffle(parts)
        return type(t)(tuple(parts))

    assert canonical(shuffled(tree)) == canonical(tree)


def test_what_does_not_change_an_answer_does_not_count() -> None:
    """Neither the words, nor who asked, nor how much time there is."""
    principal = Principal("t", frozenset({"a", "b"}))
    one = Question(text="one", principal=principal, request_id="1", deadline_s=1.0, key_id="k1")
    two = Question(text="two", principal=Principal("t", frozenset({"b", "a", "public"})), request_id="2")
    assert scope(one, "r", ("f",)) == scope(two, "r", ("f",))


def test_a_profile_with_other_numbers_is_another_scope() -> None:
    """A new version of the program may change what ``balanced`` means; a shared cache outlives it."""
    from rag_platform.query.scope import _numbers

    profile = PROFILES["balanced"]
    for f in dataclasses.fields(profile):
        if isinstance(getattr(profile, f.name), int | float):
            changed = dataclasses.replace(profile, **{f.name: getattr(profile, f.name) + 1})
            assert _numbers(changed) != _numbers(profile)
