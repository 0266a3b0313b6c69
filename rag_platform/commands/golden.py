"""``rag golden``: the questions that a release must answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from rag_platform.commands import console
from rag_platform.commands.golden_add import EXIT_NOT_FOUND, add, finding_as_json, sentence
from rag_platform.commands.golden_import import import_set
from rag_platform.commands.golden_review import review
from rag_platform.errors import ConfigurationError
from rag_platform.evaluation import golden as golden_file
from rag_platform.evaluation.corpus import SpanFinding, check_spans
from rag_platform.evaluation.golden import GoldenSet, golden_sets, set_path
from rag_platform.ingestion.workbench import Workbench
from rag_platform.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Golden sets: the questions that a release must answer before it serves.")

app.command("add")(add)
app.command("import")(import_set)
app.command("review")(review)


@app.command("list")
@console.handles_errors
def list_sets(
    name: Annotated[str | None, typer.Argument(metavar="[SET]", help="List the cases of this set.")] = None,
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """List the golden sets, or the cases of one."""
    settings = console.load_settings()
    if name is not None:
        _list_cases(_chosen(settings, [name])[0], json)
        return
    rows = [_row(settings, golden) for golden in golden_sets(settings)]
    if json:
        console.emit(rows)
    elif not rows:
        console.out.print(
            f"no golden sets in {settings.resolved_golden_dir}; `rag golden add` makes the first", soft_wrap=True
        )
    else:
        console.show_table(
            f"golden sets in {settings.resolved_golden_dir}",
            ("set", "cases", "to refuse", "spans", "tags", "gate"),
            (
                (
                    r["name"],
                    r["cases"],
                    r["must_refuse"],
                    r["spans"],
                    _tags(r["tags"]),
                    "own" if r["gate"] else "default",
                )
                for r in rows
            ),
        )


@app.command("check")
@console.handles_errors
def check(
    names: Annotated[list[str] | None, typer.Argument(metavar="[SET]...", help="Sets; default: all.")] = None,
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Look for every quote in the corpus, and say which moved, which are hidden from their reader, and which are gone.

    Exit codes: 0 every quote is where the set says · 2 a set cannot be read · 3 one is not.
    """
    settings = console.load_settings()
    sets = _chosen(settings, names or [])
    report = []
    with Workbench(settings) as bench, console.progress_bars(not json):
        for golden in sets:
            findings = check_spans(bench, golden.cases)
            counts = {state: sum(f.state == state for f in findings) for state in ("found", "moved", "hidden", "gone")}
            report.append((golden, findings, counts))
    failed = any(f.state != "found" for _, findings, _ in report for f in findings)
    if json:
        console.emit(
            [
                {"set": golden.name, **counts, "findings": [finding_as_json(f) for f in findings if f.state != "found"]}
                for golden, findings, counts in report
            ]
        )
    else:
        for golden, findings, counts in report:
            console.out.print(f"[bold]{console.escape(golden.name)}[/bold]: {_in_words(golden, findings, counts)}")
            for finding in (f for f in findings if f.state != "found"):
                console.out.print("  " + console.escape(sentence(finding)), soft_wrap=True)
    raise typer.Exit(EXIT_NOT_FOUND if failed else console.EXIT_OK)


def _chosen(settings: Settings, names: Sequence[str]) -> list[GoldenSet]:
    if not names:
        found = golden_sets(settings)
        if not found:
            raise ConfigurationError(f"no golden sets in {settings.resolved_golden_dir}; `rag golden add` makes one")
        return found
    known = sorted(p.stem for p in settings.resolved_golden_dir.glob(f"*{golden_file.SUFFIX}"))
    for name in names:
        if name not in known:
            raise ConfigurationError(
                f"no golden set {name!r} in {settings.resolved_golden_dir}; there: {', '.join(known) or 'none'}"
            )
    return [golden_file.load(set_path(settings, name)) for name in dict.fromkeys(names)]


def _list_cases(golden: GoldenSet, json: bool) -> None:
    if json:
        console.emit([golden_file.case_as_json(case) for case in golden.cases])
        return
    console.show_table(
        f"{golden.name}: {len(golden.cases)} cases",
        ("id", "question", "answer", "where", "tags"),
        (
            (
                c.case_id,
                c.question,
                "(must refuse)" if c.must_refuse else c.answer or "",
                "\n".join(dict.fromkeys(s.uri for s in c.spans)),
                ", ".join(c.tags),
            )
            for c in golden.cases
        ),
    )


def _row(settings: Settings, golden: GoldenSet) -> dict[str, Any]:
    return {
        "name": golden.name,
        "path": str(set_path(settings, golden.name)),
        "cases": len(golden.cases),
        "must_refuse": sum(case.must_refuse for case in golden.cases),
        "spans": sum(len(case.spans) for case in golden.cases),
        "tags": dict(Counter(tag for case in golden.cases for tag in case.tags).most_common()),
        "gate": golden.gate is not None,
        "fingerprint": golden.fingerprint,
    }


def _tags(tags: dict[str, int]) -> str:
    return ", ".join(f"{tag} {number}" for tag, number in tags.items())


def _in_words(golden: GoldenSet, findings: Sequence[SpanFinding], counts: dict[str, int]) -> str:
    if counts["found"] == len(findings):
        return f"{len(golden.cases)} cases, {len(findings)} quotes, all where the set says"
    return f"{len(golden.cases)} cases, " + ", ".join(f"{n} {state}" for state, n in counts.items() if n)
