"""Feedback: readers' thumbs with the question, the release and the documents that they are about.

A thumb down is the best source of a golden case: a question that somebody really asked, and that was answered badly.
Whether the answer was wrong, or right and unwelcome, only a person can tell: nothing is added by itself.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rag_platform.errors import ConfigurationError
from rag_platform.evaluation.golden import GoldenSet
from rag_platform.ledger import Ledger
from rag_platform.ledger.documents import Document
from rag_platform.ledger.feedback import FeedbackRow
from rag_platform.ledger.query_log import QueryLogRow
from rag_platform.records import Principal
from rag_platform.settings import Settings

MAX_THUMBS = 10_000
"""Thumbs that are looked through, the newest."""
_DISMISSED = ".dismissed"


@dataclass(frozen=True, slots=True)
class FoundDocument:
    """A document that a rated answer was made from. ``uri`` and ``source`` None: the ledger knows it no more.

    Attributes:
        cited: whether the answer cites it.
        live: whether it is there still.
    """

    document_id: str
    uri: str | None
    source: str | None
    cited: bool
    live: bool

    def __str__(self) -> str:
        return f"{self.document_id} (unknown)" if self.uri is None else self.uri + ("" if self.live else " (deleted)")


@dataclass(frozen=True, slots=True)
class RatedQuestion:
    """A question of one reader's permissions, with every thumb that its answers got.

    Attributes:
        row: the newest answer that was rated; with a thumb down, the newest of those.
        thumbs: the oldest first.
        documents: what ``row`` was made from, best first.
    """

    row: QueryLogRow
    thumbs: tuple[FeedbackRow, ...]
    documents: tuple[FoundDocument, ...]

    @property
    def down(self) -> int:
        return sum(thumb.rating < 0 for thumb in self.thumbs)

    @property
    def up(self) -> int:
        return len(self.thumbs) - self.down

    @property
    def requests(self) -> tuple[str, ...]:
        """The request ids of all its rated answers."""
        return tuple(dict.fromkeys(thumb.request_id for thumb in self.thumbs))

    @property
    def case_id(self) -> str:
        """Id of the golden case that is made of it: tells later that it was."""
        return case_id(self.row.request_id)


@dataclass(frozen=True, slots=True)
class Review:
    """
    Attributes:
        questions: those with most thumbs down first; of equal ones the newest.
        thumbs: that were looked through.
        without_row: of them; the query log has deleted what they are about.
        done: questions left out because a golden set has them, or somebody dismissed them.
    """

    questions: tuple[RatedQuestion, ...]
    thumbs: int
    without_row: int
    done: int


def case_id(request_id: str) -> str:
    """Return the id of the golden case made of the feedback to a request."""
    return f"feedback-{request_id}"


def review(
    ledger: Ledger, sets: Sequence[GoldenSet], dismissed: Collection[str], since: float, *, everything: bool = False
) -> Review:
    """Return the questions whose thumbs wait for somebody to look at them.

    Args:
        sets: golden sets; a question that one of them asks for the same reader is done.
        dismissed: request ids; a question is done when all its thumbs down are dismissed.
        since: of thumbs, in seconds since the epoch.
        everything: with those that have thumbs up only, and those that are done.
    """
    thumbs = ledger.feedback.since(since, limit=MAX_THUMBS)
    rows = ledger.query_log.of_requests({t.request_id for t in thumbs})
    grouped: dict[tuple[object, ...], list[FeedbackRow]] = {}
    for thumb in reversed(thumbs):
        if (row := rows.get(thumb.request_id)) is not None:
            grouped.setdefault((row.tenant, row.groups, row.operator, row.question_hash), []).append(thumb)
    known = _Known(sets, dismissed)
    chosen: list[tuple[QueryLogRow, list[FeedbackRow]]] = []
    done = 0
    for same in grouped.values():
        bad = [t for t in same if t.rating < 0]
        row = rows[(bad or same)[-1].request_id]
        if known.done(row, bad or same):
            done += 1
            if not everything:
                continue
        if bad or everything:
            chosen.append((row, same))
    documents = ledger.documents.of_ids({c.document_id for row, _ in chosen for c in row.documents})
    questions = [RatedQuestion(row, tuple(same), _found(row, documents)) for row, same in chosen]
    questions.sort(key=lambda q: (-q.down, -q.thumbs[-1].at, q.row.request_id))
    return Review(tuple(questions), len(thumbs), sum(t.request_id not in rows for t in thumbs), done)


def find(ledger: Ledger, request_id: str) -> RatedQuestion:
    """Return the rated answer to one request.

    Raises:
        ConfigurationError: nobody rated it, or the query log does not have it any more.
    """
    thumbs = ledger.feedback.of_request(request_id)
    if not thumbs:
        raise ConfigurationError(f"nobody has rated an answer {request_id!r}; `rag golden review --list` shows the ids")
    row = ledger.query_log.get(request_id)
    if row is None:
        raise ConfigurationError(
            f"the query log has deleted {request_id!r} (RAG_QUERY_LOG_DAYS); add the question with `rag golden add`"
        )
    documents = ledger.documents.of_ids({c.document_id for c in row.documents})
    return RatedQuestion(row, tuple(thumbs), _found(row, documents))


def _found(row: QueryLogRow, documents: Mapping[str, Document]) -> tuple[FoundDocument, ...]:
    """Return the documents an answer was made from, each once, best first."""
    cited = {c.document_id for c in row.documents if c.cited}
    found = []
    for document_id in dict.fromkeys(c.document_id for c in sorted(row.documents, key=lambda c: c.rank)):
        known = documents.get(document_id)
        uri, source, live = (None, None, False) if known is None else (known.uri, known.source, known.live)
        found.append(FoundDocument(document_id, uri, source, document_id in cited, live))
    return tuple(found)


class _Known:
    def __init__(self, sets: Sequence[GoldenSet], dismissed: Collection[str]) -> None:
        cases = [case for golden in sets for case in golden.cases]
        self._ids = {case.case_id for case in cases}
        self._asked = {(c.question, c.tenant, Principal(c.tenant, frozenset(c.groups)).effective_groups) for c in cases}
        self._dismissed = set(dismissed)

    def done(self, row: QueryLogRow, thumbs: Sequence[FeedbackRow]) -> bool:
        if ((row.question or "").strip(), row.tenant, row.principal.effective_groups) in self._asked:
            return True
        requests = {t.request_id for t in thumbs}
        return any(case_id(r) in self._ids for r in requests) or requests <= self._dismissed


def dismissed(settings: Settings) -> set[str]:
    """Return the request ids that somebody looked at and does not want in a golden set."""
    try:
        text = (settings.resolved_golden_dir / _DISMISSED).read_text(encoding="utf-8")
    except FileNotFoundError:
        return set()
    return {line.strip() for line in text.splitlines() if line.strip()}


def dismiss(settings: Settings, request_ids: Sequence[str]) -> None:
    """Remember request ids, in the file ``.dismissed`` beside the golden sets: who shares these shares it, too."""
    new = [r for r in dict.fromkeys(request_ids) if r not in dismissed(settings)]
    if new:
        path = settings.resolved_golden_dir / _DISMISSED
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), "w", encoding="utf-8") as file:
            file.write("".join(f"{request_id}\n" for request_id in new))
