"""A running API around a fake service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rag_platform_tests import harness
from rag_platform_tests.serve.api_server import ApiServer, eventually


@pytest.fixture
def start_api(tmp_path: Path) -> Iterator[Callable[..., ApiServer]]:
    """Start an API whose settings have these ``RAG_…`` variables; it ends with the test."""
    with ExitStack() as stack:

        def start(**environ: str) -> ApiServer:
            return stack.enter_context(ApiServer(harness.settings(tmp_path / "home", **environ)))

        yield start


@pytest.fixture(scope="module")
def _running_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(harness.settings(tmp_path_factory.mktemp("api") / "home")) as running:
        yield running


@pytest.fixture
def api(_running_api: ApiServer) -> Iterator[ApiServer]:
    """An API with the default settings, shared by the tests of a file; its fake service has forgotten the others."""
    yield _running_api
    _running_api.service.release()
    eventually(lambda: _running_api.service.running == 0, "what a test left behind has ended")
    _running_api.service.reset()
