"""``rag golden add``: one more question, after its quotes were found in the corpus."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rag_platform.commands import console
from rag_platform.errors import ConfigurationError
from rag_platform.evaluation import golden as golden_file
from rag_platform.evaluation.corpus import SpanFinding, check_spans
from rag_platform.evaluation.golden import GoldenCase, GoldSpan, checked, new_case_id, set_path
from rag_platform.ingestion.workbench import Workbench
from rag_platform.records import DEFAULT_TENANT, PUBLIC_GROUP
from rag_platform.settings import Settings

EXIT_NOT_FOUND = 3
"""A quote is not where a golden set says."""


@console.handles_errors
def add(
    question: Annotated[str, typer.Argument(help="The question, as a reader would ask it.")],
    answer: Annotated[str | None, typer.Option(help="The reference answer, as short as it can be.")] = None,
    span: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URI::QUOTE", help="Document and words of it that must be found; may be repeated: all are needed."
        ),
    ] = None,
    source: Annotated[str | None, typer.Option(help="Source of the spans; default: any with such a document.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Label, to see results by; may be repeated.")] = None,
    must_refuse: Annotated[
        bool, typer.Option("--must-refuse", help="Nothing that this reader may see answers it.")
    ] = False,
    tenant: Annotated[str, typer.Option(help="Tenant of the reader who asks.")] = DEFAULT_TENANT,
    group: Annotated[
        list[str] | None, typer.Option(help="Group of the reader; may be repeated. Everybody is in public.")
    ] = None,
    set_name: Annotated[str, typer.Option("--set", help="The set; it is made when it is missing.")] = "golden",
    case_id: Annotated[str | None, typer.Option("--id", help="Id of the case; default: made of the question.")] = None,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Do not look for the quotes in the corpus first.")
    ] = False,
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Add a question to a golden set, after its quotes were found in the corpus.

    Exit codes: 0 added · 2 bad usage · 3 a quote is not in the corpus, nothing was added.
    """
    groups = tuple(dict.fromkeys(group)) if group else (PUBLIC_GROUP,)
    case = GoldenCase(
        case_id=case_id or new_case_id(question.strip(), tenant, groups),
        question=question.strip(),
        answer=(answer or "").strip() or None,
        spans=tuple(as_span(text, source) for text in span or ()),
        tags=tuple(dict.fromkeys(tag or ())),
        must_refuse=must_refuse,
        tenant=tenant,
        groups=groups,
    )
    add_or_fail(console.load_settings(), set_name, case, unchecked=unchecked, json=json)


def add_or_fail(settings: Settings, set_name: str, case: GoldenCase, *, unchecked: bool, json: bool) -> None:
    """Add a case to a set and say so, or say which of its quotes are not in the corpus and leave.

    Raises:
        ConfigurationError: the case or the name of the set is not one.
    """
    if lost := add_case(settings, set_name, case, unchecked=unchecked):
        if json:
            console.emit({"added": False, "set": set_name, "findings": [finding_as_json(f) for f in lost]})
        for finding in lost:
            console.err.print(console.escape(sentence(finding)), soft_wrap=True)
        console.fail("nothing was added; correct the span, or add it all the same with --unchecked", EXIT_NOT_FOUND)
    path = set_path(settings, set_name)
    number = len(golden_file.load(path).cases)
    if json:
        added = {"added": True, "set": set_name, "path": str(path), "cases": number}
        console.emit(added | {"case": golden_file.case_as_json(case)})
    else:
        console.out.print(f"added {case.case_id} to {path} ({number} cases)", soft_wrap=True)


def add_case(settings: Settings, set_name: str, case: GoldenCase, *, unchecked: bool = False) -> list[SpanFinding]:
    """Add a case to a set when its quotes stand in the corpus where it says; return those that do not.

    Raises:
        ConfigurationError: the case or the name of the set is not one.
    """
    if not case.question:
        raise ConfigurationError("the question is empty")
    path = set_path(settings, set_name)
    checked(case, "the case")
    if not unchecked:
        with Workbench(settings) as bench:
            lost = [f for f in check_spans(bench, [case]) if f.state != "found"]
        if lost:
            return lost
    golden_file.append(path, [case])
    return []


def as_span(text: str, source: str | None) -> GoldSpan:
    """Read ``URI::QUOTE``.

    Raises:
        ConfigurationError: it is written in another way.
    """
    uri, separator, quote = text.partition("::")
    if not separator or not uri.strip() or not quote.strip():
        raise ConfigurationError(
            f"--span {text!r}: write the document, two colons and the quote: 'guide.md::the words'"
        )
    return GoldSpan(uri.strip(), quote.strip(), source)


def finding_as_json(finding: SpanFinding) -> dict[str, Any]:
    """Return what became of a quote, for machines."""
    row: dict[str, Any] = {"case_id": finding.case_id, "state": finding.state, "detail": finding.detail}
    row |= {"uri": finding.span.uri, "source": finding.span.source, "quote": finding.span.quote}
    return row | {"now": None if finding.now is None else {"uri": finding.now.uri, "source": finding.now.source}}


def sentence(finding: SpanFinding) -> str:
    """Return what became of a quote, for people."""
    quote = finding.span.quote if len(finding.span.quote) <= 100 else finding.span.quote[:99] + "…"
    now = "" if finding.now is None else f" to {finding.now.uri} (source {finding.now.source})"
    detail = f": {finding.detail}" if finding.detail else ""
    return f"{finding.state}{now}  {finding.case_id}  {finding.span.uri} “{quote}”{detail}"
