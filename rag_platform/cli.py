"""``rag``: the command line. Commands live in ``commands/``; this file only lists them."""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperGroup

from rag_platform import __version__

COMMANDS = {
    "ingest": "ingest:ingest",
    "plan": "plan:plan",
    "rebuild": "rebuild:rebuild",
    "status": "status:status",
    "retrieve": "retrieve:retrieve",
    "ask": "ask:ask",
    "serve": "serve:serve",
    "doctor": "doctor:doctor",
    "demo": "demo:demo",
    "up": "up:up",
    "dead-letters": "dead_letters:app",
    "keys": "keys:app",
    "golden": "golden:app",
    "evaluate": "evaluate:evaluate",
    "index": "status:index_app",
    "config": "status:config_app",
    "sources": "status:sources_app",
    "release": "release:app",
}
"""Where in ``rag_platform.commands`` each command is, in the order of ``rag --help``."""


class _Commands(TyperGroup):
    """Imports a command when it is called: all of them together take seconds, each a fraction of that."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        found = getattr(importlib.import_module(f"rag_platform.commands.{module}"), name)
        if isinstance(found, typer.Typer):
            command: Any = typer.main.get_group(found)
        else:
            alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            alone.command(cmd_name)(found)
            command = typer.main.get_command(alone)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn documents into a search index that stays correct. All state lives in RAG_HOME (default ./.rag).",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """Run ``rag``."""
    app()


if __name__ == "__main__":
    main()
