"""The shapes of a golden set: cases, and the spans of documents that answer them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rag_platform import identity
from rag_platform.errors import ConfigurationError
from rag_platform.records import DEFAULT_TENANT, PUBLIC_GROUP


@dataclass(frozen=True, slots=True)
class GoldSpan:
    """Words of a document that answer a question. Words, not offsets or chunk ids: they stay where they are when the
    chunker, the parser or the file around them changes. ``source`` None: the document of any source."""

    uri: str
    quote: str
    source: str | None = None


@dataclass(frozen=True, slots=True)
class GoldenCase:
    """One question.

    Attributes:
        case_id: unique in its set.
        answer: the reference answer; None where only retrieval is measured.
        spans: all of them together are what must be found; empty for a case that must be refused.
        must_refuse: the corpus, or what this reader may see of it, holds no answer.
        tenant, groups: who asks.
    """

    case_id: str
    question: str
    answer: str | None
    spans: tuple[GoldSpan, ...]
    tags: tuple[str, ...] = ()
    must_refuse: bool = False
    tenant: str = DEFAULT_TENANT
    groups: tuple[str, ...] = (PUBLIC_GROUP,)


@dataclass(frozen=True)
class GoldenSet:
    """A named list of cases. ``gate`` is the policy of the file as it stands there; None: none."""

    name: str
    cases: tuple[GoldenCase, ...]
    gate: Mapping[str, Any] | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the cases, 16 hex digits: two evaluations may be compared when it is equal. Neither the order of the
        cases nor the gate changes what is measured."""
        cases = sorted((case_as_json(case) for case in self.cases), key=lambda c: str(c["id"]))
        return identity.digest("golden set", identity.canonical_json(cases))[:16]


def new_case_id(question: str, tenant: str = DEFAULT_TENANT, groups: Sequence[str] = (PUBLIC_GROUP,)) -> str:
    """Return the id of a case that names none: 10 hex digits, equal for the same question of the same reader."""
    return identity.digest("golden case", question, tenant, *sorted(set(groups)))[:10]


def checked(case: GoldenCase, where: str) -> GoldenCase:
    """Return the case when it measures something and does not contradict itself.

    Raises:
        ConfigurationError: it does not; the message begins with ``where``.
    """
    if case.must_refuse and (case.spans or case.answer is not None):
        raise ConfigurationError(
            f"{where}: a case that must be refused has neither an answer nor spans; remove them, or `must_refuse`"
        )
    if not case.must_refuse and not case.spans and case.answer is None:
        raise ConfigurationError(
            f"{where}: measures nothing; give it spans or an answer, or `must_refuse: true` when the corpus has none"
        )
    if len(set(case.spans)) < len(case.spans):
        raise ConfigurationError(f"{where}: the same span is listed twice; remove one")
    return case


def case_as_json(case: GoldenCase) -> dict[str, Any]:
    """Return a case as it stands in a file: what is empty or usual is left out."""
    row: dict[str, Any] = {"id": case.case_id, "question": case.question}
    if case.answer is not None:
        row["answer"] = case.answer
    if case.must_refuse:
        row["must_refuse"] = True
    if case.tags:
        row["tags"] = list(case.tags)
    if case.tenant != DEFAULT_TENANT:
        row["tenant"] = case.tenant
    if case.groups != (PUBLIC_GROUP,):
        row["groups"] = list(case.groups)
    if case.spans:
        row["spans"] = [
            {"uri": s.uri, "quote": s.quote} | ({} if s.source is None else {"source": s.source}) for s in case.spans
        ]
    return row
