"""One platform of real processes for all tests that break its parts; they share an xdist group."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rag_platform_tests.faults import corpus
from rag_platform_tests.faults.corpus import Asked
from rag_platform_tests.faults.platform_process import Api, Platform, running_platform


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Every dependency, running, with the corpus indexed."""
    with running_platform(tmp_path_factory.mktemp("platform")) as running:
        yield running


@pytest.fixture(scope="session")
def api(platform: Platform) -> Iterator[Api]:
    """A server on it that has answered in full."""
    with platform.serving() as running:
        running.until_full("How heavy is the Larch pump?", deadline_s=20, use_cache=False)
        yield running


@pytest.fixture(scope="session")
def fresh() -> Iterator[Asked]:
    """Questions that no test has asked before."""
    return corpus.questions()
