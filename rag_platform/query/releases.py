"""Which release answers: looked at every few seconds, remembered while the ledger does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from rag_platform import metrics
from rag_platform.errors import DependencyError, RagError
from rag_platform.ledger import Ledger
from rag_platform.ledger.releases import Release

LOOK_TIMEOUT_S = 5.0


class ReleaseWatch:
    """The serving release of a ledger.

    Args:
        poll_s: seconds between two looks.
        switch: awaited with the release that served (None: the first) and the one that does now, before any
            question is told of it.
    """

    def __init__(self, ledger: Ledger, poll_s: float, switch: Callable[[Release | None, Release], Awaitable[None]]):
        self._ledger, self._poll_s, self._switch = ledger, poll_s, switch
        self._release: Release | None = None
        self._looked_at = 0.0
        self._thread = ThreadPoolExecutor(1, "release-watch")  # a ledger that hangs holds up this one alone
        self._look: asyncio.Task[None] | None = None
        self.problem: RagError | TimeoutError | None = None
        """Why the last look failed; the release found before stays."""

    async def serving(self, timeout_s: float) -> Release | None:
        """Return the serving release. Waits only when none has been seen yet; a stale one is looked up again
        in the background.

        Raises:
            DependencyError: the ledger has not answered so far.
        """
        now = time.monotonic()
        if now - self._looked_at >= self._poll_s and (self._look is None or self._look.done()):
            self._looked_at = now
            self._look = asyncio.create_task(self._refresh())
        if self._release is None and self._look is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await asyncio.shield(self._look)
        if self._release is None and self.problem is not None:
            raise DependencyError("ledger", "cannot say which release serves") from self.problem
        return self._release

    async def aclose(self) -> None:
        if self._look is not None and not self._look.done():
            self._look.cancel()
            await asyncio.wait([self._look])
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                loop = asyncio.get_running_loop()
                release = await loop.run_in_executor(self._thread, self._ledger.releases.serving)
        except (RagError, TimeoutError) as e:
            self.problem = e
            return
        self.problem = None
        if release is not None and (self._release is None or release.release_id != self._release.release_id):
            await self._switch(self._release, release)
            metrics.RELEASE_INFO.clear()
            metrics.RELEASE_INFO.labels(release.release_id).set(1)
        self._release = release
