"""``rag dead-letters``: what could not be read, and what to do about it."""

from __future__ import annotations

import dataclasses
import time
from typing import Annotated, Any

import typer

from rag_platform.commands import console
from rag_platform.commands.ingest import run_ingest
from rag_platform.commands.ingest import show as show_summary
from rag_platform.errors import ConfigurationError
from rag_platform.ingestion.stages.snapshot import UNREAD, blob_key
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.dead_letters import DeadLetter

app = typer.Typer(no_args_is_help=True, help="Documents that could not be read, why, and what to do about them.")


@app.command("list")
@console.handles_errors
def list_letters(
    state: Annotated[str, typer.Option(help="open, replaying, resolved, discarded or all.")] = "open",
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    stage: Annotated[str | None, typer.Option(help="snapshot, parse, chunk or embed.")] = None,
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """List dead letters, the newest failure first."""
    if state not in ("open", "replaying", "resolved", "discarded", "all"):
        raise typer.BadParameter("--state is open, replaying, resolved, discarded or all")
    with Workbench(console.load_settings()) as bench:
        letters = bench.ledger.dead_letters.search(state=None if state == "all" else state, source=source, stage=stage)
    if json:
        console.emit([dataclasses.asdict(x) for x in letters])
        return
    if not letters:
        console.out.print("no dead letters" if state == "all" else f"no {state} dead letters")
        return
    console.show_table(
        f"{len(letters)} dead letters",
        ("id", "document", "why", "tries"),
        ((x.dead_letter_id[:8], f"{x.source}/{x.uri}", f"{x.stage}: {x.message}", x.attempts) for x in letters),
    )


@app.command("show")
@console.handles_errors
def show(
    dead_letter: Annotated[str, typer.Argument(help="Its id, or the beginning of it.")],
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Show one dead letter with all that is known, and where its bytes are."""
    with Workbench(console.load_settings()) as bench:
        letter = _find(bench, dead_letter)
        stored = None if letter.content_hash.startswith(UNREAD) else bench.objects.uri(blob_key(letter.content_hash))
    row: dict[str, Any] = dataclasses.asdict(letter) | {"stored_bytes": stored}
    if json:
        console.emit(row)
        return
    for name, value in row.items():
        shown = console.when(value) if name.endswith("_at") else value
        console.out.print(f"[bold]{name:<15}[/bold] {console.escape(str(shown))}", soft_wrap=True)


@app.command("replay")
@console.handles_errors
def replay(
    dead_letters: Annotated[list[str] | None, typer.Argument(help="Ids, or beginnings of them.")] = None,
    all_open: Annotated[bool, typer.Option("--all", help="Every open dead letter.")] = False,
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Try dead letters again, now."""
    if bool(dead_letters) == all_open:
        raise typer.BadParameter("give ids, or --all")
    settings = console.load_settings()
    with Workbench(settings) as bench:
        if all_open:
            chosen = bench.ledger.dead_letters.search(state="open")
        else:
            chosen = [_find(bench, x) for x in dead_letters or ()]
        reopened = [x.dead_letter_id for x in chosen if x.state == "discarded"]
        if reopened:
            bench.ledger.dead_letters.move(reopened, "open", among=("discarded",))
    if not chosen:
        console.out.print("no open dead letters") if not json else console.emit({"replayed": 0, "resolved": 0})
        return
    sources = sorted({x.source for x in chosen})
    summary, code = run_ingest(settings, sources, replay=[x.dead_letter_id for x in chosen], quiet=json)
    with Workbench(settings) as bench:
        now = [bench.ledger.dead_letters.get(x.dead_letter_id) for x in chosen]
    resolved = sum(x is not None and x.state == "resolved" for x in now)
    summary |= {"replayed": len(chosen), "resolved": resolved}
    if json:
        console.emit(summary)
    else:
        show_summary(summary, settings)
        console.out.print(f"[bold]replayed[/bold]   {len(chosen)}, of which {resolved} are resolved")
    raise typer.Exit(code)


@app.command("discard")
@console.handles_errors
def discard(
    dead_letters: Annotated[list[str], typer.Argument(help="Ids, or beginnings of them.")],
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Accept that these documents are not indexed: they are not tried again until they change."""
    with Workbench(console.load_settings()) as bench:
        chosen = [_find(bench, x).dead_letter_id for x in dead_letters]
        moved = bench.ledger.dead_letters.move(chosen, "discarded", among=("open", "replaying"))
    if json:
        console.emit({"discarded": moved})
    else:
        console.out.print(f"discarded {len(moved)} of {len(chosen)} at {console.when(time.time())}")


def _find(bench: Workbench, prefix: str) -> DeadLetter:
    letter = bench.ledger.dead_letters.get(prefix)
    if letter is None:
        raise ConfigurationError(f"no single dead letter {prefix!r}; see `rag dead-letters list --state all`")
    return letter
