"""A ledger that schema version 1 has made, opened by this program."""

from __future__ import annotations

import threading
from pathlib import Path

import sqlalchemy as sa

from rag_platform.ledger import open_ledger, schema
from rag_platform.ledger.feedback import FeedbackRow
from rag_platform.ledger.keys import KeyUse
from rag_platform.ledger.query_log import QueryLogRow
from rag_platform.settings import Settings

VERSION_1 = Path(__file__).with_name("version_1.sql")


def make_version_1(settings: Settings) -> None:
    """Create the tables of version 1, with a run and a release in them."""
    url = sa.engine.make_url(settings.resolved_ledger_url)
    settings.root.mkdir(parents=True, exist_ok=True)
    text = "".join(line for line in VERSION_1.read_text("utf-8").splitlines(True) if not line.startswith("--"))
    if url.get_backend_name() == "postgresql":
        text = text.replace("segment_id INTEGER NOT NULL, stage TEXT", "segment_id SERIAL NOT NULL, stage TEXT")
    engine = sa.create_engine(url)
    with engine.begin() as c:
        for statement in filter(str.strip, text.split(";\n")):
            c.exec_driver_sql(statement)
        c.exec_driver_sql("INSERT INTO ledger_version (version) VALUES (1)")
        c.exec_driver_sql("INSERT INTO runs (run_id, started_at, sources) VALUES ('old run', 1.5, '[\"docs\"]')")
        c.exec_driver_sql(
            "INSERT INTO releases (release_id, index_name, fingerprint, pipeline, state, created_at) "
            "VALUES ('r-1', 'chunks_1', '1', '{}', 'serving', 1.0)"
        )
    engine.dispose()


def test_a_ledger_of_version_1_gets_the_new_tables_and_keeps_its_rows(ledger_settings: Settings) -> None:
    """After opening it once, old rows are there, the new tables work, and its schema equals a new ledger's."""
    make_version_1(ledger_settings)
    ledger = open_ledger(ledger_settings)
    try:
        old = ledger.runs.get("old run")
        assert old is not None and old.sources == ("docs",)
        serving = ledger.releases.serving()
        assert serving is not None and (serving.release_id, serving.store) == ("r-1", "lancedb")
        key, _ = ledger.keys.create(name="n", tenant="t")
        ledger.keys.add_usage([KeyUse(key.key_id, "2026-11-22", 1, 2, 0.5, 3.0)])
        ledger.query_log.add([QueryLogRow(request_id="q", at=0.0, tenant="t", profile="fast", key_id=key.key_id)])
        assert ledger.feedback.put(FeedbackRow(request_id="q", key_id=key.key_id, rating=1, comment=None, at=0.0))
        with ledger.database.read() as c:
            inspector = sa.inspect(c)
            assert set(inspector.get_table_names()) == set(schema.metadata.tables)
            for name, table in schema.metadata.tables.items():
                assert [x["name"] for x in inspector.get_columns(name)] == [x.name for x in table.columns], name
                found = {x["name"] for x in inspector.get_indexes(name) if not x.get("duplicates_constraint")}
                assert {x.name for x in table.indexes} <= found, name
            assert c.execute(sa.select(schema.ledger_version.c.version)).scalars().all() == [schema.VERSION]
    finally:
        ledger.close()


def test_programs_that_migrate_at_once_do_not_disturb_each_other(ledger_settings: Settings) -> None:
    """Several openers of an old ledger: one migrates, the others wait, all work."""
    make_version_1(ledger_settings)
    failures: list[BaseException] = []
    start = threading.Barrier(3)

    def open_it() -> None:
        start.wait()
        try:
            ledger = open_ledger(ledger_settings)
            ledger.keys.create(name="n", tenant="t")
            ledger.close()
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=open_it) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert failures == []
    ledger = open_ledger(ledger_settings)
    assert len(ledger.keys.all()) == 3
    ledger.close()
