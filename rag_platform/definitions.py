"""The only Dagster entry point: lists, no logic."""

import dagster as dg

from rag_platform.assets.chunks import chunks
from rag_platform.assets.dead_letters import dead_letters
from rag_platform.assets.embeddings import embeddings
from rag_platform.assets.evaluation_report import evaluation_report
from rag_platform.assets.evaluation_samples import evaluation_samples
from rag_platform.assets.index_release import index_release
from rag_platform.assets.keyword_replica import keyword_replica
from rag_platform.assets.parsed_documents import parsed_documents
from rag_platform.assets.query_log import query_log
from rag_platform.assets.source_snapshots import source_snapshots, sources_fresh
from rag_platform.assets.vector_index import vector_index
from rag_platform.jobs import (
    clean_up,
    evaluate_serving,
    export_query_log,
    ingest_sources,
    rebuild_vector_index,
    replay_dead_letters,
    report_regression,
)
from rag_platform.resources import platform_resources
from rag_platform.schedules import schedules
from rag_platform.sensors import sensors
from rag_platform.settings import Settings

assets = [
    source_snapshots, parsed_documents, chunks, embeddings, vector_index, keyword_replica, dead_letters,
    evaluation_report, index_release, evaluation_samples, query_log,
]  # fmt: skip

defs = dg.Definitions(
    assets=assets,
    asset_checks=[sources_fresh],
    jobs=[
        ingest_sources,
        replay_dead_letters,
        rebuild_vector_index,
        evaluate_serving,
        report_regression,
        export_query_log,
        clean_up,
    ],
    schedules=schedules,
    sensors=sensors,
    resources=platform_resources(Settings.from_env()),
)
