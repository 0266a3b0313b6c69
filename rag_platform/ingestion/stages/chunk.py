"""chunks: parsed text becomes spans of a size that the embedder takes."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from rag_platform import telemetry
from rag_platform.errors import DocumentError, EmptyDocument
from rag_platform.ingestion.chunk import build_chunker, chunk_document
from rag_platform.ingestion.stages.backlog import Task, backlog
from rag_platform.ingestion.stages.quarantine import quarantine
from rag_platform.ingestion.stages.report import StageReport
from rag_platform.ingestion.workbench import Workbench
from rag_platform.records import CHUNK_SCHEMA, ChunkSpan, Element, ParsedDocument

WINDOW = 64
"""Documents chunked at a time; bounds memory."""
FLUSH_CHUNKS = 8192


def chunk(bench: Workbench, buckets: Collection[str], *, run_id: str) -> StageReport:
    """Chunk every parsed document of the buckets that this pipeline has not chunked."""
    report = StageReport("chunk")
    todo = {bucket: _wanted(bench, bucket) for bucket in buckets}
    total = sum(map(len, todo.values()))
    done = 0
    for bucket in (b for b in buckets if todo[b]):
        with bench.ledger.database.lock(f"chunk-{bucket}"), report.timing(bucket):
            done = _chunk_bucket(bench, bucket, run_id, report, done, total)
    return report


def _wanted(bench: Workbench, bucket: str) -> dict[str, list[Task]]:
    """Return chunk-set key → the tasks that need it and whose parse exists."""
    by_key: dict[str, list[Task]] = {}
    for task in backlog(bench, bucket).tasks:
        by_key.setdefault(task.chunk_set_key, []).append(task)
    artifacts = bench.ledger.artifacts
    known = artifacts.find("chunk", by_key)
    missing = {k: v for k, v in by_key.items() if k not in known}
    parsed = artifacts.find("parse", (v[0].parse_key for v in missing.values()))
    return {k: v for k, v in missing.items() if v[0].parse_key in parsed}


def _chunk_bucket(bench: Workbench, bucket: str, run_id: str, report: StageReport, done: int, total: int) -> int:
    by_key = _wanted(bench, bucket)
    by_parse = {tasks[0].parse_key: (key, tasks) for key, tasks in by_key.items()}
    chunker = build_chunker(bench.settings, bench.embedder)
    tokenizer = bench.embedder.tokenizer
    columns: dict[str, list[object]] = {name: [] for name in CHUNK_SCHEMA.names}
    entries: list[tuple[str, int, int]] = []

    def flush() -> None:
        if entries:
            bench.segments.write("chunk", pa.table(columns, schema=CHUNK_SCHEMA), list(entries))
        entries.clear()
        for values in columns.values():
            values.clear()

    def work(document: ParsedDocument) -> list[ChunkSpan] | DocumentError:
        try:
            spans = chunk_document(document, chunker, tokenizer)
            return spans or EmptyDocument("the document has no text to index")
        except DocumentError as e:
            return e

    parsed = stored_documents(bench, list(by_parse))
    # Tokenizing releases the interpreter lock, so threads use the cores.
    with ThreadPoolExecutor(bench.settings.cores, thread_name_prefix="chunk") as pool:
        while window := list(itertools.islice(parsed, WINDOW)):
            for (parse_key, document), spans in zip(window, pool.map(work, (d for _, d in window)), strict=True):
                key, tasks = by_parse[parse_key]
                done += 1
                if isinstance(spans, DocumentError):
                    quarantine(bench, report, [(task, spans) for task in tasks], run_id)
                    continue
                _append(columns, key, document, spans, bench)
                tokens = sum(s.token_count for s in spans)
                entries.append((key, len(spans), tokens))
                report.add(bucket, chunked_documents=1, chunks=len(spans), tokens=tokens)
            telemetry.report_progress("chunk", done, total)
            if len(columns["ordinal"]) >= FLUSH_CHUNKS:
                flush()
    flush()
    return done


def _append(
    columns: dict[str, list[object]], key: str, document: ParsedDocument, spans: list[ChunkSpan], bench: Workbench
) -> None:
    for span in spans:
        text = document.text[span.start : span.end]
        columns["chunk_set_key"].append(key)
        columns["ordinal"].append(span.ordinal)
        columns["start"].append(span.start)
        columns["end"].append(span.end)
        columns["page"].append(span.page)
        columns["heading_path"].append(" › ".join(span.heading_path))
        columns["token_count"].append(span.token_count)
        columns["embedding_key"].append(bench.pipeline.embedding_key(text))
        columns["title"].append(document.title)
        columns["mime_type"].append(document.mime_type)
        columns["language"].append(document.language)
        columns["text"].append(text)


def stored_documents(bench: Workbench, keys: list[str]) -> Iterator[tuple[str, ParsedDocument]]:
    """Stream parsed documents; a key that two segments hold comes once."""
    seen: set[str] = set()
    for table in bench.segments.read("parse", keys):
        for batch in table.to_batches(max_chunksize=16):
            for row in batch.to_pylist():
                if row["parse_key"] not in seen:
                    seen.add(row["parse_key"])
                    yield row["parse_key"], parsed_document(row)


def parsed_document(row: dict[str, object]) -> ParsedDocument:
    """Rebuild a parsed document from its stored row."""
    fields = {k: row[k] for k in ("text", "mime_type", "title", "language", "page_count", "parser")}
    elements = tuple(Element(**e) for e in row["elements"])  # type: ignore[attr-defined]
    return ParsedDocument(
        elements=elements,
        ocr_pages=tuple(row["ocr_pages"]),  # type: ignore[arg-type]
        warnings=tuple(row["warnings"]),  # type: ignore[arg-type]
        **fields,  # type: ignore[arg-type]
    )
