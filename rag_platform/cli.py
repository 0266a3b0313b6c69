"""``rag``: the command line. Commands live in ``commands/``; this file only lists them."""

from __future__ import annotations

import typer

from rag_platform import __version__
from rag_platform.commands import ask, dead_letters, demo, doctor, ingest, keys, plan, retrieve, serve, status, up

app = typer.Typer(
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


app.command("ingest")(ingest.ingest)
app.command("plan")(plan.plan)
app.command("status")(status.status)
app.command("retrieve")(retrieve.retrieve)
app.command("ask")(ask.ask)
app.command("serve")(serve.serve)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)
app.command("up")(up.up)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(keys.app, name="keys")
app.add_typer(status.index_app, name="index")
app.add_typer(status.config_app, name="config")
app.add_typer(status.sources_app, name="sources")
app.add_typer(status.release_app, name="release")


def main() -> None:
    """Run ``rag``."""
    app()


if __name__ == "__main__":
    main()
