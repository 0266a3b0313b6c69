"""One day of the query log as Parquet files, for whoever analyses traffic with other tools.

Without texts: questions, answers and comments stay in the ledger, where RAG_QUERY_LOG_DAYS ends them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rag_platform.backends.object_stores.base import ObjectStore
from rag_platform.ledger import Ledger
from rag_platform.ledger.query_log import QueryLogRow

DAY_S = 86_400.0
ROWS_PER_FILE = 100_000
FOLDER = "query_log"

SCHEMA = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("tenant", pa.string(), nullable=False),
        pa.field("key_id", pa.string()),
        pa.field("groups", pa.list_(pa.string()), nullable=False),
        pa.field("question_hash", pa.string(), nullable=False),
        pa.field("release_id", pa.string()),
        pa.field("profile", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("mode", pa.string(), nullable=False),
        pa.field("cache", pa.string(), nullable=False),
        pa.field("generator", pa.string(), nullable=False),
        pa.field("refused", pa.bool_(), nullable=False),
        pa.field("degraded", pa.list_(pa.string()), nullable=False),
        pa.field("document_ids", pa.list_(pa.string()), nullable=False),
        pa.field("cited_document_ids", pa.list_(pa.string()), nullable=False),
        pa.field("total_ms", pa.float64(), nullable=False),
        pa.field("timings_ms", pa.string(), nullable=False),
        pa.field("prompt_tokens", pa.int64(), nullable=False),
        pa.field("completion_tokens", pa.int64(), nullable=False),
        pa.field("embedding_tokens", pa.int64(), nullable=False),
        pa.field("cost_usd", pa.float64()),
        pa.field("trace_id", pa.string()),
        pa.field("thumbs_up", pa.int32(), nullable=False),
        pa.field("thumbs_down", pa.int32(), nullable=False),
    ]
)
"""``at`` in microseconds, UTC; ``degraded`` as stage:reason; ``timings_ms`` a JSON object of milliseconds by stage."""


@dataclass(frozen=True, slots=True)
class DayOfQuestions:
    """What a day's files hold.

    Attributes:
        p50_ms, p95_ms: time of an answer in milliseconds; None without one.
        usd: of the answers with a known price.
        degraded: how often each stage:reason was missing.
    """

    uri: str
    files: int
    rows: int
    failed: int
    refused: int
    degraded_answers: int
    cached: int
    p50_ms: float | None
    p95_ms: float | None
    usd: float
    tokens: int
    thumbs_up: int
    thumbs_down: int
    degraded: tuple[tuple[str, int], ...]


def export_day(ledger: Ledger, objects: ObjectStore, day: str, start: float) -> DayOfQuestions:
    """Write the questions of one day; what an earlier export of it wrote is replaced.

    Args:
        day: its name, YYYY-MM-DD.
        start: its first second (UTC), since the epoch.

    Raises:
        DependencyError: the ledger or the object store failed; the next export writes all of it again.
    """
    folder = f"{FOLDER}/day={day}"
    counts: Counter[str] = Counter()
    degraded: Counter[str] = Counter()
    times: list[float] = []
    usd = 0.0
    keys: list[str] = []
    for number, rows in enumerate(_files(ledger, start)):
        thumbs: dict[str, list[int]] = {}
        for thumb in ledger.feedback.of_requests([r.request_id for r in rows]):
            thumbs.setdefault(thumb.request_id, [0, 0])[thumb.rating < 0] += 1
        sink = pa.BufferOutputStream()
        table = pa.Table.from_pylist([_record(r, thumbs.get(r.request_id, [0, 0])) for r in rows], schema=SCHEMA)
        pq.write_table(table, sink, compression="zstd")
        key = f"{folder}/part-{number:05d}.parquet"
        objects.put(key, sink.getvalue().to_pybytes())
        keys.append(key)
        for r in rows:
            counts.update(
                rows=1,
                failed=int(r.status != "ok"),
                refused=int(r.refused),
                degraded=int(bool(r.degraded)),
                cached=int(r.cache in ("exact", "semantic")),
                tokens=r.tokens,
            )
            degraded.update(f"{stage}:{reason}" for stage, reason in r.degraded)
            usd += r.cost_usd or 0.0
            if r.status == "ok":
                times.append(r.total_ms)
        counts.update(up=sum(t[0] for t in thumbs.values()), down=sum(t[1] for t in thumbs.values()))
    objects.delete([o.key for o in objects.list(folder) if o.key not in keys])
    return DayOfQuestions(
        objects.uri(folder),
        len(keys),
        counts["rows"],
        counts["failed"],
        counts["refused"],
        counts["degraded"],
        counts["cached"],
        float(np.percentile(times, 50)) if times else None,
        float(np.percentile(times, 95)) if times else None,
        usd,
        counts["tokens"],
        counts["up"],
        counts["down"],
        tuple(degraded.most_common(10)),
    )


def _files(ledger: Ledger, start: float) -> Iterator[list[QueryLogRow]]:
    """Yield the rows of each file; one without rows for a day without questions."""
    rows: list[QueryLogRow] = []
    empty = True
    for page in ledger.query_log.between(start, start + DAY_S):
        rows += page
        while len(rows) >= ROWS_PER_FILE:
            yield rows[:ROWS_PER_FILE]
            rows, empty = rows[ROWS_PER_FILE:], False
    if rows or empty:
        yield rows


def _record(r: QueryLogRow, thumbs: Sequence[int]) -> dict[str, Any]:
    ranked = sorted(r.documents, key=lambda d: d.rank)
    return {
        "request_id": r.request_id,
        "at": round(r.at * 1e6),
        "tenant": r.tenant,
        "key_id": r.key_id,
        "groups": list(r.groups),
        "question_hash": r.question_hash,
        "release_id": r.release_id,
        "profile": r.profile,
        "status": r.status,
        "mode": r.mode,
        "cache": r.cache,
        "generator": r.generator,
        "refused": r.refused,
        "degraded": [f"{stage}:{reason}" for stage, reason in r.degraded],
        "document_ids": [d.document_id for d in ranked],
        "cited_document_ids": [d.document_id for d in ranked if d.cited],
        "total_ms": r.total_ms,
        "timings_ms": json.dumps(dict(r.timings_ms)),
        "prompt_tokens": r.prompt_tokens,
        "completion_tokens": r.completion_tokens,
        "embedding_tokens": r.embedding_tokens,
        "cost_usd": r.cost_usd,
        "trace_id": r.trace_id,
        "thumbs_up": thumbs[0],
        "thumbs_down": thumbs[1],
    }
