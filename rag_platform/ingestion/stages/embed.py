"""embeddings: every new chunk text gets a vector, once, whatever document it stands in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa

from rag_platform import telemetry
from rag_platform.errors import DependencyError, DocumentError
from rag_platform.ingestion.embed import embed_texts
from rag_platform.ingestion.stages.backlog import Task, backlog
from rag_platform.ingestion.stages.quarantine import quarantine
from rag_platform.ingestion.stages.report import StageReport
from rag_platform.ingestion.workbench import Workbench
from rag_platform.records import embedding_schema

WINDOW = 4096
"""Texts embedded between two commits: what a crash can cost, and what memory must hold."""


def embed(bench: Workbench, buckets: Collection[str], *, run_id: str, report: StageReport | None = None) -> StageReport:
    """Embed the new texts of the buckets; ``report`` is filled also when an outage is raised.

    Raises:
        DependencyError: the embedder failed. What was embedded before is committed; every document
            that is still waiting stays as it was and is served as it was.
    """
    report = report or StageReport("embed")
    todo = {bucket: _wanted(bench, bucket) for bucket in buckets}
    total = _new_texts(bench, {key for wanted in todo.values() for key in wanted})
    done = 0
    for bucket in (b for b in buckets if todo[b]):
        with bench.ledger.database.lock(f"embed-{bucket}"), report.timing(bucket):
            done = _embed_bucket(bench, bucket, run_id, report, done, total)
    return report


def _wanted(bench: Workbench, bucket: str) -> dict[str, list[Task]]:
    """Return chunk-set key → tasks, for sets that exist and lack vectors."""
    by_key: dict[str, list[Task]] = {}
    for task in backlog(bench, bucket).tasks:
        by_key.setdefault(task.chunk_set_key, []).append(task)
    chunked = bench.ledger.artifacts.find("chunk", by_key)
    complete = bench.ledger.artifacts.embedded(bench.pipeline.embedder.fingerprint, chunked)
    return {k: v for k, v in by_key.items() if k in chunked and k not in complete}


def _new_texts(bench: Workbench, chunk_sets: Collection[str]) -> int:
    """Count the texts to embed, for the progress display; needs only the key column."""
    keys: set[str] = set()
    for table in bench.segments.read("chunk", chunk_sets, columns=("chunk_set_key", "embedding_key")):
        keys.update(table["embedding_key"].to_pylist())
    return len(keys) - len(bench.ledger.artifacts.find("embed", keys))


def _embed_bucket(bench: Workbench, bucket: str, run_id: str, report: StageReport, done: int, total: int) -> int:
    wanted = _wanted(bench, bucket)
    sets: dict[str, set[str]] = {}
    texts: dict[str, tuple[str, int]] = {}
    columns = ("chunk_set_key", "embedding_key", "token_count", "text")
    for table in bench.segments.read("chunk", wanted, columns=columns):
        rows = (table[name].to_pylist() for name in columns)
        for set_key, key, tokens, text in zip(*rows, strict=True):
            sets.setdefault(set_key, set()).add(key)
            texts.setdefault(key, (text, tokens))
    known = set(bench.ledger.artifacts.find("embed", texts))
    report.add(bucket, reused=len(known))
    waiting = sorted((key for key in texts if key not in known), key=lambda k: (len(texts[k][0]), k))
    refused: dict[str, DocumentError] = {}
    outage: DependencyError | None = None
    # One window a time, dealt out so that each holds short and long texts: equal work, equal memory.
    windows = max(1, -(-len(waiting) // WINDOW))
    for number in range(windows):
        window = waiting[number::windows]
        if not window or outage is not None:
            break
        before = done

        def progressed(vectors: Mapping[str, np.ndarray], before: int = before) -> None:
            nonlocal done
            done += len(vectors)
            telemetry.report_progress("embed", done, max(total, done))

        outcome = bench.run(
            embed_texts(
                bench.embedder,
                [(key, texts[key][0]) for key in window],
                timeout_s=bench.settings.embed_timeout_s,
                on_batch=progressed,
            )
        )
        _commit(bench, outcome.vectors, {k: texts[k][1] for k in outcome.vectors})
        known.update(outcome.vectors)
        refused.update(outcome.refused)
        outage = outcome.outage
        price = bench.pipeline.embedder.usd_per_million_tokens
        report.add(bucket, embedded=len(outcome.vectors), tokens=outcome.tokens, calls=outcome.calls)
        if price is not None:
            report.add(bucket, usd=outcome.tokens * price / 1e6)
    _finish(bench, wanted, sets, known, refused, run_id, report)
    if outage is not None:
        raise outage
    return done


def _commit(bench: Workbench, vectors: Mapping[str, np.ndarray], tokens: Mapping[str, int]) -> None:
    if not vectors:
        return
    keys = list(vectors)
    matrix = np.stack([vectors[k] for k in keys]).astype(np.float32, copy=False)
    dimensions = matrix.shape[1]
    column = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), dimensions)
    table = pa.table([pa.array(keys), column], schema=embedding_schema(dimensions))
    bench.segments.write("embed", table, [(k, 1, tokens[k]) for k in keys])


def _finish(
    bench: Workbench,
    wanted: Mapping[str, list[Task]],
    sets: Mapping[str, set[str]],
    known: Collection[str],
    refused: Mapping[str, DocumentError],
    run_id: str,
    report: StageReport,
) -> None:
    """Mark complete sets, and quarantine the documents that hold a refused text."""
    have = set(known)
    complete = [key for key, members in sets.items() if members <= have]
    if complete:
        bench.ledger.artifacts.mark_embedded(bench.pipeline.embedder.fingerprint, complete)
    failures: list[tuple[Task, DocumentError]] = []
    for key, members in sets.items():
        errors = [refused[m] for m in members if m in refused]
        if errors:
            failures += [(task, errors[0]) for task in wanted[key]]
    quarantine(bench, report, failures, run_id)
    counted = Counter(task.document.bucket for task, _ in failures)
    for bucket, count in counted.items():
        report.add(bucket, refused_documents=count)
