"""What all commands share: settings, output for people or machines, errors and exit codes."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from rag_platform import telemetry
from rag_platform.errors import ConfigurationError, RagError
from rag_platform.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")

NAME_WIDTH = 32
"""Characters of a first column that is never broken into lines."""
EXIT_OK, EXIT_DEPENDENCY, EXIT_USAGE, EXIT_DEAD_LETTERS, EXIT_GUARD, EXIT_REFUSED = 0, 1, 2, 3, 4, 5

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

JSON_OPTION = typer.Option("--json", help="Print JSON for machines on standard output.")


def load_settings(**overrides: Any) -> Settings:
    """Read the settings, and pin RAG_HOME to an absolute path for every process that we start."""
    settings = Settings.from_env(**overrides)
    settings = dataclasses.replace(settings, home=settings.root)
    os.environ["RAG_HOME"] = str(settings.root)
    return settings


def handles_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn the platform's errors into one line on standard error and an exit code."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except ConfigurationError as e:
            fail(str(e), EXIT_USAGE)
        except RagError as e:
            fail(str(e), EXIT_DEPENDENCY)
        except KeyboardInterrupt:
            fail("interrupted; nothing is lost, run the same command again", 130)

    return wrapped


def fail(message: str, code: int) -> NoReturn:
    """Print an error and leave."""
    err.print(f"[red]error[/red]: {escape(message)}", soft_wrap=True)
    raise typer.Exit(code)


def emit(value: Any) -> None:
    """Print one JSON document on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    table = Table(title=title, title_justify="left", header_style="bold")
    cells = [[escape(str(cell)) for cell in row] for row in rows]
    for number, column in enumerate(columns):
        named = number == 0 and all(len(row[0]) <= NAME_WIDTH for row in cells)  # an id in two lines cannot be copied
        table.add_column(column, overflow="fold", no_wrap=named)
    for row in cells:
        table.add_row(*row)
    out.print(table)


@contextmanager
def progress_bars(enabled: bool) -> Iterator[None]:
    """Show a bar for every stage that reports progress: done, total, rate, time."""
    if not enabled or not err.is_terminal:
        with telemetry.listening(_log_progress() if enabled else _ignore):
            yield
        return
    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err) as progress:
        tasks: dict[str, TaskID] = {}
        started: dict[str, float] = {}

        def listen(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total, rate="")
                started[stage] = time.monotonic()
            seconds = time.monotonic() - started[stage]
            rate = f"{done / seconds:,.0f}/s" if seconds > 0.5 else ""
            progress.update(tasks[stage], completed=done, total=total, rate=rate)

        with telemetry.listening(listen):
            yield


def _log_progress() -> telemetry.ProgressListener:
    """Without a terminal: a line every ten seconds and at the end of each stage."""
    last: dict[str, float] = {}

    def listen(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total or now - last.get(stage, 0.0) >= 10:
            last[stage] = now
            err.print(f"{stage}: {done}/{total}")

    return listen


def _ignore(stage: str, done: int, total: int) -> None:
    return None


def escape(text: str) -> str:
    return text.replace("[", "\\[")


def number(value: float) -> int | float:
    """Show whole numbers as such."""
    return int(value) if float(value).is_integer() else round(float(value), 6)


def when(timestamp: float | None) -> str:
    """Show a time for people, in local time."""
    return "–" if timestamp is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(timestamp))


def project_root() -> Path:
    """Return the checkout that this program runs from."""
    return Path(__file__).resolve().parents[2]
