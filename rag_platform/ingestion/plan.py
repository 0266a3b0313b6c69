"""What an ingestion would cost, found out by doing all of it that is free and writes nothing.

Bytes are read and hashed, parsed and chunked in memory; what is missing from the embedding cache is
counted and priced. ``quick`` stops after the listing and estimates tokens from sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from rag_platform import identity, telemetry
from rag_platform.backends.sources import open_source
from rag_platform.backends.sources.base import SourceConnector
from rag_platform.errors import DependencyError, DocumentError
from rag_platform.ingestion.changes import SourceDifference, difference
from rag_platform.ingestion.chunk import build_chunker, chunk_document
from rag_platform.ingestion.parse import ParserPool
from rag_platform.ingestion.stages.backlog import backlog
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
    for one in differences:
        if one.failed or one.held:
            result.problems.append(f"{one.spec.name}: {one.failed or one.held}")
        result.unchanged += one.unchanged
        result.deleted += len(one.deleted)
    if quick:
        _estimate(result, differences)
    else:
        _exact(bench, result, [d for d in differences if d.failed is None])
    result.index_writes += result.deleted
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
        result.index_writes += len(sizes)
        result.tokens += int(sum(sizes) / CHARS_PER_TOKEN)


def _exact(bench: Workbench, result: Plan, differences: Sequence[SourceDifference]) -> None:
    total = sum(len(d.added) + len(d.changed) for d in differences)
    pending: dict[str, list[tuple[str, SourceConnector, str]]] = {}
    done = 0
    for one in differences:
        connector = open_source(one.spec, bench.settings)
        added_hashes: list[str] = []
        for item, known in _moved(one):
            done += 1
            telemetry.report_progress("read", done, total)
            try:
                data = connector.fetch(item.uri, max_bytes=bench.settings.max_document_bytes)
            except DocumentError:
                _count(result, known)
                result.dead_lettered += 1
                continue
            except DependencyError as e:
                result.problems.append(f"{one.spec.name}: {e}")
                break
            if data is None:
                continue
            content = identity.content_hash(data)
            if known is not None and known.content_hash == content:
                same = known.change_token != item.change_token
                result.unchanged += same
                result.changed += not same
                result.index_writes += not same
                continue
            _count(result, known)
            if known is None:
                added_hashes.append(content)
            key = bench.pipeline.parse_key(content, item.uri)
            pending.setdefault(key, []).append((item.uri, connector, content))
        gone = [d.content_hash for d in one.deleted]
        result.renamed += sum(min(gone.count(h), added_hashes.count(h)) for h in set(gone) & set(added_hashes))
    for bucket in bench.bucket_names:  # what an earlier run left
        moved = {identity.document_id(d.spec.name, i.uri) for d in differences for i, _ in _moved(d)}
        for task in backlog(bench, bucket).tasks:
            if task.document.document_id not in moved:
                result.index_writes += 1
    _read(bench, result, pending)


def _read(bench: Workbench, result: Plan, pending: dict[str, list[tuple[str, SourceConnector, str]]]) -> None:
    """Parse and chunk what has no stored artifact, and count the texts that have no vector."""
    artifacts = bench.ledger.artifacts
    sets = {k: identity.chunk_set_key(k, bench.pipeline.chunker) for k in pending}
    chunked = artifacts.find("chunk", sets.values())
    parsed = artifacts.find("parse", pending)
    result.parsed = sum(k not in parsed for k in pending)
    new = {k: v for k, v in pending.items() if sets[k] not in chunked}
    known = [k for k in pending if k not in new]
    result.index_writes += sum(len(pending[k]) for k in known)
    result.chunked = 0
    keys: dict[str, int] = {}
    stored = {sets[k] for k in known}
    for table in bench.segments.read("chunk", stored, columns=("chunk_set_key", "embedding_key", "token_count")):
        keys.update(zip(table["embedding_key"].to_pylist(), table["token_count"].to_pylist(), strict=True))
    if new:
        chunker, tokenizer = build_chunker(bench.settings, bench.embedder), bench.embedder.tokenizer
        with ParserPool(bench.parse_limits, bench.parse_workers) as pool:
            for number, (key, document) in enumerate(_parse(bench, pool, new), 1):
                telemetry.report_progress("plan", number, len(new))
                spans = [] if isinstance(document, DocumentError) else chunk_document(document, chunker, tokenizer)
                if isinstance(document, DocumentError) or not spans:
                    result.dead_lettered += len(new[key])
                    result.parsed -= isinstance(document, DocumentError)
                    continue
                result.chunked += 1
                result.index_writes += len(new[key])
                for span in spans:
                    keys[bench.pipeline.embedding_key(document.text[span.start : span.end])] = span.token_count
    cached = artifacts.find("embed", keys)
    result.embeddings_reused = len(cached)
    missing = [tokens for key, tokens in keys.items() if key not in cached]
    result.embedded, result.tokens = len(missing), sum(missing)


def _parse(
    bench: Workbench, pool: ParserPool, new: dict[str, list[tuple[str, SourceConnector, str]]]
) -> Iterator[tuple[str, ParsedDocument | DocumentError]]:
    def loader(uri: str, connector: SourceConnector) -> bytes:
        data = connector.fetch(uri, max_bytes=bench.settings.max_document_bytes)
        return b"" if data is None else data

    items = (
        (key, PurePosixPath(uses[0][0]).name, lambda u=uses: loader(u[0][0], u[0][1])) for key, uses in new.items()
    )
    for key, document, _ in pool.parse_many(items):
        yield key, document


def _moved(one: SourceDifference) -> Iterator[tuple[SourceItem, Document | None]]:
    for item in one.added:
        yield item, None
    yield from one.changed


def _count(result: Plan, known: Document | None) -> None:
    if known is None:
        result.added += 1
    else:
        result.changed += 1
