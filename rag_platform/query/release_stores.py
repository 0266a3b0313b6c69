"""Where the serving release is searched: the store that the release names, whatever the settings say.

A release in another store is opened before it begins to serve, and the store of the one before is closed when the
last question that uses it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag_platform.backends.guard import BREAKER_FAILURES, Guard
from rag_platform.backends.open_stores import OpenStores, needs_replica
from rag_platform.backends.vector_stores.base import Capabilities, SearchRequest, SearchResult, VectorStore
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.ledger.releases import Release
from rag_platform.query.closing import Closing, in_time
from rag_platform.query.replica import KeywordReplica, VersionsOf
from rag_platform.records import Hit, Principal
from rag_platform.settings import Settings

OPEN_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class ReleaseIndex:
    """A release and what it is searched with. ``replica`` None: ``store`` needs none, or none is kept."""

    release: Release
    store: VectorStore
    guard: Guard
    replica: KeywordReplica | None


class UnusableStore:
    """Stands for a store that cannot even be built here: every call fails, so that the replica answers."""

    capabilities = Capabilities(
        atomic_replace=False, keyword=True, exact_count=False, multi_process_read=True, survives_server_outage=False
    )

    def __init__(self, name: str, error: ConfigurationError) -> None:
        self._name, self._error = name, error

    async def ping(self) -> None:
        raise DependencyError(f"vector_store:{self._name}", str(self._error), retryable=False) from self._error

    async def search(self, index: str, request: SearchRequest) -> SearchResult:
        await self.ping()
        raise AssertionError("unreachable")

    async def get(self, index: str, chunk_ids: Sequence[str], principal: Principal) -> list[Hit]:
        await self.ping()
        raise AssertionError("unreachable")


@dataclass(slots=True)
class _Opened:
    store: Any
    guard: Guard
    users: int = 0


class ReleaseStores:
    """The stores of a query service.

    Args:
        versions: asked about everything that comes from a keyword replica.
        given: stores of the caller's, by name.
        failures: in a row, after which a store is not called for a while.

    Raises:
        ConfigurationError: the store that the settings name cannot be built.
    """

    def __init__(
        self,
        settings: Settings,
        versions: VersionsOf,
        given: Mapping[str, VectorStore] | None = None,
        *,
        failures: int = BREAKER_FAILURES,
    ) -> None:
        self._settings, self._failures = settings, failures
        self._stores = OpenStores(settings, given)
        self._stores.get(settings.vector_store)  # a mistake in the settings is told at the start
        self._current = settings.vector_store
        self._opened: dict[str, _Opened] = {}
        replica = self._stores.replica
        self._replica = None if replica is None else KeywordReplica(replica, versions)
        self._closing = Closing()

    @contextlib.contextmanager
    def use(self, release: Release) -> Iterator[ReleaseIndex]:
        """Hold the release's store open during the block. Connects to nothing."""
        opened = self._open(release.store)
        opened.users += 1
        try:
            yield ReleaseIndex(release, opened.store, opened.guard, self._replica_of(opened))
        finally:
            opened.users -= 1
            self._close_unused()

    async def switch(self, before: Release | None, release: Release) -> None:
        """Make this the release that serves: called before the first question is asked of it.

        Its store is connected to first, for a while; one that cannot be reached then is searched all the same, as
        a store that went down: what the old release holds is no longer kept up to date.
        """
        if before is not None and before.store != release.store:
            await self._connect(release.store)
        self._current = release.store
        self._close_unused()

    async def warm_up(self) -> None:
        """Connect to what the current release is searched with; a failure is said by ``ping``."""
        await self._connect(self._current)

    async def ping(self) -> None:
        """Raise ``DependencyError`` when the store of the serving release cannot be used."""
        await self._open(self._current).store.ping()

    def replica(self) -> KeywordReplica | None:
        """Return the keyword replica, when the store of the serving release needs one and one is kept."""
        return self._replica_of(self._open(self._current))

    async def aclose(self) -> None:
        self._opened.clear()
        await self._closing.wait()
        await in_time(self._stores.aclose())

    # ── inner workings ──

    def _open(self, name: str) -> _Opened:
        if name not in self._opened:
            try:
                store: Any = self._stores.get(name)
            except ConfigurationError as e:
                store = UnusableStore(name, e)
            guard = Guard("vector_store", concurrency=8 * self._settings.cores, failures=self._failures, pause_s=1.0)
            self._opened[name] = _Opened(store, guard)
        return self._opened[name]

    def _replica_of(self, opened: _Opened) -> KeywordReplica | None:
        return self._replica if needs_replica(opened.store.capabilities) else None

    async def _connect(self, name: str) -> None:
        opened = self._open(name)
        replica = self._replica_of(opened)
        opened.users += 1  # a question may end meanwhile, and this is not the current store yet
        try:
            pings = [opened.store.ping(), *([replica.ping()] if replica else [])]
            await in_time(asyncio.gather(*pings, return_exceptions=True), OPEN_TIMEOUT_S)
        finally:
            opened.users -= 1

    def _close_unused(self) -> None:
        for name in [n for n, o in self._opened.items() if n != self._current and o.users == 0]:
            del self._opened[name]
            store = self._stores.take(name)
            if store is not None:
                self._closing.begin(store.aclose())
