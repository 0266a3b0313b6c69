"""Who may share an answer: everything that decides it, except the question's words, as one digest."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache

from rag_platform import identity
from rag_platform.backends.vector_stores.filters import And, Compare, Filter, Not
from rag_platform.query.profiles import Profile
from rag_platform.query.question import Question


def scope(question: Question, release_id: str, fingerprints: Sequence[str]) -> str:
    """Return 40 hex digits that are equal only where an answer to one is an answer to the other.

    Holds tenant, ACL (operator or sorted groups), release, filter, retrieval mode, profile with all its
    numbers and the request's overrides. ``fingerprints`` are the models, prompts and settings in use.
    """
    principal = question.principal
    return identity.digest(
        "scope",
        principal.tenant,
        "operator" if principal.operator else "reader",
        identity.digest(*sorted(principal.effective_groups)),
        release_id,
        "" if question.where is None else canonical(question.where),
        question.mode,
        _numbers(question.profile),
        repr((question.k, question.rerank, question.max_answer_tokens)),
        identity.digest(*fingerprints),
    )[:40]


def canonical(tree: Filter) -> str:
    """Return the same text for the same filter, whatever the order of the parts of its ands and ors."""
    if isinstance(tree, Compare):
        # The type belongs to it: "1" is not 1.
        return identity.canonical_json([tree.field, tree.op, type(tree.value).__name__, tree.value])
    if isinstance(tree, Not):
        return f"not({canonical(tree.part)})"
    parts = sorted(canonical(part) for part in tree.parts)
    return f"{'and' if isinstance(tree, And) else 'or'}({','.join(parts)})"


@lru_cache(maxsize=16)
def _numbers(profile: Profile) -> str:
    return identity.canonical_json(dataclasses.asdict(profile))
