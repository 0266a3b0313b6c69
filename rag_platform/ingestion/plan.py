"""What an ingestion would cost, found out by doing all of it that is free and writes nothing.

Bytes are read and hashed, parsed and chunked in memory; what is missing from the embedding cache is
counted and priced. ``quick`` stops after the listing and estimates tokens from sizes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from rag_platform import identity, telemetry
from rag_platform.backends.sources import open_source
from rag_platform.backends.sources.base import Replacement, SourceConnector
from rag_platform.errors import DependencyError, DocumentError
from rag_platform.ingestion.changes import SourceDifference, difference
from rag_platform.ingestion.chunk import build_chunker, chunk_document
from rag_platform.ingestion.parse import ParserPool
from rag_platform.ingestion.stages.backlog import Task, backlog
from rag_platform.ingestion.stages.chunk import stored_documents
from rag_platform.ingestion.stages.index import meanwhile
from rag_platform.ingestion.stages.snapshot import UNREAD, blob_key, document_metadata
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger.documents import Document
from rag_platform.records import ParsedDocument, SourceItem, SourceSpec

CHARS_PER_TOKEN = 4.0
"""English prose; only used by the quick plan."""


@dataclass(slots=True)
class Plan:
    """The counters of a run, in advance. ``usd`` is None when the model has no known price."""

    added: int = 0
    changed: int = 0
    deleted: int = 0
    unchanged: int = 0
    renamed: int = 0
    parsed: int = 0
    chunked: int = 0
    embedded: int = 0
    embeddings_reused: int = 0
    index_writes: int = 0
    dead_lettered: int = 0
    tokens: int = 0
    usd: float | None = 0.0
    estimated: bool = False
    problems: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def plan(bench: Workbench, specs: Sequence[SourceSpec], *, quick: bool = False) -> Plan:
    """Plan an ingestion of these sources. Nothing is written, also not to the ledger."""
    result = Plan(estimated=quick)
    differences = [difference(bench, spec) for spec in specs]
    result.problems += [f"{d.spec.name}: {d.failed or d.held}" for d in differences if d.failed or d.held]
    differences = [d for d in differences if not (d.failed or d.held)]  # those change nothing
    for one in differences:
        result.unchanged += one.unchanged
        result.deleted += len(one.deleted)
    if quick:
        _estimate(result, differences)
    else:
        _exact(bench, result, differences)
    price = bench.pipeline.embedder.usd_per_million_tokens
    result.usd = None if price is None else round(result.tokens * price / 1e6, 6)
    return result


def _estimate(result: Plan, differences: Sequence[SourceDifference]) -> None:
    for one in differences:
        result.added += len(one.added)
        result.changed += len(one.changed)
        sizes = [i.size for i in one.added] + [i.size for i, _ in one.changed]
        result.parsed += len(sizes)
        result.chunked += len(sizes)
        result.index_writes += len(sizes) + len(one.deleted)
        result.tokens += int(sum(sizes) / CHARS_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class _Use:
    """A document that stands on a parse. ``served_anew``: an old version of it is served and would be
    written again, under new metadata, even if the new one cannot be read."""

    uri: str
    load: Callable[[], bytes]
    served_anew: bool


def _exact(bench: Workbench, result: Plan, differences: Sequence[SourceDifference]) -> None:
    pending: dict[str, list[_Use]] = {}
    entries = bench.ledger.documents.entries(bench.release_id)
    decided: set[str] = set()
    total = sum(len(d.added) + len(d.changed) for d in differences)
    for one in differences:
        connector = open_source(one.spec, bench.settings)
        added_hashes: Counter[str] = Counter()
        for item, known in _moved(one):
            telemetry.report_progress("read", len(decided) + 1, total)
            document_id = identity.document_id(one.spec.name, item.uri)
            metadata_hash = identity.metadata_hash(document_metadata(one.spec, item))
            entry = entries.get(document_id)
            served_anew = entry is not None and entry.metadata_hash != metadata_hash
            try:
                content = _content(bench, connector, item, known)
            except DocumentError:
                _count(result, known)
                decided.add(document_id)
                result.dead_lettered += 1
                result.index_writes += served_anew
                continue
            except DependencyError as e:
                result.problems.append(f"{one.spec.name}: {e}")
                break
            if content is None:
                continue
            if known is not None and (known.content_hash, known.metadata_hash) == (content, metadata_hash):
                result.unchanged += 1
                continue
            _count(result, known)
            decided.add(document_id)
            if known is None:
                added_hashes[content] += 1
            load = partial(_fetch, connector, item.uri, bench.settings.max_document_bytes)
            pending.setdefault(bench.pipeline.parse_key(content, item.uri), []).append(
                _Use(item.uri, load, served_anew)
            )
        decided.update(d.document_id for d in one.deleted)
        result.index_writes += sum(d.document_id in entries for d in one.deleted)
        result.renamed += sum((Counter(d.content_hash for d in one.deleted) & added_hashes).values())
    _leftovers(bench, result, decided, pending)
    _read(bench, result, pending)


def _content(bench: Workbench, connector: SourceConnector, item: SourceItem, known: Document | None) -> str | None:
    """Return the hash of a document's bytes as the snapshot would; None when it has vanished."""
    if (
        known is not None
        and known.change_token == item.change_token
        and not known.content_hash.startswith(UNREAD)  # could not be read: the snapshot tries again
    ):
        return known.content_hash
    data = connector.fetch(item.uri, max_bytes=bench.settings.max_document_bytes)
    data = data.data if isinstance(data, Replacement) else data
    return None if data is None else identity.content_hash(data)


