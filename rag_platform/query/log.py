"""Writes the query log and the keys' usage behind the questions' backs: no answer waits for the ledger."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence

import msgspec

from rag_platform import metrics
from rag_platform.errors import RagError
from rag_platform.ledger import Ledger
from rag_platform.ledger.keys import utc_day
from rag_platform.ledger.query_log import LoggedChunk, QueryLogRow
from rag_platform.query.answer import Answer
from rag_platform.query.key_usage import KeyUsage
from rag_platform.query.pepper import pepper, question_hash
from rag_platform.query.question import Question
from rag_platform.records import Hit
from rag_platform.settings import Settings

BATCH = 500
USAGE_EVERY_S = 2.0
RETRY_S = 4.0

_log = logging.getLogger(__name__)


class QueryLog:
    """A bounded queue and one thread that empties it into the ledger.

    While the ledger is down, or an ingestion holds SQLite's write lock, rows wait here; when the queue is full
    further rows are dropped and counted. A key's usage is never dropped: it is a sum, not a queue. A batch whose
    commit got lost on its way back is written again: rows are recognised by their request id, usage counts twice.

    Args:
        max_rows: rows that may wait.
        interval_s: longest time between a question and its row, while the ledger works.

    Attributes:
        dropped: rows lost since the start.
        key_usage: what keys have used, for limits.
    """

    def __init__(self, ledger: Ledger, settings: Settings, *, max_rows: int = 10_000, interval_s: float = 0.5) -> None:
        self._ledger, self._settings = ledger, settings
        self._max_rows, self._interval_s = max_rows, interval_s
        self.dropped = 0
        self.key_usage = KeyUsage()
        self._rows: deque[QueryLogRow] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._due = threading.Event()
        self._stop_at: float | None = None
        self._begun = self._done = 0  # passes
        self._pepper: bytes | None = None
        self._usage_read_at = -USAGE_EVERY_S
        self._failing = False

    def start(self) -> None:
        """Begin to write, and to read what keys have used; ``record`` does it too. A no-op when started or closed."""
        with self._changed:
            if self._thread is None and self._stop_at is None:
                self._thread = threading.Thread(target=self._run, name="query-log", daemon=True)
                self._thread.start()

    def record(self, row: QueryLogRow) -> None:
        """Count a question, and log it as RAG_QUERY_LOG says. Never blocks, never raises."""
        try:
            self.use(row.key_id, tokens=row.tokens, usd=row.cost_usd or 0.0, at=row.at)
            if self._settings.query_log != "off":
                self._append(self._sealed(row))
        except Exception as e:  # whatever is wrong with a row must not cost the answer
            self._drop(1, e)

    def use(self, key_id: str | None, *, tokens: int = 0, usd: float = 0.0, at: float | None = None) -> None:
        """Count a request of a key that leaves no row. Nothing without a key."""
        if key_id is None:
            return
        self.key_usage.add(key_id, tokens=tokens, usd=usd, at=time.time() if at is None else at)
        if self._thread is None:
            self.start()

    def flush(self, timeout_s: float = 2.0) -> bool:
        """Wait until everything recorded so far is in the ledger; False when that took too long."""
        self.start()
        with self._changed:
            wanted = self._begun + 1  # a pass that is on its way may have missed the last row
            self._due.set()
            return self._changed.wait_for(lambda: self._done >= wanted or self._stop_at is not None, timeout_s) and (
                self._done >= wanted
            )

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits, for at most ``timeout_s`` seconds; what is left then is dropped and counted."""
        with self._changed:
            first = self._stop_at is None
            self._stop_at = time.monotonic() + timeout_s
            self._changed.notify_all()
        self._due.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        with self._changed:
            left = len(self._rows)
            self._rows.clear()
        if first and left:
            self._drop(left, None)

    # ── recording ──

    def _sealed(self, row: QueryLogRow) -> QueryLogRow:
        """Add the question's hash; keep the texts only in a full log."""
        if self._pepper is None:
            self._pepper = pepper(self._settings)
        hashed = question_hash(self._pepper, row.tenant, row.question or "")
        if self._settings.query_log == "full":
            return msgspec.structs.replace(row, question_hash=hashed)
        return msgspec.structs.replace(row, question_hash=hashed, question=None, answer=None)

    def _append(self, row: QueryLogRow) -> None:
        if self._thread is None:
            self.start()
        with self._changed:
            if len(self._rows) < self._max_rows and self._stop_at is None:
                self._rows.append(row)
                return
        self._drop(1, None)

    def _drop(self, count: int, why: Exception | None) -> None:
        self.dropped += count
        metrics.QUERY_LOG_DROPPED.inc(count)
        if why is not None:  # the class only: its text may hold the question
            _log.error("%d rows of the query log were dropped: %s", count, type(why).__name__)

    # ── writing, on the thread ──

    def _run(self) -> None:
        while True:
            self._due.wait(RETRY_S if self._failing and self._stop_at is None else self._interval_s)
            self._due.clear()
            stop_at = self._stop_at
            with self._changed:
                self._begun += 1
                number = self._begun
            written = self._pass()
            with self._changed:
                if written:
                    self._done = number
                    self._changed.notify_all()
            if stop_at is not None and (written or time.monotonic() >= stop_at):
                return

    def _pass(self) -> bool:
        try:
            self._write_usage()
            with self._changed:
                waiting = len(self._rows)
            for start in range(0, waiting, BATCH):
                with self._changed:
                    batch = list(itertools.islice(self._rows, min(BATCH, waiting - start)))
                self._write(batch)
                with self._changed:
                    for _ in range(min(len(batch), len(self._rows))):  # none are left when ``close`` gave up
                        self._rows.popleft()
        except Exception as e:
            if not self._failing:
                _log.warning("the query log cannot be written now (%s); rows wait", type(e).__name__)
            self._failing = True
            return False
        self._failing = False
        return True

    def _write(self, batch: Sequence[QueryLogRow]) -> None:
        """Write rows; one that the database refuses for itself is dropped alone."""
        try:
            self._ledger.query_log.add(batch)
        except RagError:
            raise
        except Exception as e:
            if len(batch) == 1:
                self._drop(1, e)
                return
            middle = len(batch) // 2
            self._write(batch[:middle])
            self._write(batch[middle:])

    def _write_usage(self) -> None:
        uses = self.key_usage.take()
        if uses:
            written = False
            try:
                self._ledger.keys.add_usage(uses)
                written = True
            finally:
                self.key_usage.done(written=written)
        if uses or time.monotonic() - self._usage_read_at >= USAGE_EVERY_S:
            day = utc_day(time.time())
            self.key_usage.learn(day, self._ledger.keys.usage(day).values())
            self._usage_read_at = time.monotonic()


