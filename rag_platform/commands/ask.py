"""``rag ask``: answer a question from the index, with citations, without a server."""

from __future__ import annotations

import asyncio
import dataclasses
import json as json_module
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from rag_platform.backends.vector_stores import filters
from rag_platform.commands import console
from rag_platform.commands.question_sets import questions_of
from rag_platform.query.answer import Answer
from rag_platform.query.events import Final, TextDelta
from rag_platform.query.question import Question
from rag_platform.query.service import QueryService, Unanswerable
from rag_platform.records import LOCAL_OPERATOR, Principal
from rag_platform.settings import Settings


@console.handles_errors
def ask(
    question: Annotated[str | None, typer.Argument(help="The question, in quotes.")] = None,
    profile: Annotated[str | None, typer.Option(help="fast, balanced or thorough; default: RAG_PROFILE.")] = None,
    k: Annotated[int | None, typer.Option("-k", min=1, max=50, help="Passages that the answer may rest on.")] = None,
    mode: Annotated[str, typer.Option(help="How to retrieve: hybrid, vector or keyword.")] = "hybrid",
    filter: Annotated[
        str | None, typer.Option("--filter", help="""For example: source = "docs" and tags has "howto".""")
    ] = None,
    rerank: Annotated[bool | None, typer.Option("--rerank/--no-rerank", help="Default: the profile's.")] = None,
    tenant: Annotated[
        str | None, typer.Option(help="Ask as a reader of this tenant; default: as the operator, who sees all.")
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="With --tenant: a group of the reader; may be repeated.")
    ] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds for everything; default: the profile's.")] = None,
    batch: Annotated[
        Path | None, typer.Option(help="""A JSONL file of {"id", "text"}: one answer object a line.""")
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print the text as it is written.")] = False,
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Answer a question from the index, with citations."""
    if (question is None) == (batch is None):
        raise typer.BadParameter("give a question, or --batch FILE.jsonl")
    settings = console.load_settings()
    principal = LOCAL_OPERATOR if tenant is None else Principal(tenant, frozenset(group or ()))
    try:
        where = None if filter is None else filters.parse(filter)
        asked: dict[str, Any] = {
            "principal": principal,
            "profile_name": profile or settings.profile,
            "k": k,
            "mode": mode,
            "where": where,
            "rerank": rerank,
            "deadline_s": deadline,
        }
        if batch is not None:
            questions = questions_of(batch)
            failed = asyncio.run(_batch(settings, [(i, _question(text, asked)) for i, text in questions]))
            if failed:
                console.fail(f"{failed} of {len(questions)} questions got no answer", console.EXIT_DEPENDENCY)
            return
        one = _question(question or "", asked)
    except ValueError as e:
        raise typer.BadParameter(str(e)) from e
    answer = asyncio.run(_one(settings, one, live=stream and not json))
    if json:
        console.emit(msgspec.to_builtins(answer))
    else:
        show(answer, text=not stream)


def show(answer: Answer, *, text: bool = True) -> None:
    """Print an answer for a person: what it says, what that rests on, and how it came about."""
    o = console.out
    if text:
        o.print(console.escape(answer.answer))
    for c in answer.citations:
        page = f", page {c.page}" if c.page else ""
        o.print(
            f"  [cyan]\\[{c.number}] {console.escape(c.title)}[/cyan]  "
            f"[dim]{console.escape(c.source)}/{console.escape(c.uri)}{page}, characters {c.start}–{c.end}[/dim]"
        )
    facts = [answer.generator, answer.mode, f"cache {answer.cache}", f"{answer.timings_ms['total']:.0f} ms"]
    if answer.cost_usd:
        facts.append(f"${answer.cost_usd:.6f}")
    o.print(f"[dim]{console.escape(' · '.join(facts))}[/dim]")
    if answer.degraded:
        why = ", ".join(f"{d.stage}: {d.reason}" for d in answer.degraded)
        console.err.print(f"[yellow]degraded[/yellow]: {console.escape(why)}")


def _question(text: str, asked: dict[str, Any]) -> Question:
    return Question(text=text, request_id=uuid.uuid4().hex, **asked)


@asynccontextmanager
async def _service(settings: Settings) -> AsyncIterator[QueryService]:
    service = QueryService(settings)
    await service.start()
    try:
        yield service
    finally:
        await service.aclose()


async def _one(settings: Settings, question: Question, *, live: bool) -> Answer:
    async with _service(settings) as service:
        if not live:
            return await service.answer(question)
        answer: Answer | None = None
        async for event in service.stream(question):
            if isinstance(event, TextDelta):
                sys.stdout.write(event.text)
                sys.stdout.flush()
            elif isinstance(event, Final):
                answer = event.answer
        assert answer is not None  # the last event, or an exception
        sys.stdout.write("\n")
        return answer


async def _batch(settings: Settings, questions: list[tuple[Any, Question]]) -> int:
    """Answer in the order of the file, some at a time; return how many got none. A question set is no traffic, so
    it is not logged."""
    slots = asyncio.Semaphore(settings.cores)
    failed = 0
    async with _service(dataclasses.replace(settings, query_log="off")) as service:

        async def one(question: Question) -> dict[str, Any]:
            async with slots:
                try:
                    return dict(msgspec.to_builtins(await service.answer(question)))
                except Unanswerable as e:
                    return {"error": str(e)}

        tasks = [asyncio.create_task(one(q)) for _, q in questions]
        try:
            for (question_id, _), task in zip(questions, tasks, strict=True):
                row = await task
                failed += "error" in row
                sys.stdout.write(json_module.dumps({"id": question_id, **row}, ensure_ascii=False) + "\n")
        finally:
            for task in tasks:
                task.cancel()
    sys.stdout.flush()
    return failed
