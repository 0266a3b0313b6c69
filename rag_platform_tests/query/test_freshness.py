"""Whether an answer's documents are still as they were, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_platform.errors import DependencyError
from rag_platform.ledger import Ledger, open_ledger
from rag_platform.ledger.documents import IndexEntry
from rag_platform.ledger.query_log import QueryLogRow
from rag_platform.query.freshness import Freshness
from rag_platform.settings import Settings
from rag_platform_tests import harness
from rag_platform_tests.ledger.conftest import ledger, ledger_settings, postgres  # noqa: F401 - fixtures

PATIENT_S = 20.0
RELEASE = "r-1"


def index(ledger: Ledger, *entries: tuple[str, str], release: str = RELEASE) -> None:  # noqa: F811
    ledger.documents.mark_indexed(release, [(IndexEntry(d, v, "c", "m", 1), "0") for d, v in entries], "run")


def standing(freshness: Freshness, versions: dict[str, str], release: str = RELEASE) -> str:
    return asyncio.run(freshness.standing(release, versions))


@pytest.fixture
def queries(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:  # noqa: F811
    """Every look at the ledger's rows, as it happens."""
    seen: list[Any] = []
    original = ledger.releases.versions

    def versions(release_id: str, document_ids: Any) -> Any:
        seen.append(set(document_ids))
        return original(release_id, document_ids)

    monkeypatch.setattr(ledger.releases, "versions", versions)
    yield seen


def test_every_change_is_seen(ledger: Ledger) -> None:  # noqa: F811
    """P11: a new version, a replacement under way, a deletion and another release are not current; the way back is."""
    freshness = Freshness(ledger, timeout_s=PATIENT_S)
    index(ledger, ("a", "1"), ("b", "1"))
    both = {"a": "1", "b": "1"}
    assert standing(freshness, both) == "current" == standing(freshness, both)
    assert standing(freshness, both, "r-2") == "outdated"
    assert standing(freshness, {**both, "c": "1"}) == "outdated"
    assert standing(freshness, {}) == "outdated"
    index(ledger, ("b", "2"))
    assert standing(freshness, both) == "outdated"
    assert standing(freshness, {"a": "1"}) == "current"
    ledger.documents.mark_dirty_ids(RELEASE, ["a"])
    assert standing(freshness, {"a": "1"}) == "outdated"
    index(ledger, ("a", "1"))
    assert standing(freshness, {"a": "1"}) == "current"
    ledger.documents.forget_entries(RELEASE, ["a"])
    assert standing(freshness, {"a": "1"}) == "outdated"
    assert asyncio.run(freshness.current(RELEASE, {"b": "2"})) is True


def test_another_process_is_seen(ledger: Ledger, ledger_settings: Settings) -> None:  # noqa: F811
    """What another program commits counts at once, although nobody tells this one."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom rag_platform.ledger.database import Database\n"
        "from rag_platform.ledger.documents import Documents\n"
        "db = Database(sys.argv[1], lock_folder=Path(sys.argv[2]))\n"
        "for line in sys.stdin:\n    Documents(db).forget_entries('r-1', [line.strip()])\n    print('done', flush=True)\n"
    )
    arguments = [
        sys.executable,
        "-c",
        program,
        ledger_settings.resolved_ledger_url,
        str(ledger_settings.root / "locks"),
    ]
    freshness = Freshness(ledger, timeout_s=PATIENT_S)
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None and other.stdout is not None
        for n in range(5):
            index(ledger, (f"d{n}", "1"))
            assert standing(freshness, {f"d{n}": "1"}) == "current"
            other.stdin.write(f"d{n}\n")
            other.stdin.flush()
            assert other.stdout.readline() == "done\n"
            assert standing(freshness, {f"d{n}": "1"}) == "outdated"
        other.stdin.close()


def test_an_unchanged_sqlite_ledger_is_asked_once(ledger: Ledger, queries: list[Any]) -> None:  # noqa: F811
    """Until somebody commits, a look costs no query; PostgreSQL is asked each time."""
    freshness = Freshness(ledger, timeout_s=PATIENT_S)
    index(ledger, *((f"d{n}", "1") for n in range(20)))
    for _ in range(3):
        assert standing(freshness, {f"d{n}": "1" for n in range(10)}) == "current"
        assert standing(freshness, {f"d{n}": "1" for n in range(3)}) == "current"
    assert len(queries) == (1 if ledger.database.is_sqlite else 6)
    index(ledger, ("d3", "2"))
    assert standing(freshness, {"d3": "1"}) == "outdated" == standing(freshness, {"d3": "1"})
    assert len(queries) == (2 if ledger.database.is_sqlite else 8)


def test_many_at_once_are_few_queries(
    ledger: Ledger,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many ask while a query runs, one more query answers them all."""
    freshness = Freshness(ledger, timeout_s=PATIENT_S)
    index(ledger, *((f"d{n}", "1") for n in range(300)))
    original, all_wait, queries = ledger.releases.versions, threading.Event(), []

    def versions(release_id: str, document_ids: Any) -> Any:
        all_wait.wait(PATIENT_S)
        queries.append(len(document_ids))
        return original(release_id, document_ids)

    monkeypatch.setattr(ledger.releases, "versions", versions)

    async def main() -> list[str]:
        asking = [asyncio.create_task(freshness.standing(RELEASE, {f"d{n}": "1"})) for n in range(300)]
        await asyncio.sleep(0)  # each has now run until it had to wait
        all_wait.set()
        return await asyncio.gather(*asking)

    assert set(asyncio.run(main())) == {"current"}
    assert len(queries) <= 2 and sum(queries) == 300


