"""A real PostgreSQL on which deploy/postgres/databases.sh was run, as the image runs it at its first start."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from rag_platform_tests.integration.deploy_files import DEPLOY
from rag_platform_tests.ledger import postgres_server

PASSWORDS = {"ledger": "1edger", "dagster": "da9ster", "phoenix": "ph0enix"}


@dataclass(frozen=True)
class Databases:
    """The server's address, without a database, as its owner reaches it."""

    owner_url: str

    def url(self, name: str) -> str:
        """Return the URL of a database as its own account, in the form of compose.yaml."""
        url = sa.make_url(f"{self.owner_url}{name}")
        return url.set(username=name, password=PASSWORDS[name]).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """A server of our own, because roles belong to a server and not to a database."""
    folder = postgres_server.binaries()
    if folder is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    with postgres_server.running(folder) as url:
        server = sa.make_url(url)
        environment = {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PGHOST": str(server.host),
            "PGPORT": str(server.port),
            "POSTGRES_USER": str(server.username),
            "POSTGRES_DB": "postgres",
        }
        environment |= {f"{name.upper()}_DB_PASSWORD": password for name, password in PASSWORDS.items()}
        script = ["sh", str(DEPLOY / "postgres" / "databases.sh")]
        subprocess.run(script, check=True, env=environment, capture_output=True, timeout=60)
        yield Databases(url)
