"""The workbench as a Dagster resource: one a run, closed at its end."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import dagster as dg
from pydantic import PrivateAttr

from rag_platform.ingestion.workbench import Workbench
from rag_platform.settings import Settings


class PlatformResource(dg.ConfigurableResource["PlatformResource"]):
    """Opens the platform that the ``RAG_…`` environment describes.

    There is nothing to configure here on purpose: run configuration is stored and shown by Dagster,
    and secrets and places come from the environment alone.
    """

    _bench: Workbench | None = PrivateAttr(default=None)

    def settings(self) -> Settings:
        """The settings that the platform is opened with."""
        return Settings.from_env()

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator[PlatformResource, None, None]:
        with Workbench(self.settings()) as bench:
            self._bench = bench
            try:
                yield self
            finally:
                self._bench = None

    @property
    def bench(self) -> Workbench:
        """The open workbench of this run."""
        if self._bench is None:
            raise RuntimeError("the platform resource is only open inside a run")
        return self._bench