def test_a_ledger_that_does_not_answer_is_asked_once_and_left_alone(
    ledger: Ledger,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not known is not current; the next ones do not wait, other threads are not used up, and it recovers."""
    index(ledger, ("a", "1"))
    freshness = Freshness(ledger, timeout_s=1.0)
    original, frozen = ledger.releases.versions, threading.Event()

    def stuck(release_id: str, document_ids: Any) -> Any:
        frozen.wait(60)
        return original(release_id, document_ids)

    monkeypatch.setattr(ledger.releases, "versions", stuck)

    async def main() -> None:
        started = time.monotonic()
        found = await asyncio.gather(*(freshness.standing(RELEASE, {"a": "1"}) for _ in range(50)))
        assert set(found) == {"unknown"}
        for _ in range(20):
            assert await freshness.standing(RELEASE, {"a": "1"}) == "unknown"
        assert time.monotonic() - started < 20  # not a second for each of the seventy
        assert sum(t.name == "freshness" for t in threading.enumerate()) <= 4
        frozen.set()
        async with asyncio.timeout(30):
            while await freshness.standing(RELEASE, {"a": "1"}) != "current":
                await asyncio.sleep(0.02)

    try:
        asyncio.run(main())
    finally:
        frozen.set()


def test_a_broken_ledger_is_unknown(tmp_path: Path) -> None:
    """A database that can no longer be read raises nothing here and is not "outdated", which would empty the cache."""
    settings = harness.settings(tmp_path / "home")
    opened = open_ledger(settings)
    index(opened, ("a", "1"))
    freshness = Freshness(opened, timeout_s=PATIENT_S)
    assert standing(freshness, {"a": "1"}) == "current"
    opened.close()
    for path in settings.root.glob("ledger.sqlite*"):
        path.write_bytes(b"no database" * 1000)
    assert standing(freshness, {"a": "1"}) == "unknown"
    with pytest.raises(DependencyError):
        opened.database.index_token()
    opened.close()


def test_the_index_token_moves_with_changes_of_an_index_only(tmp_path: Path) -> None:
    """Reading and the query log do not move it; each commit of entries does, also through this ledger's own
    connections; threads may ask."""
    opened = open_ledger(harness.settings(tmp_path / "home"))
    try:
        token = opened.database.index_token()
        assert token is not None
        opened.releases.versions(RELEASE, ["a"])
        opened.query_log.add([QueryLogRow(request_id="q", at=0.0, tenant="t", profile="fast")])
        assert opened.database.index_token() == token
        seen = [token]
        for n in range(5):
            index(opened, (f"d{n}", "1"))
            found: list[str | None] = []
            thread = threading.Thread(target=lambda found=found: found.append(opened.database.index_token()))
            thread.start()
            thread.join()
            assert found[0] is not None and found[0] not in seen
            seen.append(found[0])
    finally:
        opened.close()
