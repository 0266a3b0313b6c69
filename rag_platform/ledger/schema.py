"""Tables of the ledger and their migrations.

Times are seconds since the epoch (UTC, float64). Lists and objects are JSON text. A migration is a
list of statements; number n takes the schema from version n to n + 1 and is never edited afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

metadata = sa.MetaData()

ledger_version = sa.Table("ledger_version", metadata, sa.Column("version", sa.Integer, nullable=False))

sources = sa.Table(
    "sources",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),  # file: from sources.yaml · command: from `rag ingest --source`
    sa.Column("registered_at", sa.Float, nullable=False),
    sa.Column("listed_at", sa.Float),  # last complete listing
    sa.Column("listed_count", sa.Integer),
    sa.Column("listed_bytes", sa.BigInteger),
    sa.Column("problem", sa.Text),  # why the last listing failed or is held back
)

snapshots = sa.Table(
    "snapshots",
    metadata,
    sa.Column("snapshot_id", sa.Text, primary_key=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("listed_at", sa.Float, nullable=False),
    sa.Column("documents", sa.Integer, nullable=False),
)

documents = sa.Table(
    "documents",
    metadata,
    sa.Column("document_id", sa.Text, primary_key=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("bucket", sa.Text, nullable=False),
    sa.Column("live", sa.Boolean, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),  # rises with every committed change
    sa.Column("change_token", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("modified_at", sa.Float),
    sa.Column("content_hash", sa.Text, nullable=False),
    sa.Column("metadata_hash", sa.Text, nullable=False),
    sa.Column("metadata", sa.Text, nullable=False),
    sa.Column("snapshot_id", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("first_seen_at", sa.Float, nullable=False),
    sa.Column("changed_at", sa.Float, nullable=False),
    sa.Index("documents_bucket", "bucket"),
    sa.Index("documents_source", "source"),
    sa.Index("documents_content", "content_hash"),
)

buckets = sa.Table(
    "buckets",
    metadata,
    sa.Column("bucket", sa.Text, primary_key=True),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("manifest_hash", sa.Text, nullable=False),
    sa.Column("documents", sa.Integer, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
)

segments = sa.Table(
    "segments",
    metadata,
    sa.Column("segment_id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("object_key", sa.Text, nullable=False, unique=True),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Index("segments_stage", "stage"),
)

artifacts = sa.Table(  # what a stage has made, and the segment that holds it
    "artifacts",
    metadata,
    sa.Column("stage", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("segment_id", sa.Integer, nullable=False),
    sa.Column("items", sa.Integer, nullable=False),  # characters, chunks or 1
    sa.Column("tokens", sa.Integer, nullable=False),
    sa.Index("artifacts_segment", "segment_id"),
)

embedded_sets = sa.Table(  # chunk sets of which every vector exists
    "embedded_sets",
    metadata,
    sa.Column("chunk_set_key", sa.Text, primary_key=True),
    sa.Column("embedder", sa.Text, primary_key=True),
)

releases = sa.Table(
    "releases",
    metadata,
    sa.Column("release_id", sa.Text, primary_key=True),
    sa.Column("index_name", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("pipeline", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),  # candidate → serving → retired
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("promoted_at", sa.Float),
    sa.Column("verified_state", sa.Text),  # the store's state token at the last full verification
    sa.Column("store", sa.Text, nullable=False, server_default="lancedb"),  # the vector store that holds the index
)

index_entries = sa.Table(
    "index_entries",
    metadata,
    sa.Column("release_id", sa.Text, primary_key=True),
    sa.Column("document_id", sa.Text, primary_key=True),
    sa.Column("bucket", sa.Text, nullable=False),
    sa.Column("version_id", sa.Text),  # NULL: dirty, the index may hold anything for this document
    sa.Column("content_hash", sa.Text, nullable=False),
    sa.Column("metadata_hash", sa.Text, nullable=False),
    sa.Column("chunk_count", sa.Integer, nullable=False),
    sa.Column("indexed_at", sa.Float, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Index("index_entries_bucket", "release_id", "bucket"),
)

index_clock = sa.Table(  # one row: how often index_entries has changed; kept by triggers, SQLite only
    "index_clock",
    metadata,
    sa.Column("ticks", sa.Integer, nullable=False),
)

dead_letters = sa.Table(
    "dead_letters",
    metadata,
    sa.Column("dead_letter_id", sa.Text, primary_key=True),
    sa.Column("document_id", sa.Text, nullable=False),
    sa.Column("version_id", sa.Text, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("bucket", sa.Text, nullable=False),
    sa.Column("content_hash", sa.Text, nullable=False),
    sa.Column("error_code", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("first_seen_at", sa.Float, nullable=False),
    sa.Column("last_seen_at", sa.Float, nullable=False),
    sa.Column("next_retry_at", sa.Float),
    sa.Column("state", sa.Text, nullable=False),  # open → replaying → resolved | discarded
    sa.Column("resolution", sa.Text),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("trace_id", sa.Text),
    sa.UniqueConstraint("document_id", "version_id", "stage"),
    sa.Index("dead_letters_state", "state", "bucket"),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("finished_at", sa.Float),
    sa.Column("sources", sa.Text, nullable=False),
    sa.Index("runs_started", "started_at"),
)

run_counters = sa.Table(
    "run_counters",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Float, nullable=False),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("key_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("secret_hash", sa.Text, nullable=False, unique=True),  # SHA-256 of the whole secret, hex
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("groups", sa.Text, nullable=False),
    sa.Column("scopes", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float),
    sa.Column("revoked_at", sa.Float),
    sa.Column("last_used_at", sa.Float),
    sa.Column("requests_per_minute", sa.Integer),
    sa.Column("daily_tokens", sa.BigInteger),
    sa.Column("daily_usd", sa.Float),
)

key_usage = sa.Table(
    "key_usage",
    metadata,
    sa.Column("day", sa.Text, primary_key=True),  # YYYY-MM-DD, UTC; first, because a day is what is read
    sa.Column("key_id", sa.Text, primary_key=True),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column("usd", sa.Float, nullable=False),
)

query_log = sa.Table(
    "query_log",
    metadata,
    sa.Column("request_id", sa.Text, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("key_id", sa.Text),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("groups", sa.Text, nullable=False),
    sa.Column("operator", sa.Boolean, nullable=False),
    sa.Column("question_hash", sa.Text, nullable=False),  # keyed: see query/pepper.py
    sa.Column("question", sa.Text),  # NULL unless RAG_QUERY_LOG is full
    sa.Column("answer", sa.Text),
    sa.Column("release_id", sa.Text),
    sa.Column("profile", sa.Text, nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("cache", sa.Text, nullable=False),
    sa.Column("generator", sa.Text, nullable=False),
    sa.Column("refused", sa.Boolean, nullable=False),
    sa.Column("degraded", sa.Text, nullable=False),
    sa.Column("documents", sa.Text, nullable=False),
    sa.Column("total_ms", sa.Float, nullable=False),
    sa.Column("timings_ms", sa.Text, nullable=False),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("completion_tokens", sa.Integer, nullable=False),
    sa.Column("embedding_tokens", sa.Integer, nullable=False),
    sa.Column("cost_usd", sa.Float),  # NULL: a price is unknown
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("trace_id", sa.Text),
    sa.Index("query_log_at", "at"),
)

feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("feedback_id", sa.Text, primary_key=True),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False),  # empty: asked without a key. NULLs would never be equal.
    sa.Column("rating", sa.Integer, nullable=False),  # -1 or 1
    sa.Column("comment", sa.Text),
    sa.UniqueConstraint("request_id", "key_id"),
    sa.Index("feedback_at", "at"),
)

evaluations = sa.Table(  # one release, in one state of its index, measured in one way
    "evaluations",
    metadata,
    sa.Column("evaluation_id", sa.Text, primary_key=True),
    sa.Column("release_id", sa.Text, nullable=False),
    sa.Column("golden_set", sa.Text, nullable=False),
    sa.Column("set_fingerprint", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),  # golden | traffic
    sa.Column("evaluator", sa.Text, nullable=False),
    sa.Column("judge", sa.Text),
    sa.Column("settings_fingerprint", sa.Text, nullable=False),
    sa.Column("index_state", sa.Text, nullable=False),
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("finished_at", sa.Float),
    sa.Column("summary", sa.Text),  # NULL until it is finished
    sa.Index("evaluations_release", "release_id", "golden_set", "started_at"),
)

evaluation_cases = sa.Table(  # what came of one question; a case without a row here is still to be asked
    "evaluation_cases",
    metadata,
    sa.Column("evaluation_id", sa.Text, primary_key=True),
    sa.Column("case_id", sa.Text, primary_key=True),
    sa.Column("refused", sa.Boolean),  # NULL: not answered (retrieval only, or failed)
    sa.Column("uris", sa.Text, nullable=False),
    sa.Column("failure", sa.Text),  # error class
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("usd", sa.Float),  # NULL: a price is unknown
)

evaluation_scores = sa.Table(
    "evaluation_scores",
    metadata,
    sa.Column("evaluation_id", sa.Text, primary_key=True),
    sa.Column("case_id", sa.Text, primary_key=True),
    sa.Column("metric", sa.Text, primary_key=True),
    sa.Column("value", sa.Float),
    sa.Column("state", sa.Text, nullable=False),  # scored | nan | failed | empty
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("usd", sa.Float, nullable=False),
)

judge_spend = sa.Table(
    "judge_spend",
    metadata,
    sa.Column("day", sa.Text, primary_key=True),  # YYYY-MM-DD, UTC
    sa.Column("judge", sa.Text, primary_key=True),
    sa.Column("calls", sa.BigInteger, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column("usd", sa.Float, nullable=False),
)

release_decisions = sa.Table(
    "release_decisions",
    metadata,
    sa.Column("decision_id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("release_id", sa.Text, nullable=False),
    sa.Column("decision", sa.Text, nullable=False),  # promoted | refused | rolled_back
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("decided_by", sa.Text, nullable=False),
    sa.Column("reasons", sa.Text, nullable=False),
    sa.Index("release_decisions_release", "release_id", "at"),
)

DeadLetterStates = ("open", "replaying", "resolved", "discarded")


def _create_all(connection: sa.Connection) -> None:
    metadata.create_all(connection, checkfirst=True)


def _add_query_side(connection: sa.Connection) -> None:
    metadata.create_all(connection, tables=[api_keys, key_usage, query_log, feedback], checkfirst=True)


def _add_index_clock(connection: sa.Connection) -> None:
    metadata.create_all(connection, tables=[index_clock], checkfirst=True)
    if connection.dialect.name != "sqlite":
        return  # there, nothing but a query tells of a change
    connection.execute(index_clock.delete())
    connection.execute(index_clock.insert().values(ticks=0))
    for event in ("INSERT", "UPDATE", "DELETE"):
        connection.exec_driver_sql(
            f"CREATE TRIGGER IF NOT EXISTS index_clock_{event.lower()} AFTER {event} ON index_entries "
            "BEGIN UPDATE index_clock SET ticks = ticks + 1; END"
        )


def _add_store_of_release(connection: sa.Connection) -> None:
    if "store" not in {c["name"] for c in sa.inspect(connection).get_columns("releases")}:
        connection.exec_driver_sql("ALTER TABLE releases ADD COLUMN store TEXT NOT NULL DEFAULT 'lancedb'")


def _add_evaluations(connection: sa.Connection) -> None:
    tables = [evaluations, evaluation_cases, evaluation_scores, judge_spend, release_decisions]
    metadata.create_all(connection, tables=tables, checkfirst=True)


MIGRATIONS: list[Callable[[sa.Connection], None]] = [
    _create_all,
    _add_query_side,
    _add_index_clock,
    _add_store_of_release,
    _add_evaluations,
]
"""``MIGRATIONS[n]`` takes version n to n + 1. The first creates today's tables; a later change to a
table is both made above and written as a new migration guarded by the inspector, because a new
ledger gets today's tables at once and then every migration."""

VERSION = len(MIGRATIONS)