def logged(question: Question, answer: Answer, hits: Sequence[Hit], trace_id: str | None) -> QueryLogRow:
    """Return the row of an answered question. ``hits`` is what the answer was made from, best first; a cached
    answer has none, and its citations stand for them."""
    who = question.principal
    chunks = [(h.document_id, h.chunk_id) for h in hits] or [(c.document_id, c.chunk_id) for c in answer.citations]
    cited = {c.chunk_id for c in answer.citations}
    total_ms = answer.timings_ms.get("total", 0.0)
    return QueryLogRow(
        request_id=question.request_id,
        at=time.time() - total_ms / 1000,
        key_id=question.key_id,
        tenant=who.tenant,
        groups=tuple(sorted(who.groups)),
        operator=who.operator,
        question=question.normalised,
        answer=answer.answer,
        release_id=answer.release_id,
        profile=answer.profile,
        mode=answer.mode,
        cache=answer.cache,
        generator=answer.generator,
        refused=answer.refused,
        degraded=tuple((d.stage, d.reason) for d in answer.degraded),
        documents=tuple(LoggedChunk(d, c, rank, c in cited) for rank, (d, c) in enumerate(chunks, 1)),
        total_ms=total_ms,
        timings_ms=answer.timings_ms,
        prompt_tokens=answer.usage.prompt_tokens,
        completion_tokens=answer.usage.completion_tokens,
        embedding_tokens=answer.usage.embedding_tokens,
        cost_usd=answer.cost_usd,
        trace_id=trace_id,
    )
