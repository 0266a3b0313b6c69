"""Isolation: no test sees the developer's settings, writes outside its folder, or leaves this machine."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from rag_platform.ingestion.workbench import Workbench
from rag_platform.settings import Settings
from rag_platform_tests import harness

# The same examples in every run: a change is judged by what it changed. RAG_TEST_RANDOM=1 looks for new ones.
hypothesis.settings.register_profile("seeded", derandomize=True, database=None)
if not os.environ.get("RAG_TEST_RANDOM"):
    hypothesis.settings.load_profile("seeded")

_FOREIGN = ("RAG_", "OPENAI_", "DAGSTER_")
_KEPT = ("RAG_TEST_",)


def _is_local(address: Any) -> bool:
    if not isinstance(address, tuple):
        return True  # a Unix socket
    host = str(address[0])
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True, scope="session")
def _only_loopback() -> Iterator[None]:
    """Refuse every connection of this process that would leave the machine."""
    patch = pytest.MonkeyPatch()

    def guarded(original: Callable[[socket.socket, Any], Any]) -> Callable[[socket.socket, Any], Any]:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address):
                raise AssertionError(f"a test tried to reach {address!r}: tests use loopback only")
            return original(self, address)

        return connect

    patch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
    patch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def _isolated_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take the developer's own variables away, and give the test a RAG_HOME of its own."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN) and not name.startswith(_KEPT):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RAG_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real documents beside the checkout."""
    folder = Path(__file__).parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data is not here")
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an empty RAG_HOME in the test's folder."""
    return harness.settings(tmp_path / "home")


@pytest.fixture
def bench(settings: Settings) -> Iterator[Workbench]:
    """A workbench on ``settings``."""
    with Workbench(settings) as workbench:
        yield workbench


@pytest.fixture
def tree(tmp_path: Path) -> harness.Tree:
    """An empty folder of documents."""
    return harness.Tree(tmp_path / "documents")
