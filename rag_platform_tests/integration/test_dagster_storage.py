"""Dagster's runs, events and schedules on a real PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml

from rag_platform.commands.dagster_home import VARIABLE, prepare_dagster_home
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform_tests import harness
from rag_platform_tests.integration.rag_command import Rag
from rag_platform_tests.ledger import postgres_server
from rag_platform_tests.ledger.postgres_server import PostgresServer


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    pytest.importorskip("dagster_postgres")
    folder = postgres_server.binaries()
    if folder is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    with postgres_server.started(folder) as running:
        yield running


def storages(home: Path) -> set[Path]:
    """Return every SQLite database below a home, but the ledger."""
    found = set()
    for path in home.rglob("*"):
        if path.is_file() and path.read_bytes().startswith(b"SQLite format 3"):
            found.add(path.relative_to(home))
    return found - {Path("ledger.sqlite")}


@pytest.mark.slow
def test_runs_are_kept_in_postgresql(server: PostgresServer, tmp_path: Path) -> None:
    """With RAG_DAGSTER_POSTGRES_URL `rag ingest` writes its run there, also when the URL names no driver, and nothing
    into SQLite; dagster's own command reads it back, after a restart of the server as well, and the history goes on.
    A server that is away is an error that names the setting, and no stack trace."""
    docs = harness.Tree(tmp_path / "docs")
    docs.write("a.md", "The crane lifts four tonnes.")
    plain = server.url.replace("+psycopg2", "") + "postgres"
    rag = Rag(tmp_path / "home", {VARIABLE: plain})
    first = rag.json("ingest", "--source", str(docs.root), "--name", "docs")
    assert first["added"] == 1
    assert storages(rag.home) == set()
    server.kill()
    away = rag("ingest", code=1)
    assert VARIABLE in away.stderr and "Traceback" not in away.stderr and "refused" in away.stderr
    assert VARIABLE in rag("up", "--port", "0", "--api-port", "0", code=1).stderr
    server.start()
    second = rag.json("ingest")
    assert storages(rag.home) == set()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAG_", "DAGSTER_"))}
    environment |= {"DAGSTER_HOME": str(rag.home / "dagster"), VARIABLE: server.url + "postgres"}
    listed = subprocess.run(
        [sys.executable, "-m", "dagster", "run", "list"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    assert first["run_id"] in listed and second["run_id"] in listed
    engine = sa.create_engine(server.url + "postgres")
    with engine.connect() as c:
        runs = c.execute(sa.text("SELECT run_id, status FROM runs ORDER BY id")).all()
        assert [tuple(r) for r in runs] == [(first["run_id"], "SUCCESS"), (second["run_id"], "SUCCESS")]
        assert c.execute(sa.text("SELECT count(*) FROM event_logs")).scalar_one() > 20
    engine.dispose()
    assert VARIABLE in Rag(rag.home)("ingest", code=2).stderr, "half a history would begin in SQLite"


def test_the_storage_block_is_added_once(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An existing dagster.yaml keeps what it says and gets the block; taking the setting away is refused."""
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv(VARIABLE, "")
    plain = harness.settings(tmp_path / "home")
    target = prepare_dagster_home(plain) / "dagster.yaml"
    target.write_text(target.read_text() + "# mine\nschedules: {use_threads: true}\n")
    on_server = harness.settings(tmp_path / "home", **{VARIABLE: server.url + "postgres"})
    for _ in range(2):
        prepare_dagster_home(on_server)
        text = target.read_text()
        config = yaml.safe_load(text)
        assert text.count("storage:") == 1 and "# mine" in text and config["schedules"] == {"use_threads": True}
        assert config["storage"] == {"postgres": {"postgres_url": {"env": VARIABLE}}}
        assert "127.0.0.1" not in text
        assert os.environ[VARIABLE].startswith("postgresql+psycopg2://") and "connect_timeout=5" in os.environ[VARIABLE]
    with pytest.raises(ConfigurationError, match=VARIABLE):
        prepare_dagster_home(plain)


def test_another_storage_is_not_overruled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage that an operator has written into dagster.yaml stands; the setting beside it is a contradiction."""
    monkeypatch.setenv("DAGSTER_HOME", "")
    settings = harness.settings(tmp_path / "home", **{VARIABLE: "postgresql+psycopg2://u:secret@127.0.0.1:1/d"})
    settings.dagster_home.mkdir(parents=True)
    (settings.dagster_home / "dagster.yaml").write_text("storage: {sqlite: {base_dir: /nowhere}}\n")
    with pytest.raises(ConfigurationError, match="another storage") as caught:
        prepare_dagster_home(settings)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@h/d", "postgresql+asyncpg://u:secret@h/d", "u:secret@h", "://secret"]
)
def test_a_wrong_url_is_refused(url: str, tmp_path: Path) -> None:
    """Names the setting, shows none of it."""
    pytest.importorskip("dagster_postgres")
    with pytest.raises(ConfigurationError, match=VARIABLE) as caught:
        prepare_dagster_home(harness.settings(tmp_path / "home", **{VARIABLE: url}))
    assert "secret" not in str(caught.value)


def test_a_server_that_is_away_or_refuses(server: PostgresServer, tmp_path: Path) -> None:
    """Both name the setting and the reason, and not the password."""
    pytest.importorskip("dagster_postgres")
    for url, reason in (
        ("postgresql://u:secret@127.0.0.1:1/d", "refused"),
        (f"postgresql://u:secret@127.0.0.1:{server.port}/d", "does not exist"),
    ):
        with pytest.raises(DependencyError, match=reason) as caught:
            prepare_dagster_home(harness.settings(tmp_path / "home", **{VARIABLE: url}))
        assert VARIABLE in str(caught.value) and "secret" not in str(caught.value)
    assert not (tmp_path / "home" / "dagster" / "storage").exists()
