"""``rag demo``: ingest the project's own documentation, then ask it three questions over HTTP, twice."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from rag_platform.commands import console
from rag_platform.commands.ask import show as show_answer
from rag_platform.commands.ingest import register, run_ingest, show
from rag_platform.commands.up import API_HOST, free_port, start_api, stop, wait_until_up
from rag_platform.errors import ConfigurationError
from rag_platform.evaluation.shipped import DEMO, install_demo_set
from rag_platform.ingestion.workbench import Workbench
from rag_platform.query.answer import Answer
from rag_platform.records import SourceSpec

SOURCE = "docs"
RESTRICTED, RESTRICTED_ACL = "personnel", ("hr",)
"""A folder of docs/ that is a source of its own: only readers in the group hr find its documents."""
QUESTIONS = (
    "What happens to a document whose parser crashes?",
    "How long did the restore drill at Harbour take?",
    "Who keeps the key of machine room B-14?",
)


@console.handles_errors
def demo(
    docs: Annotated[Path | None, typer.Option(help="Folder to ingest; default: this project's docs/.")] = None,
) -> None:
    """Ingest this project's docs/ (Markdown, PDF, DOCX, PPTX, XLSX, HTML, EML, a scan, a few broken files), and a
    folder that only the group hr may read, and ask three questions over HTTP, twice."""
    folder = docs or console.project_root() / "docs"
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} does not exist: run the demo from a checkout, or give --docs")
    settings = console.load_settings()
    o = console.out
    o.print(f"[bold]1. Ingest[/bold] {folder} into {settings.root}")
    specs = demo_sources(folder, restricted=docs is None)
    for spec in specs:
        register(settings, spec.uri, spec.name, exclude=list(spec.exclude), acl=list(spec.acl))
    summary, code = run_ingest(settings, [spec.name for spec in specs])
    show(summary, settings)
    if docs is None:
        install_demo_set(settings)
    with Workbench(settings) as bench:
        letters = bench.ledger.dead_letters.search(state="open")
    o.print(f"\n[bold]2. Dead letters[/bold]: {len(letters)} broken files did not stop the others")
    if letters:
        console.show_table("", ("document", "why"), ((x.uri, f"{x.stage}: {x.message}") for x in letters))
    o.print("\n[bold]3. Ask[/bold], over HTTP: the query API is started for that")
    port = free_port(API_HOST)
    api = start_api(port)
    try:
        wait_until_up("the query API", api, f"http://{API_HOST}:{port}/health/ready")
        for again in (False, True):
            if again:
                o.print("\nThe same three again, from the cache:")
            for question in QUESTIONS:
                body = json.dumps({"question": question})
                o.print(
                    f"\n[bold green]$ curl http://{API_HOST}:{port}/v1/query -H 'Content-Type: application/json' "
                    f"-d '{console.escape(body)}'[/bold green]"
                )
                show_answer(_post(f"http://{API_HOST}:{port}/v1/query", body))
    finally:
        stop(api)
    o.print(
        "\nNext: `make up` shows all of this in the Dagster UI and opens a playground for questions; "
        "`rag ingest --source YOUR_FOLDER --name yours`."
    )
    if docs is None:
        o.print(f"`rag evaluate --golden {DEMO}` asks it 90 questions whose answers are known.")
    raise typer.Exit(code)


def demo_sources(docs: Path, *, restricted: bool = True) -> list[SourceSpec]:
    """Return the sources of the demo: ``docs``, and (``restricted``) the folder in it that is for the group hr."""
    sources = [SourceSpec(SOURCE, str(docs), exclude=("**/*.py", *((f"{RESTRICTED}/**",) if restricted else ())))]
    if restricted and (docs / RESTRICTED).is_dir():
        sources.append(SourceSpec(RESTRICTED, str(docs / RESTRICTED), acl=RESTRICTED_ACL))
    return sources


def _post(url: str, body: str) -> Answer:
    request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return msgspec.json.decode(response.read(), type=Answer)
