"""The ledger as one object."""

from __future__ import annotations

from rag_platform.ledger.artifacts import Artifacts
from rag_platform.ledger.database import Database
from rag_platform.ledger.dead_letters import DeadLetters
from rag_platform.ledger.documents import Documents
from rag_platform.ledger.evaluations import Evaluations
from rag_platform.ledger.feedback import FeedbackTable
from rag_platform.ledger.keys import Keys
from rag_platform.ledger.query_log import QueryLogTable
from rag_platform.ledger.releases import Releases
from rag_platform.ledger.replicas import Replicas
from rag_platform.ledger.runs import Runs
from rag_platform.ledger.sources import Sources
from rag_platform.settings import Settings


class Ledger:
    """All concerns of the ledger over one ``Database``."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.sources = Sources(database)
        self.documents = Documents(database)
        self.artifacts = Artifacts(database)
        self.releases = Releases(database)
        self.replicas = Replicas(database)
        self.dead_letters = DeadLetters(database)
        self.runs = Runs(database)
        self.keys = Keys(database)
        self.query_log = QueryLogTable(database)
        self.feedback = FeedbackTable(database)
        self.evaluations = Evaluations(database)

    def close(self) -> None:
        self.database.close()


def open_ledger(settings: Settings, *, lazy: bool = False) -> Ledger:
    """Open (and create or migrate) the ledger that the settings name; with ``lazy`` at its first use.

    Raises:
        ConfigurationError: the URL cannot be used.
        DependencyError: the database does not answer.
    """
    database = Database(
        settings.resolved_ledger_url,
        lock_folder=settings.root / "locks",
        lazy=lazy,
        timeout_s=settings.ledger_timeout_s,
    )
    return Ledger(database)
