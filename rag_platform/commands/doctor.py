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

from rag_platform.backends.open_stores import needs_replica
from rag_platform.backends.sources import open_source
from rag_platform.commands import console
from rag_platform.commands.dagster_home import check_storage
from rag_platform.errors import ConfigurationError, RagError
from rag_platform.ingestion.source_registry import registered_sources
from rag_platform.ingestion.stages.audit import IndexAudit, audit_index, audit_replica, repair
from rag_platform.ingestion.stages.exchange import Target
from rag_platform.ingestion.stages.replica import lagging, replica_of
from rag_platform.ingestion.stages.stored import forget_lost, lost_segments
from rag_platform.ingestion.store_choice import disagreement
from rag_platform.ingestion.workbench import Workbench
from rag_platform.query.embedders import embedder_of, fingerprint_of
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
        bool,
        typer.Option(
            "--deep", help="Also compare every chunk of the index, and every stored segment, with the ledger."
        ),
    ] = False,
    fix: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="With the comparison: mark wrong documents, so that `rag ingest` writes them again, or makes again what the object store has lost.",
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
            findings += _guarded("stored results", lambda b: _stored(b, fix), bench)
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
    name = bench.store_name
    where = f" at {bench.settings.resolved_index_url}" if name == "lancedb" else ""
    yield Finding("vector store", "ok", f"{name}{where}")


def _serving(bench: Workbench) -> Iterator[Finding]:
    serving = bench.ledger.releases.serving()
    if serving is None:
        return
    if serving.store != bench.store_name:
        store = bench.of_release(serving).store
        bench.run(store.ping())
    note = disagreement(bench)
    if note is None:
        yield Finding("serving release", "ok", f"{serving.release_id} in {serving.store}")
    else:
        what, _, cure = note.partition("; ")
        yield Finding("serving release", "warning", what, cure)


def _replica(bench: Workbench) -> Iterator[Finding]:
    serving = bench.ledger.releases.serving()
    view = bench if serving is None else bench.of_release(serving)
    if not needs_replica(view.store.capabilities):
        return
    target = replica_of(view)
    if target is None:
        yield Finding(
            "keyword replica", "warning", "RAG_KEYWORD_REPLICA_URL is none: nothing answers while the store is down"
        )
        return
    bench.run(target.store.ping())
    lag = len(lagging(view, target))
    shared = bench.settings.keyword_replica_url is not None or bench.ledger.database.is_sqlite
    if not shared:
        yield Finding(
            "keyword replica",
            "warning",
            "the ledger is shared, but the replica is in RAG_HOME of one machine",
            "set RAG_KEYWORD_REPLICA_URL to an object-store URL that every machine reaches",
        )
    state: State = "warning" if lag else "ok"
    detail = f"{lag} documents behind the index" if lag else "holds what the index holds"
    yield Finding("keyword replica", state, detail, "run `rag ingest`" if lag else "")


def _stored(bench: Workbench, fix: bool) -> Iterator[Finding]:
    lost = lost_segments(bench)
    if not lost:
        yield Finding("stored results", "ok", "every segment is in the object store")
        return
    detail = f"the object store has lost {len(lost)} segments with {sum(s.rows for s in lost)} rows"
    if fix:
        count = forget_lost(bench)
        yield Finding("stored results", "warning", f"{detail}; {count} documents are made again", "run `rag ingest`")
    else:
        yield Finding(
            "stored results", "failed", detail,
            "restore the object store from a backup, or rag doctor --repair, then rag ingest",
        )  # fmt: skip


def _embedder(bench: Workbench) -> Iterator[Finding]:
    bench.run(bench.embedder.ping())
    spec = bench.embedder.spec
    yield Finding("embedder", "ok", f"{spec.name}: {spec.model}, {spec.dimensions} dimensions")


def _serving_embedder(bench: Workbench) -> Iterator[Finding]:
    serving = bench.ledger.releases.serving()
    if serving is None or fingerprint_of(serving) == bench.embedder.spec.fingerprint:
        return
    try:
        embedder = embedder_of(serving, bench.settings)
    except ConfigurationError as e:
        yield Finding("serving embedder", "failed", str(e), "until then questions are answered by words alone")
        return
    try:
        bench.run(embedder.ping())
    finally:
        bench.run(embedder.aclose())
    spec = embedder.spec
    yield Finding(
        "serving embedder",
        "ok",
        f"questions are embedded by {spec.name}: {spec.model}, {spec.dimensions} dimensions, as {serving.release_id} was",
    )


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
    url = check_storage(bench.settings)
    where = "SQLite in the instance" if url is None else f"PostgreSQL at {url.host}, database {url.database}"
    yield Finding("dagster storage", "ok", where)


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
    serving = bench.ledger.releases.serving()
    view = bench if serving is None else bench.of_release(serving)
    yield _content("index content", view, audit_index(view, force=True), None, fix)
    replica = audit_replica(view)
    if replica is not None:
        yield _content("replica content", view, replica, replica_of(view), fix)


def _content(check: str, bench: Workbench, audit: IndexAudit, target: Target | None, fix: bool) -> Finding:
    if not audit.wrong:
        return Finding(check, "ok", f"{audit.index_chunks} chunks, equal to the ledger")
    detail = f"{audit.ghosts} chunks too many, {audit.missing} missing, in {len(audit.wrong)} documents"
    if fix:
        repair(bench, audit.wrong, target)
        return Finding(check, "warning", detail + "; marked for rewriting", "run `rag ingest`")
    return Finding(check, "failed", detail, "rag doctor --repair, then rag ingest; if they are many, rag rebuild")


CHECKS: dict[str, Check] = {
    "python": _python,
    "home": _home,
    "ledger": _ledger,
    "object store": _objects,
    "vector store": _store,
    "serving release": _serving,
    "keyword replica": _replica,
    "embedder": _embedder,
    "serving embedder": _serving_embedder,
    "parsers": _parsers,
    "helpers": _helpers,
    "dagster": _dagster,
    "sources": _sources,
}


def run_checks(settings: Settings) -> list[Finding]:
    """Run every check of the installation; for programs and tests."""
    with Workbench(settings) as bench:
        return [f for name, check in CHECKS.items() for f in _guarded(name, check, bench)]
