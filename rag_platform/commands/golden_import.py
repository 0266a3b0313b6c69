"""``rag golden import``: golden sets out of public question sets."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from rag_platform.commands import console
from rag_platform.errors import ConfigurationError
from rag_platform.evaluation import imports
from rag_platform.evaluation.corpus import SpanFinding, check_spans, live_documents
from rag_platform.evaluation.golden import GoldenCase, GoldenSet, save, set_path
from rag_platform.ingestion.workbench import Workbench


@console.handles_errors
def import_set(
    path: Annotated[Path, typer.Argument(help="A SQuAD file (JSON), or a BEIR folder (corpus, queries, qrels).")],
    set_name: Annotated[str | None, typer.Option("--set", help="Name of the new set; default: the file's.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many questions, chosen at random.")] = None,
    seed: Annotated[int, typer.Option(help="Which ones; the same seed chooses the same.")] = 0,
    documents: Annotated[
        Path | None, typer.Option(help="Write the set's documents into this folder, one text file each.")
    ] = None,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Keep questions whose quotes are not in the corpus.")
    ] = False,
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Make a golden set of a SQuAD-style or BEIR-style question set.

    The quotes are looked up in the corpus, wherever they stand; questions whose quotes are not there are left out.
    With --documents the corpus need not be there yet: all questions are kept, and the documents written.
    """
    settings = console.load_settings()
    name = set_name or path.stem
    target = set_path(settings, name)
    if target.exists():
        raise ConfigurationError(f"{target} exists; choose another name with --set, or remove it first")
    imported = imports.read(path, limit=limit, seed=seed)
    cases, skipped = imported.cases, Counter(imported.skipped)
    if not cases:
        raise ConfigurationError(f"{path} holds no question with an answer in its documents")
    if documents is not None:
        _write_documents(documents, imported)
    elif not unchecked:
        with Workbench(settings) as bench, console.progress_bars(not json):
            kept = _relocated(cases, check_spans(bench, cases) if live_documents(bench) else [])
        if not kept:
            raise ConfigurationError(
                f"no quote of {path} is in the corpus: ingest its documents first (--documents FOLDER writes them), "
                "or keep the questions all the same with --unchecked"
            )
        skipped["whose quotes are not in the corpus, or not for its reader"] += len(cases) - len(kept)
        cases = kept
    save(target, GoldenSet(name, cases))
    if json:
        written = len(imported.documents) if documents else 0
        console.emit({"set": name, "path": str(target), "cases": len(cases), "skipped": +skipped, "documents": written})
        return
    o = console.out
    o.print(f"{len(cases)} cases in {target}", soft_wrap=True)
    for reason, number in (+skipped).items():
        o.print(f"left out: {number} questions {reason}")
    if documents is not None:
        o.print(f"{len(imported.documents)} documents in {documents}. Next:", soft_wrap=True)
        o.print(f"rag ingest --source {documents} --name {name}", soft_wrap=True)
        o.print(f"rag golden check {name}", soft_wrap=True)


def _relocated(cases: Sequence[GoldenCase], findings: Sequence[SpanFinding]) -> tuple[GoldenCase, ...]:
    """Return the cases whose spans are all in the corpus, with the addresses that they have there."""
    at = {(f.case_id, f.span): f.now or f.span for f in findings if f.state in ("found", "moved") and not f.detail}
    kept = []
    for case in cases:
        spans = [at.get((case.case_id, span)) for span in case.spans]
        known = tuple(dict.fromkeys(span for span in spans if span is not None))
        if findings and None not in spans:
            kept.append(dataclasses.replace(case, spans=known))
    return tuple(kept)


def _write_documents(folder: Path, imported: imports.Imported) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"--documents: {folder} is not an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    for uri, text in imported.documents.items():
        (folder / uri).write_text(text, encoding="utf-8")
