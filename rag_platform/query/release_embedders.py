"""What questions are embedded with: the embedder that made the serving release, whatever the settings say.

The embedder of another release is opened before that begins to serve, and the one before is closed when the last
question that uses it has ended. Releases of one embedder share it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from rag_platform import backends
from rag_platform.backends.embedders.base import Embedder
from rag_platform.backends.guard import BREAKER_FAILURES, Guard
from rag_platform.errors import ConfigurationError
from rag_platform.ledger.releases import Release
from rag_platform.query.closing import Closing, in_time
from rag_platform.query.embedders import embedder_guard, embedder_of, fingerprint_of
from rag_platform.settings import Settings

OPEN_TIMEOUT_S = 10.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class ReleaseEmbedder:
    """An embedder in use.

    Attributes:
        problem: why ``embedder`` is not the one that made the release: only its tokens may be counted with it, its
            vectors mean nothing to the index. None: it is the one.
        owned: whether it is closed here.
        users: questions that are using it.
    """

    embedder: Embedder
    guard: Guard
    problem: ConfigurationError | None = None
    owned: bool = True
    users: int = 0


class ReleaseEmbedders:
    """The embedders of a query service. Belongs to one event loop.

    Args:
        given: an embedder of the caller's, used for every release that it fits, and before there is one; its owner
            closes it.
        failures: in a row, after which an embedder is not called for a while.

    Raises:
        ConfigurationError: the embedder that the settings name cannot be built.
    """

    def __init__(self, settings: Settings, given: Embedder | None = None, *, failures: int = BREAKER_FAILURES) -> None:
        self._settings, self._given, self._failures = settings, given, failures
        self.named: Embedder = given or backends.load("embedders", settings.embedder).build(settings)
        """The one of the settings: a mistake in them is told at the start."""
        self._current = self.named.spec.fingerprint
        self._next: str | None = None
        self._opened = {self._current: self._entry(self.named, owned=given is None)}
        self._closing = Closing()

    @contextlib.contextmanager
    def use(self, release: Release) -> Iterator[ReleaseEmbedder]:
        """Hold the release's embedder open during the block. Connects to nothing."""
        opened = self._opened.get(fingerprint_of(release))
        if opened is None:  # a question that was told of the release just before another one took over
            opened = self._opened[fingerprint_of(release)] = self._built(release)
        opened.users += 1
        try:
            yield opened
        finally:
            opened.users -= 1
            self._close_unused()

    async def prepare(self, before: Release | None, release: Release) -> None:
        """Build the embedder of a release that is about to serve and, unless it is the first, ask it for a vector,
        for a while: one that cannot be reached is then used all the same, as one that went down."""
        self._next = fingerprint = fingerprint_of(release)
        if fingerprint not in self._opened:
            built = await asyncio.to_thread(self._built, release)  # may import an SDK and read files
            self._opened.setdefault(fingerprint, built)
        if before is not None and fingerprint != self._current:
            await self._connect(fingerprint)

    def switch(self, release: Release) -> None:
        """Make this the release that serves: called after ``prepare``, before the first question is asked of it."""
        self._current, self._next = fingerprint_of(release), None
        self._close_unused()

    async def warm_up(self) -> None:
        """Ask the current embedder for a vector; a failure is said by ``ping``."""
        await self._connect(self._current)

    async def ping(self) -> None:
        """
        Raises:
            ConfigurationError: the embedder of the serving release cannot be built here.
            DependencyError: it fails.
        """
        opened = self._opened[self._current]
        if opened.problem is not None:
            raise opened.problem
        await opened.embedder.ping()

    async def aclose(self) -> None:
        """Close every embedder that was built here, each for a bounded time."""
        owned = [o for o in self._opened.values() if o.owned]
        for opened in owned:
            opened.owned = False  # what ends later closes it no second time
        await asyncio.gather(self._closing.wait(), *(in_time(o.embedder.aclose()) for o in owned))

    # ── inner workings ──

    def _entry(self, embedder: Embedder, *, owned: bool, problem: ConfigurationError | None = None) -> ReleaseEmbedder:
        return ReleaseEmbedder(embedder, embedder_guard(self._settings, self._failures), problem, owned)

    def _built(self, release: Release) -> ReleaseEmbedder:
        if self._given is not None and self._given.spec.fingerprint == fingerprint_of(release):
            return self._entry(self._given, owned=False)
        try:
            return self._entry(embedder_of(release, self._settings), owned=True)
        except ConfigurationError as e:
            _log.warning("questions are answered by words alone: %s", e)
            return self._entry(self.named, owned=False, problem=e)

    async def _connect(self, fingerprint: str) -> None:
        opened = self._opened[fingerprint]
        if opened.problem is None:
            opened.users += 1  # the release may change meanwhile
            try:
                await in_time(opened.embedder.ping(), OPEN_TIMEOUT_S)
            finally:
                opened.users -= 1
                self._close_unused()

    def _close_unused(self) -> None:
        kept = (self._current, self._next)
        for fingerprint in [f for f, o in self._opened.items() if f not in kept and o.users == 0]:
            opened = self._opened.pop(fingerprint)
            if opened.owned:
                self._closing.begin(opened.embedder.aclose())
