"""``rag doctor``: is this installation able to work, and if not, what helps?"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from rag_platform.backends.sources import open_source
from rag_platform.commands import console
from rag_platform.errors import RagError
from rag_platform.ingestion.source_registry import registered_sources
from rag_platform.ingestion.stages.audit import audit_index, repair
from rag_platform.ingestion.workbench import Workbench
from rag_platform.settings import Settings

MIN_FREE_BYTES = 2 * 1024**3

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, how it stands, and what to do."""

    check: str
    state: State
    detail: str
    cure: str = ""


Check = Callable[[Workbench], Iterator[Finding]]


@console.handles_errors
def doctor(
    deep: Annotated[
        bool, typer.Option("--deep", help="Also compare every chunk of the index with the ledger.")
    ] = False,
    fix: Annotated[
        bool,
        typer.Option(
            "--repair", help="With the comparison: mark wrong documents, so that `rag ingest` writes them again."
        ),
    ] = False,
    json: Annotated[bool, console.JSON_OPTION] = False,
) -> None:
    """Check the installation, the stores, the models and the sources; say the cure for what is wrong."""
    settings = console.load_settings()
    findings: list[Finding] = []
    with Workbench(settings) as bench:
        for name, check in CHECKS.items():
            findings += _guarded(name, check, bench)
        if deep or fix:
            findings += _guarded("index content", lambda b: _index(b, fix), bench)
    failed = any(f.state == "failed" for f in findings)
    if json:
        console.emit({"ok": not failed, "findings": [{s: getattr(f, s) for s in Finding.__slots__} for f in findings]})
    else:
        marks = {"ok": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "failed": "[red]✗[/red]"}
        for f in findings:
            console.out.print(f"{marks[f.state]} [bold]{f.check}[/bold]: {console.escape(f.detail)}")
            if f.cure:
                console.out.print(f"    → {console.escape(f.cure)}")
    raise typer.Exit(console.EXIT_DEPENDENCY if failed else console.EXIT_OK)


def _guarded(name: str, check: Check, bench: Workbench) -> list[Finding]:
    try:
        return list(check(bench))
    except RagError as e:
        return [Finding(name, "failed", str(e), "see docs/runbooks/ for this part")]
    except OSError as e:
        return [Finding(name, "failed", f"{type(e).__name__}: {e.strerror or e}")]


def _python(bench: Workbench) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", "ok", f"{version}, {bench.settings.cores} cores")


def _home(bench: Workbench) -> Iterator[Finding]:
    root = bench.settings.root
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=root):
        pass
    free = shutil.disk_usage(root).free
    state: State = "ok" if free >= MIN_FREE_BYTES else "warning"
    cure = "" if state == "ok" else "free some space, or set RAG_HOME to another disk; see docs/runbooks/disk-full.md"
    yield Finding("home", state, f"{root}, {free / 1024**3:.1f} GiB free", cure)


def _ledger(bench: Workbench) -> Iterator[Finding]:
    totals = bench.ledger.documents.totals(None)
    kind = bench.ledger.database.url.get_backend_name()
    yield Finding("ledger", "ok", f"{kind}, {totals['live']} live documents")


def _objects(bench: Workbench) -> Iterator[Finding]:
    key = f"doctor/{uuid.uuid4().hex}"
    bench.objects.put(key, b"ok")
    try:
        if bench.objects.get(key) != b"ok":
            yield Finding("object store", "failed", "did not return the bytes that were stored")
            return
    finally:
        bench.objects.delete([key])
    yield Finding("object store", "ok", bench.settings.resolved_object_store_url)


def _store(bench: Workbench) -> Iterator[Finding]:
    bench.run(bench.store.ping())
    yield Finding("vector store", "ok", f"{bench.settings.vector_store} at {bench.settings.resolved_index_url}")


def _embedder(bench: Workbench) -> Iterator[Finding]:
    bench.run(bench.embedder.ping())
    spec = bench.embedder.spec
    yield Finding("embedder", "ok", f"{spec.name}: {spec.model}, {spec.dimensions} dimensions")


def _parsers(bench: Workbench) -> Iterator[Finding]:
    from rag_platform.ingestion.parse import ParserPool

    page = b"<html><body><h1>Doctor</h1><p>A parser process answers.</p></body></html>"
    with ParserPool(bench.parse_limits, 1, scratch=bench.scratch) as pool:
        text = pool.parse(page, "doctor.html").text
    state: State = "ok" if "A parser process answers." in text else "failed"
    yield Finding("parsers", state, "a jailed parser process reads HTML" if state == "ok" else "HTML was read wrongly")


def _helpers(bench: Workbench) -> Iterator[Finding]:
    ocr = "built in (rapidocr)" if bench.settings.ocr == "auto" else "off by RAG_OCR"
    tesseract = shutil.which("tesseract")
    yield Finding("ocr", "ok", ocr + (f", tesseract at {tesseract}" if tesseract else ""))
    office = shutil.which("soffice") or shutil.which("libreoffice")
    yield Finding(
        "office converter",
        "ok",
        f"LibreOffice at {office}" if office else "no LibreOffice: .doc and .ppt are read by the built-in readers",
        "" if office else "optional: apt-get install libreoffice-writer libreoffice-impress",
    )


def _dagster(bench: Workbench) -> Iterator[Finding]:
    home = os.environ.get("DAGSTER_HOME")
    expected = str(bench.settings.dagster_home)
    if home and home != expected:
        yield Finding(
            "dagster", "warning", f"DAGSTER_HOME is {home}, but `rag` keeps its instance in {expected}",
            "unset DAGSTER_HOME, so that the UI shows what `rag` runs",
        )  # fmt: skip
    else:
        yield Finding("dagster", "ok", f"instance in {expected}")


def _sources(bench: Workbench) -> Iterator[Finding]:
    specs = registered_sources(bench.ledger, bench.settings)
    if not specs:
        yield Finding("sources", "warning", "none registered", "rag ingest --source DIR --name NAME")
    for spec in specs:
        try:
            count = len(open_source(spec, bench.settings).list())
            yield Finding(f"source {spec.name}", "ok", f"{spec.uri}, {count} documents")
        except RagError as e:
            yield Finding(f"source {spec.name}", "failed", str(e), "check the address and the access rights")


def _index(bench: Workbench, fix: bool) -> Iterator[Finding]:
    audit = audit_index(bench, force=True)
    if not audit.wrong:
        yield Finding("index content", "ok", f"{audit.index_chunks} chunks, equal to the ledger")
        return
    detail = f"{audit.ghosts} chunks too many, {audit.missing} missing, in {len(audit.wrong)} documents"
    if fix:
        repair(bench, audit.wrong)
        yield Finding("index content", "warning", detail + "; marked for rewriting", "run `rag ingest`")
    else:
        yield Finding("index content", "failed", detail, "rag doctor --repair, then rag ingest")


CHECKS: dict[str, Check] = {
    "python": _python,
    "home": _home,
    "ledger": _ledger,
    "object store": _objects,
    "vector store": _store,
    "embedder": _embedder,
    "parsers": _parsers,
    "helpers": _helpers,
    "dagster": _dagster,
    "sources": _sources,
}


def run_checks(settings: Settings) -> list[Finding]:
    """Run every check of the installation; for programs and tests."""
    with Workbench(settings) as bench:
        return [f for name, check in CHECKS.items() for f in _guarded(name, check, bench)]
