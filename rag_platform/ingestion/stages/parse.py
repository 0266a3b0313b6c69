"""parsed_documents: raw bytes become normalised text with element spans."""

from __future__ import annotations

import time
from collections.abc import Collection
from functools import partial
from pathlib import PurePosixPath

import pyarrow as pa

from rag_platform import telemetry
from rag_platform.errors import DependencyError, DocumentError
from rag_platform.ingestion.parse import ParserPool
from rag_platform.ingestion.stages.backlog import Task, backlog
from rag_platform.ingestion.stages.quarantine import quarantine, settle
from rag_platform.ingestion.stages.report import StageReport
from rag_platform.ingestion.stages.snapshot import UNREAD, blob_key
from rag_platform.ingestion.workbench import Workbench
from rag_platform.records import PARSED_SCHEMA, ParsedDocument

FLUSH_CHARS = 8_000_000
FLUSH_DOCUMENTS = 512
FLUSH_S = 60.0


def parse(bench: Workbench, buckets: Collection[str], *, run_id: str) -> StageReport:
    """Parse every document of the buckets whose bytes have not been parsed by this pipeline."""
    report = StageReport("parse")
    todo = {bucket: _wanted(bench, bucket) for bucket in buckets}
    total = sum(map(len, todo.values()))
    if total == 0:
        for bucket in buckets:
            settle(bench, bucket, backlog(bench, bucket))
        return report
    done = 0
    with ParserPool(bench.parse_limits, bench.parse_workers, scratch=bench.scratch) as pool:
        for bucket in buckets:
            with bench.ledger.database.lock(f"parse-{bucket}"), report.timing(bucket):
                settle(bench, bucket, backlog(bench, bucket))
                done = _parse_bucket(bench, pool, bucket, run_id, report, done, total)
    return report


def _wanted(bench: Workbench, bucket: str) -> dict[str, list[Task]]:
    """Return parse key → the tasks that need that parse; equal bytes are parsed once."""
    by_key: dict[str, list[Task]] = {}
    for task in backlog(bench, bucket).tasks:
        if not task.document.content_hash.startswith(UNREAD):
            by_key.setdefault(task.parse_key, []).append(task)
    known = bench.ledger.artifacts.find("parse", by_key)
    return {k: v for k, v in by_key.items() if k not in known}


def _parse_bucket(
    bench: Workbench, pool: ParserPool, bucket: str, run_id: str, report: StageReport, done: int, total: int
) -> int:
    by_key = _wanted(bench, bucket)  # again: another run may have done it while we waited for the lock
    rows: list[tuple[str, str, ParsedDocument, float]] = []
    failures: list[tuple[Task, DocumentError]] = []
    flushed = time.monotonic()

    def flush() -> None:
        nonlocal flushed
        if rows:
            table = pa.Table.from_pylist([_row(*r) for r in rows], schema=PARSED_SCHEMA)
            bench.segments.write("parse", table, [(r[0], len(r[2].text), 0) for r in rows])
        quarantine(bench, report, failures, run_id)
        rows.clear()
        failures.clear()
        flushed = time.monotonic()

    jobs = ((key, tasks[0]) for key, tasks in by_key.items())
    items = (
        (
            key,
            PurePosixPath(task.document.uri).name,
            partial(_bytes, bench, task),
        )
        for key, task in jobs
    )
    for key, result, seconds in pool.parse_many(items):
        tasks = by_key[key]
        report.took(seconds, tasks[0].document.uri)
        if isinstance(result, DocumentError):
            failures += [(task, result) for task in tasks]
        else:
            rows.append((key, tasks[0].document.content_hash, result, seconds))
            report.add(
                bucket,
                parsed=1,
                characters=len(result.text),
                pages=result.page_count or 0,
                ocr_pages=len(result.ocr_pages),
                warnings=len(result.warnings),
            )
        done += 1
        telemetry.report_progress("parse", done, total)
        if (
            len(rows) + len(failures) >= FLUSH_DOCUMENTS
            or sum(len(r[2].text) for r in rows) >= FLUSH_CHARS
            or time.monotonic() - flushed > FLUSH_S
        ):
            flush()
    flush()
    return done


def _bytes(bench: Workbench, task: Task) -> bytes:
    try:
        return bench.objects.get(blob_key(task.document.content_hash))
    except KeyError as e:
        message = f"the stored bytes of {task.document.uri!r} are missing: restore the object store"
        raise DependencyError("object store", message, retryable=False) from e


def _row(key: str, content_hash: str, document: ParsedDocument, seconds: float) -> dict[str, object]:
    return {
        "parse_key": key,
        "content_hash": content_hash,
        "text": document.text,
        "elements": [
            {"kind": e.kind, "start": e.start, "end": e.end, "page": e.page, "level": e.level}
            for e in document.elements
        ],
        "mime_type": document.mime_type,
        "title": document.title,
        "language": document.language,
        "page_count": document.page_count,
        "ocr_pages": list(document.ocr_pages),
        "parser": document.parser,
        "warnings": list(document.warnings),
        "seconds": seconds,
    }
