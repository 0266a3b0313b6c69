"""LanceDB: the embedded vector store. A folder or an object-store URL, no server.

Every change is one commit, and every search opens the latest version once and asks it all its
questions, so a reader never sees half of a change. One process may write while others read.

An index ensured with 0 dimensions holds words alone: rows without vectors, and no vector leg. The keyword
replica is made of such.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import random
import re
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from rag_platform import identity
from rag_platform.backends.vector_stores.base import Capabilities, IndexStats, Leg, SearchRequest, SearchResult
from rag_platform.backends.vector_stores.lance import maintenance
from rag_platform.backends.vector_stores.lance.lock import writer_lock
from rag_platform.backends.vector_stores.lance.rows import (
    SEARCH_TEXT,
    dimensions_of,
    hit,
    table_schema,
    with_search_text,
)
from rag_platform.backends.vector_stores.lance.sql import any_of, principal_sql, slices, visible_sql
from rag_platform.backends.vector_stores.lance.words import asked
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.records import HIT_COLUMNS, Hit, Principal
from rag_platform.settings import Settings as PlatformSettings
from rag_platform.settings import setting

T = TypeVar("T")
NAME = "vector_store:lancedb"
COMMIT_ATTEMPTS = 6
INDEX_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")


@dataclass(frozen=True)
class Settings:
    """Variables ``RAG_LANCEDB_…``."""

    keep_versions_s: float = setting(600.0, "Seconds that a replaced version of the index stays readable.")
    lock_timeout_s: float = setting(60.0, "Seconds to wait for another process that writes to the same index.")
    ivf_rows: int = setting(10_000, "Chunks above which vectors get an IVF index instead of an exact scan.")
    nprobes: int = setting(
        40, "IVF partitions (of some 4,096 chunks) that one search looks into; above that it is approximate."
    )


def build(settings: PlatformSettings) -> LanceVectorStore:
    """Build the store over ``RAG_INDEX_URL``. No I/O."""
    return LanceVectorStore(settings.resolved_index_url, settings.vendor(Settings, "RAG_LANCEDB_"))


class LanceVectorStore:
    """See ``base.VectorStore``. May be used from several event loops, one after the other."""

    def __init__(self, url: str, settings: Settings | None = None) -> None:
        self._url = url
        self._settings = settings or Settings()
        self._folder = None if "://" in url else Path(url)
        self.capabilities = Capabilities(
            atomic_replace=True,
            keyword=True,
            exact_count=True,
            multi_process_read=True,
            survives_server_outage=self._folder is not None,
        )
        self._policy = maintenance.Policy(
            retention_s=self._settings.keep_versions_s, vector_index_rows=self._settings.ivf_rows
        )
        self._connection: Any = None

    # ── writing ──

    async def ensure(self, index: str, dimensions: int) -> None:
        if not INDEX_NAME.match(index):
            raise ValueError(f"an index name is letters, digits, '_', '.' and '-', not {index!r}")
        async with self._writing(index):
            try:
                table = await self._open(index)
            except KeyError:
                # On an object store nothing locks: another machine may be making it now.
                connection = await self._connect()
                table = await connection.create_table(index, schema=table_schema(dimensions), exist_ok=True)
            found = dimensions_of(await table.schema())
            if found != dimensions:
                raise ConfigurationError(f"index {index!r} holds vectors of {found} dimensions, not {dimensions}")
            await self._commit(index, maintenance.create_indices)

    async def replace(self, index: str, rows: pa.Table, *, stale: Collection[str]) -> None:
        rows = with_search_text(rows)
        new = set(rows["document_id"].to_pylist())
        async with self._writing(index):
            # A caller that repeats a call whose outcome it never learnt finds its own rows here.
            old = set(stale) | (new if await self._count(await self._open(index), new) else set())
            if old:
                await self._exchange(index, rows, sorted(old))
            elif rows.num_rows:
                await self._commit(index, lambda table: table.add(rows))
            held = await self._count(await self._open(index), new | old)
            if held != rows.num_rows:
                raise DependencyError(NAME, f"index {index!r} holds {held} rows after a write of {rows.num_rows}")

    async def delete(self, index: str, document_ids: Collection[str]) -> None:
        async with self._writing(index):
            for part in slices(document_ids):
                await self._remove(index, any_of("document_id", part))

    async def _remove(self, index: str, condition: str) -> None:
        await self._commit(index, lambda table: table.delete(condition))

    async def _exchange(self, index: str, rows: pa.Table, old: Sequence[str]) -> None:
        """One commit for each ``MAX_IDS`` documents: each document changes in exactly one."""
        import pyarrow.compute as pc

        documents = rows["document_id"]
        fresh = rows.filter(pc.invert(pc.is_in(documents, value_set=pa.array(old, pa.string()))))
        for part in slices(old):
            chosen = rows.filter(pc.is_in(documents, value_set=pa.array(part, pa.string())))
            if fresh.num_rows:
                chosen, fresh = pa.concat_tables([chosen, fresh]), fresh.slice(0, 0)
            condition = any_of("document_id", part)
            if chosen.num_rows:
                await self._merge(index, chosen, condition)
            else:
                await self._remove(index, condition)

    async def _merge(self, index: str, rows: pa.Table, condition: str) -> None:
        def merge(table: Any) -> Awaitable[Any]:
            builder = table.merge_insert("chunk_id").when_matched_update_all().when_not_matched_insert_all()
            return builder.when_not_matched_by_source_delete(condition).execute(rows)  # type: ignore[no-any-return]

        await self._commit(index, merge)

    async def _commit(self, index: str, change: Callable[[Any], Awaitable[T]]) -> T:
        """Make one commit on the latest version; again on a newer one when another writer was faster."""
        for attempt in range(COMMIT_ATTEMPTS):
            try:
                return await change(await self._open(index))
            except RuntimeError as e:
                if "commit conflict" not in str(e).lower() or attempt + 1 == COMMIT_ATTEMPTS:
                    raise
            await asyncio.sleep(random.uniform(0, 0.05 * 2**attempt))
        raise AssertionError("unreachable")

    # ── reading ──

    async def search(self, index: str, request: SearchRequest) -> SearchResult:
        with self._errors():
            table = await self._open(index)
            where = visible_sql(request.principal, request.where)
            found = await asyncio.gather(*(self._leg(table, leg, request, where) for leg in request.legs))
        return SearchResult(dict(zip(request.legs, found, strict=True)))

    async def _leg(self, table: Any, leg: Leg, request: SearchRequest, where: str | None) -> list[Hit]:
        if leg == "vector":
            if request.vector is None:
                raise ValueError("the vector leg needs a vector")
            query = table.query().nearest_to(request.vector).distance_type("cosine").nprobes(self._settings.nprobes)
            column = "_distance"
        else:
            if request.text is None:
                raise ValueError("the keyword leg needs a text")
            from lancedb.query import MatchQuery

            words = MatchQuery(asked(request.text), SEARCH_TEXT)  # type: ignore[call-arg]  # pydantic's defaults
            query = table.query().nearest_to_text(words)
            column = "_score"
        if where is not None:
            query = query.where(where)
        rows = await query.select([*HIT_COLUMNS, column]).limit(request.k).to_list()
        hits = [hit(r, 1.0 - r[column] if leg == "vector" else r[column]) for r in rows]
        return sorted(hits, key=lambda h: (-h.score, h.chunk_id))

    async def get(self, index: str, chunk_ids: Sequence[str], principal: Principal) -> list[Hit]:
        found: dict[str, Hit] = {}
        with self._errors():
            table = await self._open(index)
            visible = principal_sql(principal)
            for part in slices(dict.fromkeys(chunk_ids)):
                where = any_of("chunk_id", part) + (f" AND {visible}" if visible else "")
                for row in await table.query().where(where).select(list(HIT_COLUMNS)).to_list():
                    found[row["chunk_id"]] = hit(row, 0.0)
        return [found[c] for c in chunk_ids if c in found]

    def scan(self, index: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import lancedb

        with self._errors():
            try:
                table = lancedb.connect(self._url).open_table(index)
            except ValueError as e:
                raise self._not_open(index, e) from e
            reader = table.search().select(list(columns)).to_batches(4096)
        return self._batches(reader)

    def _batches(self, reader: Any) -> Iterator[pa.RecordBatch]:
        with self._errors():
            yield from reader

    async def count(self, index: str, document_ids: Collection[str] | None = None) -> int:
        with self._errors():
            table = await self._open(index)
            return await self._count(table, document_ids)

    async def _count(self, table: Any, document_ids: Collection[str] | None) -> int:
        if document_ids is None:
            return int(await table.count_rows())
        return sum([int(await table.count_rows(any_of("document_id", part))) for part in slices(set(document_ids))])

    # ── keeping ──

    async def maintain(self, index: str, *, force: bool = False) -> Mapping[str, Any]:
        async with self._writing(index):
            return await self._commit(index, lambda table: maintenance.maintain(table, self._policy, force=force))

    def state_token(self, index: str) -> str | None:
        """The names of the table's manifests: Lance writes one a commit. Does not load the library."""
        if self._folder is None:
            return None
        try:
            names = sorted(p.name for p in (self._folder / f"{index}.lance" / "_versions").iterdir())
        except OSError:
            return None
        return identity.digest(*names)[:16] if names else None

    async def stats(self, index: str) -> IndexStats:
        with self._errors():
            table = await self._open(index)
            stats = await table.stats()
            indices = {i.name: i.num_unindexed_rows for i in await table.list_indices()}
            details = {
                "fragments": stats["fragment_stats"]["num_fragments"],
                "versions": len(await table.list_versions()),
                "unindexed_rows": indices,
            }
            return IndexStats(rows=stats["num_rows"], bytes=stats["total_bytes"], details=details)

    async def indexes(self) -> list[str]:
        with self._errors():
            connection = await self._connect()
            names: list[str] = []
            token = None
            while True:
                try:
                    page = await connection.list_tables(page_token=token, limit=1000)
                except ValueError as e:
                    raise DependencyError(NAME, "cannot list the indexes") from e
                names += page.tables
                token = page.page_token
                if not token:
                    return sorted(names)

    async def drop(self, index: str) -> None:
        async with self._writing(index):
            await (await self._connect()).drop_table(index, ignore_missing=True)

    async def ping(self) -> None:
        await self.indexes()

    async def aclose(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # ── the library ──

    async def _connect(self) -> Any:
        if self._connection is None:
            # 2 CPU seconds: only when something is asked, and in a thread, so that others are served meanwhile.
            lancedb = await asyncio.to_thread(importlib.import_module, "lancedb")
            try:
                self._connection = await lancedb.connect_async(self._url)
            except ValueError as e:
                raise DependencyError(NAME, "cannot open the folder or URL of the index") from e
        return self._connection

    async def _open(self, index: str) -> Any:
        """Open the latest version. The handle stays at it (no read consistency interval)."""
        connection = await self._connect()
        try:
            return await connection.open_table(index)
        except ValueError as e:
            raise self._not_open(index, e) from e

    @staticmethod
    def _not_open(index: str, error: ValueError) -> Exception:
        if "was not found" in str(error):
            return KeyError(index)
        return DependencyError(NAME, f"cannot open the index {index!r}")

    @contextlib.asynccontextmanager
    async def _writing(self, index: str) -> Any:
        async with writer_lock(self._folder, index, self._settings.lock_timeout_s):
            with self._errors():
                yield

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, OSError, pa.ArrowException) as e:
            # Messages of the library may quote a filter or a row: the class says enough, the cause is chained.
            raise DependencyError(NAME, f"{type(e).__name__} from LanceDB") from e
