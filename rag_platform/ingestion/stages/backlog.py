"""The backlog of a bucket: which documents are not yet served as they should be."""

from __future__ import annotations

from dataclasses import dataclass, field

from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.documents import Document, IndexEntry


@dataclass(frozen=True, slots=True)
class Task:
    """A document whose wanted version is not in the index, with the keys of its artifacts."""

    document: Document
    entry: IndexEntry | None
    version_id: str
    parse_key: str
    chunk_set_key: str


@dataclass(slots=True)
class Backlog:
    """Live documents of one bucket by standing. Each is in exactly one of the three:

    Attributes:
        tasks: to be worked on.
        blocked: their wanted version is a dead letter.
        indexed: document ids whose wanted version is served.
        wanted: live document → wanted version.
    """

    tasks: list[Task] = field(default_factory=list)
    blocked: list[Task] = field(default_factory=list)
    indexed: set[str] = field(default_factory=set)
    wanted: dict[str, str] = field(default_factory=dict)


def backlog(bench: Workbench, bucket: str) -> Backlog:
    """Compare the ledger's desired documents of a bucket with the entries of the release."""
    result = Backlog()
    pipeline = bench.pipeline
    # By name: looking at the work must not create the release that would do it.
    standings = bench.ledger.documents.standing(bench.release_id, bucket)
    blocking = bench.ledger.dead_letters.blocking(bucket)
    for standing in standings:
        document = standing.document
        version = pipeline.version_id(document)
        result.wanted[document.document_id] = version
        if standing.entry is not None and standing.entry.version_id == version:
            result.indexed.add(document.document_id)
            continue
        task = Task(
            document,
            standing.entry,
            version,
            pipeline.parse_key(document.content_hash, document.uri),
            pipeline.chunk_set_key(document.content_hash, document.uri),
        )
        blocked = version in blocking.get(document.document_id, ())
        (result.blocked if blocked else result.tasks).append(task)
    return result
