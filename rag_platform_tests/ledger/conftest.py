"""Every ledger test runs on SQLite and, where there is one, on a real PostgreSQL."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from rag_platform.ledger import Ledger, open_ledger
from rag_platform.settings import Settings
from rag_platform_tests import harness
from rag_platform_tests.ledger import postgres_server

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a server: RAG_TEST_POSTGRES_URL, or one of our own."""
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed")
    given = os.environ.get("RAG_TEST_POSTGRES_URL")
    if given:
        yield given.rsplit("/", 1)[0] + "/"
        return
    folder = postgres_server.binaries()
    if folder is None:
        pytest.skip("no PostgreSQL here: install it, or set RAG_TEST_POSTGRES_URL")
    with postgres_server.running(folder) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings whose ledger is a new, empty database."""
    if request.param == "sqlite":
        yield harness.settings(tmp_path / "home")
        return
    server = request.getfixturevalue("postgres")
    name = f"rag_test_{os.getpid()}_{next(_numbers)}"
    yield harness.settings(tmp_path / "home", RAG_LEDGER_URL=postgres_server.create_database(server, name))
    engine = sa.create_engine(f"{server}postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as c:
        c.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture
def ledger(ledger_settings: Settings) -> Iterator[Ledger]:
    """An open ledger in a new database."""
    opened = open_ledger(ledger_settings)
    yield opened
    opened.close()
