"""A store is one class and one test: a few lines over a dict pass the whole suite, less the keyword leg.

Filters come from the reference that every store is compared with. What spares it the rest is that it lives in one
process, where exchanging a dict is atomic.
"""

from __future__ import annotations

import pyarrow as pa
import pytest

from rag_platform.backends.vector_stores.base import Capabilities, IndexStats, SearchResult, VectorStore
from rag_platform.errors import ConfigurationError
from rag_platform.records import index_schema
from rag_platform_tests.backends.memory_store import hit, matches
from rag_platform_tests.contracts.vector_stores import VectorStoreContract


# fmt: off
class TinyVectorStore:
    """See ``base.VectorStore``. Rows and number of dimensions of each index."""
    capabilities = Capabilities(True, keyword=False, exact_count=True, multi_process_read=False, survives_server_outage=True)

    def __init__(self): self.rows, self.dimensions = {}, {}
    async def ensure(self, index, dimensions):
        if self.dimensions.setdefault(index, dimensions) != dimensions:
            raise ConfigurationError("it holds vectors of other dimensions")
        self.rows.setdefault(index, {})
    async def replace(self, index, rows, *, stale):
        new = {r["chunk_id"]: r for r in rows.to_pylist()}
        if len(new) != rows.num_rows:
            raise ValueError("a chunk_id twice")
        gone = {*stale, *(r["document_id"] for r in new.values())}
        self.rows[index] = {c: r for c, r in self.rows[index].items() if r["document_id"] not in gone} | new
    async def delete(self, index, document_ids): await self.replace(index, self._schema(index).empty_table(), stale=document_ids)
    async def search(self, index, request):
        if "keyword" in request.legs:
            raise ValueError("it has no keyword leg")
        rows = [r for r in self._readable(index, request.principal) if request.where is None or matches(request.where, r)]
        best = sorted((hit(r, float(request.vector @ r["vector"])) for r in rows), key=lambda h: (-h.score, h.chunk_id))
        return SearchResult({"vector": best[: request.k]})
    async def get(self, index, chunk_ids, principal):
        found = {r["chunk_id"]: hit(r, 0.0) for r in self._readable(index, principal)}
        return [found[c] for c in chunk_ids if c in found]
    def scan(self, index, columns): return iter(pa.Table.from_pylist([*self.rows[index].values()], self._schema(index)).select(columns).to_batches())
    async def count(self, index, document_ids=None): return sum(document_ids is None or r["document_id"] in set(document_ids) for r in self.rows[index].values())
    async def stats(self, index): return IndexStats(len(self.rows[index]), None)
    async def indexes(self): return sorted(self.rows)
    async def drop(self, index): self.rows.pop(index, None), self.dimensions.pop(index, None)
    async def maintain(self, index, *, force=False): return {}
    def state_token(self, index): return None
    async def ping(self): ...
    async def aclose(self): ...
    def _schema(self, index): return index_schema(self.dimensions[index])
    def _readable(self, index, who): return [r for r in self.rows[index].values() if who.operator or (r["tenant"] == who.tenant and who.effective_groups & {*r["acl"]})]
# fmt: on


class TestTinyVectorStore(VectorStoreContract):
    documents_at_once = 500

    @pytest.fixture
    def store(self) -> VectorStore:
        return TinyVectorStore()  # type: ignore[return-value]
