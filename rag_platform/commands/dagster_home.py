"""DAGSTER_HOME: Dagster's instance settings and where it keeps runs, events and schedules."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import yaml

from rag_platform.commands.console import project_root
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.settings import Settings

VARIABLE = "RAG_DAGSTER_POSTGRES_URL"
DEPENDENCY = "dagster storage"

_FALLBACK = "telemetry:\n  enabled: false\n"
_STORAGE = f"""\
# Added by `rag`, because {VARIABLE} is set.
storage:
  postgres:
    postgres_url:
      env: {VARIABLE}
"""
_STORAGES = {"storage", "run_storage", "event_log_storage", "schedule_storage"}


def prepare_dagster_home(settings: Settings) -> Path:
    """Create DAGSTER_HOME with its dagster.yaml (what an existing one says is kept) and point Dagster to it.

    Raises:
        ConfigurationError: the setting and dagster.yaml disagree about the storage.
        DependencyError: the storage does not answer.
    """
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    target = home / "dagster.yaml"
    if not target.exists():
        template = project_root() / "dagster.yaml"
        if template.exists():
            shutil.copyfile(template, target)
        else:
            target.write_text(_FALLBACK, encoding="utf-8")
    _choose_storage(settings, target)
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def check_storage(settings: Settings) -> sa.URL | None:
    """Ask the server that keeps Dagster's history; returns its URL, or None for SQLite.

    Raises:
        ConfigurationError: the URL cannot be used, or a package is missing.
        DependencyError: it does not answer. Names the setting.
    """
    if settings.dagster_postgres_url is None:
        return None
    if importlib.util.find_spec("dagster_postgres") is None:
        raise ConfigurationError(f"{VARIABLE} needs dagster-postgres: run `pip install 'rag-platform[postgres]'`")
    from rag_platform.ledger.postgres import PATIENCE, with_driver

    url = with_driver(settings.dagster_postgres_url, VARIABLE)
    url = url.update_query_dict({k: str(v) for k, v in PATIENCE.items() if k not in url.query})
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with storage_errors(settings), engine.connect() as connection:
        connection.execute(sa.select(1))
    return url


@contextlib.contextmanager
def storage_errors(settings: Settings) -> Iterator[None]:
    """Turn what a failed storage raises into a DependencyError that says where to look."""
    where = "SQLite below RAG_HOME" if settings.dagster_postgres_url is None else f"PostgreSQL ({VARIABLE})"
    try:
        yield
    except sa.exc.DBAPIError as e:
        raise DependencyError(DEPENDENCY, f"{where} failed: {_first_line(e.orig)}") from e
    except Exception as e:
        # dagster-postgres gives up after some tries with an error of its own, which only it knows.
        if type(e).__name__ != "DagsterPostgresException":
            raise
        raise DependencyError(DEPENDENCY, f"{where} failed: {_first_line(e.__cause__ or e)}") from e


def _choose_storage(settings: Settings, target: Path) -> None:
    config = yaml.safe_load(target.read_text("utf-8")) or {}
    present = _STORAGES & set(config)
    ours = _env_of(config.get("storage")) == VARIABLE
    if settings.dagster_postgres_url is None:
        if ours:  # to go on in SQLite would leave half of the history behind without a word
            raise ConfigurationError(
                f"{target} keeps Dagster's runs in PostgreSQL: set {VARIABLE}, or delete its storage block for SQLite"
            )
        return
    if present and not ours:
        raise ConfigurationError(f"{VARIABLE} is set, but {target} names another storage: remove one of the two")
    url = check_storage(settings)
    assert url is not None
    # The name under which dagster.yaml, and every process that we start, finds it with its driver.
    os.environ[VARIABLE] = url.render_as_string(hide_password=False)
    if not present:
        written = target.with_name(f".{target.name}.{os.getpid()}")
        written.write_text(f"{target.read_text('utf-8').rstrip()}\n{_STORAGE}", encoding="utf-8")
        written.replace(target)  # at once: another command may be reading it


def _env_of(storage: Any) -> Any:
    """Return the variable that a storage block takes its URL from."""
    for name in ("postgres", "postgres_url", "env"):
        storage = storage.get(name) if isinstance(storage, dict) else None
    return storage


def _first_line(error: BaseException | None) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
