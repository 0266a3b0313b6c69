"""Replay: questions that readers asked, asked again of two releases.

As the reader who asked, with the profile that he used, through the query pipeline, and without a trace: no cache, no query
log, no metrics. Both releases are asked one after the other, in turns first, so that the machine's moods hit both.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rag_platform.backends.vector_stores.base import VectorStore
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.evaluation.changes import Change, Side, change
from rag_platform.evaluation.run import MAX_AT_ONCE, MAX_FAILED_IN_A_ROW
from rag_platform.ledger import Ledger
from rag_platform.ledger.query_log import QueryLogRow
from rag_platform.ledger.releases import Release
from rag_platform.query.offline import NotAnswered, OfflineQueries
from rag_platform.query.profiles import PROFILES
from rag_platform.query.question import Question
from rag_platform.settings import Settings

MAX_ROWS = 100_000
"""Rows of the query log that are looked through for distinct questions."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Logged:
    """A question to ask again: the newest row that asks it, and how many rows do."""

    row: QueryLogRow
    times: int


@dataclass(frozen=True, slots=True)
class Selection:
    """What of the log is replayed.

    Attributes:
        rows: that were looked through.
        without_text: of them; they cannot be asked again.
    """

    questions: tuple[Logged, ...]
    rows: int
    without_text: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """One question on both releases. Its text is the reader's: for the terminal of who compares, and nothing else."""

    logged: Logged
    before: Side
    after: Side
    change: Change


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """
    Attributes:
        replayed: the most changed first; of equal ones the order of their request ids.
        failed: questions that one of the releases gave no answer to; they count as no change.
    """

    before: str
    after: str
    replayed: tuple[Replayed, ...]
    failed: int


def select(ledger: Ledger, since: float, limit: int) -> Selection:
    """Return the newest ``limit`` distinct questions from ``since`` (seconds since the epoch) on.

    The same words asked with the same permissions and profile are one question. What ended in an error is left out.

    Raises:
        ConfigurationError: there is nothing to replay; the message says why.
    """
    rows = ledger.query_log.since(since, limit=MAX_ROWS)
    if not rows:
        raise ConfigurationError("nobody has asked anything in that time: see --days")
    found: dict[tuple[object, ...], list[QueryLogRow]] = {}
    without_text = 0
    for row in rows:
        if row.question is None:
            without_text += 1
        elif row.status == "ok":
            found.setdefault((row.tenant, row.groups, row.operator, row.profile, row.question), []).append(row)
    if not found:
        raise ConfigurationError(
            f"the query log holds the texts of none of {len(rows)} questions: set RAG_QUERY_LOG=full, which keeps question "
            "and answer in the ledger for RAG_QUERY_LOG_DAYS days, and compare when readers have asked some"
        )
    chosen = list(found.values())[:limit]
    return Selection(tuple(Logged(same[0], len(same)) for same in chosen), len(rows), without_text)


async def replay(
    settings: Settings,
    ledger: Ledger,
    before: Release,
    after: Release,
    questions: Sequence[Logged],
    *,
    stores: Mapping[str, VectorStore] | None = None,
    answers: bool = True,
    progress: Progress = lambda done, total: None,
) -> ReplayReport:
    """Ask two releases the same questions and compare what they say.

    Args:
        stores: vector stores of the caller's, by name.
        answers: False compares what is found alone, without generator.

    Raises:
        DependencyError: a dependency is down.
        ConfigurationError: one of the releases cannot be asked here.
    """
    sides: list[OfflineQueries] = []
    try:
        for release in (before, after):
            sides.append(OfflineQueries(settings, ledger, release, stores=stores))
            await sides[-1].start()
        run = _Run(settings, sides, len(questions), answers, progress)
        await run.all(questions)
    finally:
        for side in sides:
            await side.aclose()
    ordered = sorted(run.replayed, key=lambda r: (-r.change.score, r.logged.row.request_id))
    return ReplayReport(before.release_id, after.release_id, tuple(ordered), run.failed)


class _Run:
    def __init__(
        self, settings: Settings, sides: Sequence[OfflineQueries], total: int, answers: bool, progress: Progress
    ) -> None:
        self._settings, self._sides, self._total = settings, sides, total
        self._answers, self._progress = answers, progress
        self.replayed: list[Replayed] = []
        self.failed = 0
        self._failed_in_a_row = 0

    async def all(self, questions: Sequence[Logged]) -> None:
        waiting = iter(enumerate(questions))

        async def work() -> None:
            for number, one in waiting:
                await self._ask_both(one, number % 2 == 1)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(max(1, min(MAX_AT_ONCE, self._settings.cores, len(questions)))):
                    group.create_task(work())
        except ExceptionGroup as e:
            first = next((x for x in e.exceptions if isinstance(x, DependencyError)), e.exceptions[0])
            raise first from first.__cause__

    async def _ask_both(self, one: Logged, swapped: bool) -> None:
        order = (1, 0) if swapped else (0, 1)
        said: dict[int, Side] = {}
        try:
            for at in order:
                said[at] = await self._ask(self._sides[at], one.row)
        except (NotAnswered, ValueError) as e:
            self.failed += 1
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= MAX_FAILED_IN_A_ROW:
                raise DependencyError("query", f"{MAX_FAILED_IN_A_ROW} questions in a row got no answer") from e
        else:
            self._failed_in_a_row = 0
            self.replayed.append(Replayed(one, said[0], said[1], change(said[0], said[1])))
        self._progress(len(self.replayed) + self.failed, self._total)

    async def _ask(self, queries: OfflineQueries, row: QueryLogRow) -> Side:
        question: Question = queries.question(row.question or "", row.principal)
        if row.profile in PROFILES:
            question = dataclasses.replace(question, profile_name=row.profile)
        outcome = await (queries.ask if self._answers else queries.retrieve)(question)
        answer = outcome.answer
        return Side(
            documents=tuple(dict.fromkeys(h.uri for h in outcome.hits[: question.profile.k])),
            answer=None if answer is None else answer.answer,
            refused=answer is not None and answer.refused,
            cited=() if answer is None else tuple(dict.fromkeys(c.uri for c in answer.citations)),
            ms=outcome.total_ms,
            usd=outcome.usd,
        )
