"""The YAML of golden sets.

It is read strictly: a key that is not known, a case that measures nothing, an id that is there twice are errors that
name the file, the case and the cure, because a gate that silently skips half of its questions is worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from rag_platform.errors import ConfigurationError
from rag_platform.evaluation.golden_cases import (
    GoldenCase,
    GoldenSet,
    GoldSpan,
    case_as_json,
    checked,
    new_case_id,
)
from rag_platform.records import DEFAULT_TENANT, PUBLIC_GROUP

_SET_KEYS = ("gate", "cases")
_CASE_KEYS = ("id", "question", "answer", "spans", "tags", "must_refuse", "tenant", "groups")
_SPAN_KEYS = ("uri", "quote", "source")


def parse(text: str, *, name: str, origin: str) -> GoldenSet:
    """Read the YAML of one golden set; ``origin`` is what errors call it.

    Raises:
        ConfigurationError: it is something else than a golden set.
    """
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        at = f"line {mark.line + 1}: " if mark is not None else ""
        problem = getattr(e, "problem", None) or "not YAML"
        raise ConfigurationError(f"{origin}: {at}{problem}; put a text that holds ': ' or '#' into quotes") from e
    if not isinstance(raw, dict) or "cases" not in raw:
        raise ConfigurationError(f"{origin}: is no golden set; it needs a list `cases:` (docs/evaluation.md)")
    _known_keys(raw, _SET_KEYS, origin)
    gate = raw.get("gate")
    if gate is not None and not isinstance(gate, dict):
        raise ConfigurationError(f"{origin}: `gate` must be a mapping; remove it to use the default policy")
    listed = raw["cases"]
    if listed is None:
        listed = []
    if not isinstance(listed, list):
        raise ConfigurationError(f"{origin}: `cases` must be a list, each entry starting with `- question: …`")
    cases = tuple(_case(entry, f"{origin}: case {number}") for number, entry in enumerate(listed, 1))
    first: dict[str, int] = {}
    for number, case in enumerate(cases, 1):
        if case.case_id in first:
            raise ConfigurationError(
                f"{origin}: cases {first[case.case_id]} and {number} have the same id {case.case_id!r}; "
                "give one of them another `id:`, or remove it when it is the same question"
            )
        first[case.case_id] = number
    return GoldenSet(name, cases, gate)


def _case(raw: Any, where: str) -> GoldenCase:
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{where}: must be a mapping that starts with `question: …`")
    _known_keys(raw, _CASE_KEYS, where)
    if raw.get("id") is not None:
        where = f"{where} ({raw['id']})"
    question = _text(raw, "question", where)
    tenant = _text(raw, "tenant", where) if "tenant" in raw else DEFAULT_TENANT
    groups = _texts(raw, "groups", where) if "groups" in raw else (PUBLIC_GROUP,)
    spans = raw.get("spans") or []
    if not isinstance(spans, list):
        raise ConfigurationError(f"{where}: `spans` must be a list of `uri` and `quote`")
    must_refuse = raw.get("must_refuse", False)
    if not isinstance(must_refuse, bool):
        raise ConfigurationError(f"{where}: `must_refuse` must be true or false")
    return checked(
        GoldenCase(
            case_id=_text(raw, "id", where) if raw.get("id") is not None else new_case_id(question, tenant, groups),
            question=question,
            answer=_text(raw, "answer", where) if raw.get("answer") is not None else None,
            spans=tuple(_span(span, f"{where}, span {number}") for number, span in enumerate(spans, 1)),
            tags=_texts(raw, "tags", where) if "tags" in raw else (),
            must_refuse=must_refuse,
            tenant=tenant,
            groups=groups,
        ),
        where,
    )


def _span(raw: Any, where: str) -> GoldSpan:
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{where}: must be a mapping with `uri` and `quote`")
    _known_keys(raw, _SPAN_KEYS, where)
    source = _text(raw, "source", where) if raw.get("source") is not None else None
    return GoldSpan(_text(raw, "uri", where), _text(raw, "quote", where), source)


def _known_keys(raw: Mapping[Any, Any], known: Sequence[str], where: str) -> None:
    for key in raw:
        if key not in known:
            raise ConfigurationError(f"{where}: does not know {key!r}; it knows {', '.join(known)}")


def _text(raw: Mapping[str, Any], key: str, where: str) -> str:
    value = raw.get(key)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ConfigurationError(f"{where}: `{key}` is a number for YAML; write it in quotes")
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{where}: `{key}` must be a text and not empty")
    return value.strip()


def _texts(raw: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = raw[key]
    if not isinstance(values, list):
        raise ConfigurationError(f"{where}: `{key}` must be a list such as [one, two]")
    return tuple(_text({key: value}, key, where) for value in values)


def render(golden: GoldenSet) -> str:
    """Return a set as YAML; ``parse`` reads it back as it was."""
    gate = "" if golden.gate is None else _yaml({"gate": dict(golden.gate)})
    return gate + render_cases(golden.cases)


class _Dumper(yaml.SafeDumper):
    """Indents lists inside mappings, as people write them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _yaml(value: Any) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110))


def render_cases(cases: Sequence[GoldenCase]) -> str:
    """Return the list of cases, with its key."""
    return _yaml({"cases": [case_as_json(case) for case in cases]})
