"""``rag demo``: ingest the project's own documentation, then ask it three questions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rag_platform.commands import console
from rag_platform.commands.ingest import register, run_ingest, show
from rag_platform.commands.retrieve import open_retriever
from rag_platform.commands.retrieve import show as show_passages
from rag_platform.errors import ConfigurationError
from rag_platform.ingestion.workbench import Workbench
from rag_platform.records import LOCAL_OPERATOR

SOURCE = "docs"
QUESTIONS = (
    "What happens to a document whose parser crashes?",
    "How long did the restore drill at Harbour take?",
    "Who keeps the key of machine room B-14?",
)


@console.handles_errors
def demo(
    docs: Annotated[Path | None, typer.Option(help="Folder to ingest; default: this project's docs/.")] = None,
) -> None:
    """Ingest this project's docs/ (Markdown, PDF, DOCX, PPTX, XLSX, HTML, EML, a scan, a few broken files) and
    ask three questions."""
    folder = docs or console.project_root() / "docs"
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} does not exist: run the demo from a checkout, or give --docs")
    settings = console.load_settings()
    o = console.out
    o.print(f"[bold]1. Ingest[/bold] {folder} into {settings.root}")
    sources = register(settings, str(folder), SOURCE, exclude=["**/*.py"])
    summary, code = run_ingest(settings, sources)
    show(summary, settings)
    with Workbench(settings) as bench:
        letters = bench.ledger.dead_letters.search(state="open")
    o.print(f"\n[bold]2. Dead letters[/bold]: {len(letters)} broken files did not stop the others")
    if letters:
        console.show_table("", ("document", "why"), ((x.uri, f"{x.stage}: {x.message}") for x in letters))
    o.print("\n[bold]3. Ask[/bold]")
    with Workbench(settings) as bench:
        index, retriever = open_retriever(bench)
        for question in QUESTIONS:
            o.print(f'\n[bold green]$ rag retrieve "{question}" -k 2[/bold green]')
            show_passages(
                bench.run(retriever.retrieve(index, question, principal=LOCAL_OPERATOR, k=2, mode="hybrid", where=None))
            )
    o.print("\nNext: `make up` shows all of this in the Dagster UI; `rag ingest --source YOUR_FOLDER --name yours`.")
    raise typer.Exit(code)
