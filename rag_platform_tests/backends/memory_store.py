"""A vector store in a dict: the reference that the contract suite and property tests compare with."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from rag_platform.backends.vector_stores.base import Capabilities, IndexStats, SearchRequest, SearchResult
from rag_platform.backends.vector_stores.filters import And, Compare, Filter, Not
from rag_platform.errors import ConfigurationError
from rag_platform.records import HIT_COLUMNS, Hit, Principal, index_schema

_OPS = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def matches(tree: Filter, row: Mapping[str, Any]) -> bool:
    """Evaluate a filter tree in plain Python; a missing value satisfies no comparison."""
    if isinstance(tree, Compare):
        value = row[tree.field]
        if tree.op == "has":
            return tree.value in value
        if tree.op == "^=":
            return str(value).startswith(str(tree.value))
        # Numbers compare as doubles, as in every store.
        wanted = tree.value if isinstance(tree.value, str) else float(tree.value)
        return value is not None and bool(_OPS[tree.op](value, wanted))
    if isinstance(tree, Not):
        return not matches(tree.part, row)
    return (all if isinstance(tree, And) else any)(matches(part, row) for part in tree.parts)


def readable(row: Mapping[str, Any], who: Principal) -> bool:
    """Whether this principal may read the row."""
    return who.operator or (row["tenant"] == who.tenant and bool(set(row["acl"]) & who.effective_groups))


def _words(text: str) -> list[str]:
    return re.findall(
        r"[a-z0-9]+|[^\x00-\x7f]{2}|(?<=[^\x00-\x7f])[^\x00-\x7f]",
        re.sub(r"([^\x00-\x7f])(?=([^\x00-\x7f]))", r"\1\2 ", text.lower()),
    )


def hit(row: Mapping[str, Any], score: float) -> Hit:
    """The row as a hit."""
    return Hit(**{c: tuple(row[c]) if c in ("tags", "acl") else row[c] for c in HIT_COLUMNS}, score=score)


def score(row: Mapping[str, Any], request: SearchRequest, leg: str) -> float:
    """Cosine similarity, or how often the question's words occur."""
    if leg == "vector":
        assert request.vector is not None
        return float(request.vector @ row["vector"])
    counts = Counter(_words(" ".join((row["title"], row["heading_path"], row["text"]))))
    return float(sum(counts[w] for w in set(_words(request.text or ""))))


class MemoryVectorStore:
    """See ``base.VectorStore``; one process, nothing kept."""

    capabilities = Capabilities(True, True, True, False, True)

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, dict[str, Any]]] = {}
        self._dimensions: dict[str, int] = {}

    async def ensure(self, index: str, dimensions: int) -> None:
        if self._dimensions.setdefault(index, dimensions) != dimensions:
            raise ConfigurationError(f"{index} holds other vectors")
        self._rows.setdefault(index, {})

    async def replace(self, index: str, rows: pa.Table, *, stale: Collection[str]) -> None:
        new = {r["chunk_id"]: r for r in rows.to_pylist()}
        if len(new) != rows.num_rows:
            raise ValueError("a chunk_id twice")
        old = set(stale) | {r["document_id"] for r in new.values()}
        self._rows[index] = {c: r for c, r in self._rows[index].items() if r["document_id"] not in old} | new

    async def delete(self, index: str, document_ids: Collection[str]) -> None:
        self._rows[index] = {c: r for c, r in self._rows[index].items() if r["document_id"] not in set(document_ids)}

    async def search(self, index: str, request: SearchRequest) -> SearchResult:
        rows = [
            r
            for r in self._rows[index].values()
            if readable(r, request.principal) and (request.where is None or matches(request.where, r))
        ]
        legs = {}
        for leg in request.legs:
            scored = [(score(r, request, leg), r) for r in rows]
            hits = [hit(r, s) for s, r in scored if leg == "vector" or s > 0]
            legs[leg] = sorted(hits, key=lambda h: (-h.score, h.chunk_id))[: request.k]
        return SearchResult(legs)

    async def get(self, index: str, chunk_ids: Sequence[str], principal: Principal) -> list[Hit]:
        rows = self._rows[index]
        return [hit(rows[c], 0.0) for c in chunk_ids if c in rows and readable(rows[c], principal)]

    def scan(self, index: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        schema = index_schema(self._dimensions[index])
        yield from (
            pa.Table.from_pylist(list(self._rows[index].values()), schema=schema).select(list(columns)).to_batches()
        )

    async def count(self, index: str, document_ids: Collection[str] | None = None) -> int:
        wanted = None if document_ids is None else set(document_ids)
        return sum(wanted is None or r["document_id"] in wanted for r in self._rows[index].values())

    async def maintain(self, index: str, *, force: bool = False) -> Mapping[str, Any]:
        return {"rows": len(self._rows[index])}

    def state_token(self, index: str) -> str | None:
        return None

    async def stats(self, index: str) -> IndexStats:
        return IndexStats(rows=len(self._rows[index]), bytes=None)

    async def indexes(self) -> list[str]:
        return sorted(self._rows)

    async def drop(self, index: str) -> None:
        self._rows.pop(index, None)
        self._dimensions.pop(index, None)

    async def ping(self) -> None: ...

    async def aclose(self) -> None: ...
