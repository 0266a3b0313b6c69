"""``rag golden review``: what readers were not content with, and what becomes of it."""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import Annotated, Any

import typer

from rag_platform.commands import console
from rag_platform.commands.golden_add import add_case, add_or_fail, as_span, sentence
from rag_platform.errors import ConfigurationError
from rag_platform.evaluation import feedback
from rag_platform.evaluation.feedback import RatedQuestion, Review
from rag_platform.evaluation.golden import GoldenCase, golden_sets
from rag_platform.ledger import Ledger, open_ledger
from rag_platform.records import PUBLIC_GROUP
from rag_platform.settings import Settings

TAG = "feedback"
SHOWN_CHARS = 400
SHOWN_DOCUMENTS = 5
NO_TEXT = "(text not kept)"


@console.handles_errors
def review(
    add: Annotated[
        str | None, typer.Option("--add", metavar="REQUEST", help="Make a golden case of this answer's question.")
    ] = None,
    dismiss: Annotated[
        list[str] | None, typer.Option("--dismiss", metavar="REQUEST", help="Do not show it again; may be repeated.")
    ] = None,
    question: Annotated[
        str | None, typer.Option(help="With --add: the question in other words; default: as it was asked.")
    ] = None,
    answer: Annotated[str | None, typer.Option(help="With --add: the reference answer.")] = None,
    span: Annotated[
        list[str] | None,
        typer.Option(metavar="URI::QUOTE", help="With --add: document and words of it that must be found."),
    ] = None,
    must_refuse: Annotated[
        bool, typer.Option("--must-refuse", help="With --add: nothing that this reader may see answers it.")
    ] = False,
    set_name: Annotated[str, typer.Option("--set", help="Golden set that cases are added to.")] = "golden",
    days: Annotated[float, typer.Option(min=0, help="How far to look back.")] = 30.0,
    everything: Annotated[bool, typer.Option("--all", help="Thumbs up, too, and what is done already.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Only list them, also on a terminal.")] = False,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="Do not look for the quotes in the corpus.")] = False,
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Look through the answers that readers gave a thumb down, and make golden cases of them.

    On a terminal it shows one after the other with its comments, release and cited documents, and asks what to do; else it
    lists them. --add and --dismiss decide about one without asking. The reader of the case is the reader who asked.

    Exit codes: 0 done · 2 bad usage · 3 a quote is not in the corpus, nothing was added.
    """
    if add is not None and dismiss:
        raise ConfigurationError("--add and --dismiss are two decisions; make one after the other")
    if add is None and (question or answer or span or must_refuse):
        raise ConfigurationError("--question, --answer, --span and --must-refuse go with --add REQUEST")
    settings = console.load_settings()
    ledger = open_ledger(settings)
    try:
        if add is not None:
            rated = feedback.find(ledger, add)
            case = _case(rated, question, answer, span or [], must_refuse)
            add_or_fail(settings, set_name, case, unchecked=unchecked, json=json)
        elif dismiss:
            same = _same_questions(settings, ledger, dismiss)
            feedback.dismiss(settings, same)
            if json:
                console.emit({"dismissed": same})
            else:
                console.out.print(f"dismissed {', '.join(same)}; `rag golden review --all` still shows them")
        else:
            found = _look(settings, ledger, time.time() - days * 86_400, everything)
            if json:
                console.emit(_as_json(found))
            elif listed or not found.questions or not (sys.stdin.isatty() and console.out.is_terminal):
                _list(found, days)
            else:
                _walk(settings, found, set_name, unchecked)
    finally:
        ledger.close()


def _look(settings: Settings, ledger: Ledger, since: float, everything: bool) -> Review:
    return feedback.review(ledger, golden_sets(settings), feedback.dismissed(settings), since, everything=everything)


def _same_questions(settings: Settings, ledger: Ledger, requests: list[str]) -> list[str]:
    """Return these requests with the other rated answers to the same questions of the same readers."""
    for request in requests:
        feedback.find(ledger, request)
    groups = [q.requests for q in _look(settings, ledger, 0.0, everything=True).questions]
    return list(dict.fromkeys([*requests, *(r for group in groups if set(requests) & set(group) for r in group)]))


def _case(
    rated: RatedQuestion, question: str | None, answer: str | None, spans: list[str], must_refuse: bool
) -> GoldenCase:
    text = (question or rated.row.question or "").strip()
    if not text:
        raise ConfigurationError(
            "the query log does not hold the text of this question (RAG_QUERY_LOG=full keeps texts); give it with --question"
        )
    return GoldenCase(
        case_id=rated.case_id,
        question=text,
        answer=(answer or "").strip() or None,
        spans=tuple(as_span(one, None) for one in spans),
        tags=(TAG,),
        must_refuse=must_refuse,
        tenant=rated.row.tenant,
        groups=rated.row.groups or (PUBLIC_GROUP,),
    )


# ── one after the other, on a terminal ──
def _walk(settings: Settings, found: Review, set_name: str, unchecked: bool) -> None:
    added = dismissed = 0
    for number, rated in enumerate(found.questions, 1):
        console.out.print(f"\n[dim]{number} of {len(found.questions)}[/dim]")
        _show(rated)
        choice = _choice()
        if choice == "q":
            break
        if choice == "d":
            feedback.dismiss(settings, rated.requests)
            dismissed += 1
        elif choice == "a" and _add(settings, rated, set_name, unchecked):
            added += 1
    console.out.print(f"\nadded {added} to {set_name}, dismissed {dismissed}")


def _choice() -> str:
    while True:
        typed = str(typer.prompt("[a]dd to the golden set, [s]kip, [d]ismiss, [q]uit", default="s")).strip().lower()
        if typed[:1] in ("a", "s", "d", "q"):
            return typed[:1]


def _add(settings: Settings, rated: RatedQuestion, set_name: str, unchecked: bool) -> bool:
    """Ask until the case can be added; False when the reviewer gives up."""
    while True:
        question = typer.prompt("question", default=rated.row.question or "").strip()
        must_refuse = typer.confirm("must it be refused (nothing this reader may see answers it)?", default=False)
        answer, spans = None, []
        if not must_refuse:
            answer = typer.prompt("reference answer, empty for none", default="", show_default=False)
            while one := typer.prompt("document::its words, empty when done", default="", show_default=False).strip():
                spans.append(one)
        try:
            lost = add_case(settings, set_name, _case(rated, question, answer, spans, must_refuse), unchecked=unchecked)
        except ConfigurationError as e:
            console.err.print(f"[red]not added[/red]: {console.escape(str(e))}", soft_wrap=True)
        else:
            if not lost:
                return True
            for finding in lost:
                console.err.print(f"[red]not added[/red]: {console.escape(sentence(finding))}", soft_wrap=True)
        if not typer.confirm("try again?", default=True):
            return False


def _show(rated: RatedQuestion) -> None:
    o, row = console.out, rated.row
    o.print(f"[bold]{console.escape(row.question or NO_TEXT)}[/bold]", soft_wrap=True)
    said = "(refused)" if row.refused else _short(row.answer or NO_TEXT)
    o.print(console.escape(said), soft_wrap=True)
    for thumb in rated.thumbs:
        comment = f": {thumb.comment}" if thumb.comment else ""
        mark = "[red]down[/red]" if thumb.rating < 0 else "[green]up[/green]"
        o.print(f"  {mark} {console.when(thumb.at)}{console.escape(comment)}", soft_wrap=True)
    reader = ", ".join(row.groups) or PUBLIC_GROUP
    o.print(
        f"  [dim]request {row.request_id} · release {row.release_id} · reader {row.tenant}: {reader}[/dim]",
        soft_wrap=True,
    )
    for what, documents in (
        ("cites", [d for d in rated.documents if d.cited]),
        ("found, not cited", [d for d in rated.documents if not d.cited][:SHOWN_DOCUMENTS]),
    ):
        if documents:
            o.print(f"  {what}: {console.escape(', '.join(map(str, documents)))}", soft_wrap=True)


# ── for machines and pipes ──
def _list(found: Review, days: float) -> None:
    if found.questions:
        for rated in found.questions:
            _show(rated)
            console.out.print()
        o = console.out
        o.print("rag golden review --add REQUEST --answer … --span 'URI::QUOTE', or --dismiss REQUEST", soft_wrap=True)
        if any(q.row.question is None for q in found.questions):
            console.out.print("[dim]RAG_QUERY_LOG=full keeps the texts of questions and answers[/dim]")
    elif not found.thumbs:
        console.out.print(f"no feedback in {days:g} days: applications send it with POST /v1/feedback (docs/api.md)")
    else:
        console.out.print(f"nothing to review: {found.thumbs} thumbs in {days:g} days, {found.done} questions done")
    if found.without_row:
        console.out.print(f"[dim]{found.without_row} thumbs are about answers that left the query log[/dim]")
    if found.thumbs >= feedback.MAX_THUMBS:
        console.out.print(f"[dim]only the newest {found.thumbs} thumbs were looked at[/dim]")


def _as_json(found: Review) -> dict[str, Any]:
    return {
        "thumbs": found.thumbs,
        "without_row": found.without_row,
        "done": found.done,
        "questions": [
            {
                "request_id": q.row.request_id,
                "requests": list(q.requests),
                "question": q.row.question,
                "answer": q.row.answer,
                "refused": q.row.refused,
                "release_id": q.row.release_id,
                "trace_id": q.row.trace_id,
                "tenant": q.row.tenant,
                "groups": list(q.row.groups),
                "down": q.down,
                "up": q.up,
                "thumbs": [{"at": t.at, "rating": t.rating, "comment": t.comment} for t in q.thumbs],
                "documents": [dataclasses.asdict(d) for d in q.documents],
            }
            for q in found.questions
        ],
    }


def _short(text: str) -> str:
    joined = " ".join(text.split())
    return joined if len(joined) <= SHOWN_CHARS else joined[: SHOWN_CHARS - 1] + "…"