def _leftovers(bench: Workbench, result: Plan, decided: Collection[str], pending: dict[str, list[_Use]]) -> None:
    """Add what the sources do not show: work of an earlier run, replays that are due, a new pipeline."""
    due = {(x.document_id, x.version_id) for x in bench.ledger.dead_letters.due(time.time())}
    for bucket in bench.bucket_names:
        standing = backlog(bench, bucket)
        unread: list[Task] = []
        for task in (*standing.tasks, *standing.blocked):
            document, entry = task.document, task.entry
            if document.document_id in decided or document.content_hash.startswith(UNREAD):
                continue
            if task in standing.blocked and (document.document_id, task.version_id) not in due:
                unread.append(task)
                continue
            again = entry is not None and (entry.version_id is None or entry.metadata_hash != document.metadata_hash)
            load = partial(bench.objects.get, blob_key(document.content_hash))
            pending.setdefault(task.parse_key, []).append(_Use(document.uri, load, again))
        result.index_writes += len(meanwhile(bench, bucket, unread))
        retired = bench.ledger.documents.retired_entries(bench.release_id, bucket)
        result.index_writes += sum(e.document_id not in decided for e in retired)


def _read(bench: Workbench, result: Plan, pending: Mapping[str, list[_Use]]) -> None:
    """Parse and chunk what has no stored artifact, and count the texts that have no vector."""
    artifacts, pipeline = bench.ledger.artifacts, bench.pipeline
    sets = {k: identity.chunk_set_key(k, pipeline.chunker) for k in pending}
    chunked = artifacts.find("chunk", sets.values())
    ready = [k for k in pending if sets[k] in chunked]
    result.index_writes += sum(len(pending[k]) for k in ready)
    unembedded = {sets[k] for k in ready} - artifacts.embedded(pipeline.embedder.fingerprint, (sets[k] for k in ready))
    keys: dict[str, int] = {}
    for table in bench.segments.read("chunk", unembedded, columns=("chunk_set_key", "embedding_key", "token_count")):
        keys.update(zip(table["embedding_key"].to_pylist(), table["token_count"].to_pylist(), strict=True))
    new = {k: uses for k, uses in pending.items() if sets[k] not in chunked}
    if new:
        chunker, tokenizer = build_chunker(bench.settings, bench.embedder), bench.embedder.tokenizer
        for number, (key, document) in enumerate(_documents(bench, result, new), 1):
            telemetry.report_progress("plan", number, len(new))
            try:
                spans = [] if isinstance(document, DocumentError) else chunk_document(document, chunker, tokenizer)
            except DocumentError:
                spans = []
            if isinstance(document, DocumentError) or not spans:
                result.dead_lettered += len(new[key])
                result.index_writes += sum(use.served_anew for use in new[key])
                continue
            result.chunked += 1
            result.index_writes += len(new[key])
            for span in spans:
                keys[pipeline.embedding_key(document.text[span.start : span.end])] = span.token_count
    cached = artifacts.find("embed", keys)
    result.embeddings_reused = len(cached)
    missing = [tokens for key, tokens in keys.items() if key not in cached]
    result.embedded, result.tokens = len(missing), sum(missing)


def _documents(
    bench: Workbench, result: Plan, wanted: Mapping[str, list[_Use]]
) -> Iterator[tuple[str, ParsedDocument | DocumentError]]:
    """Yield parsed documents by parse key: the stored ones, then the others, parsed in memory."""
    stored = bench.ledger.artifacts.find("parse", wanted)
    yield from stored_documents(bench, list(stored))
    items = ((key, PurePosixPath(uses[0].uri).name, uses[0].load) for key, uses in wanted.items() if key not in stored)
    if len(stored) == len(wanted):
        return
    with ParserPool(bench.parse_limits, bench.parse_workers, scratch=bench.scratch) as pool:
        for key, document, _ in pool.parse_many(items):
            result.parsed += not isinstance(document, DocumentError)
            yield key, document


def _fetch(connector: SourceConnector, uri: str, max_bytes: int) -> bytes:
    data = connector.fetch(uri, max_bytes=max_bytes)
    data = data.data if isinstance(data, Replacement) else data
    return b"" if data is None else data


def _moved(one: SourceDifference) -> Iterator[tuple[SourceItem, Document | None]]:
    for item in one.added:
        yield item, None
    yield from one.changed


def _count(result: Plan, known: Document | None) -> None:
    if known is None:
        result.added += 1
    else:
        result.changed += 1
