"""Runs the platform's Dagster jobs in this process, recorded in the instance that the UI shows."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rag_platform.commands.dagster_home import prepare_dagster_home, storage_errors
from rag_platform.settings import Settings


@dataclass(frozen=True, slots=True)
class JobResult:
    """``failure`` is the message of the first step that failed."""

    run_id: str
    success: bool
    failure: str | None


def run_job(
    settings: Settings, job: str, *, config: Mapping[str, Any] | None = None, partitions: tuple[str, str] | None = None
) -> JobResult:
    """Run a job over a range of partitions (None: all of them, as one run), if it has any, and wait for it.

    Args:
        settings: the platform's settings.
        job: job name.
        config: configuration of its ops, by op name.
        partitions: first and last partition key.

    Raises:
        ConfigurationError: the setting and dagster.yaml disagree about Dagster's storage.
        DependencyError: Dagster's storage failed.
    """
    prepare_dagster_home(settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import dagster as dg

        from rag_platform.definitions import defs
        from rag_platform.partitions import document_buckets, range_tags

        keys = document_buckets.get_partition_keys()
        definition = defs.resolve_job_def(job)
        tags = {} if definition.partitions_def is None else range_tags(*(partitions or (keys[0], keys[-1])))
        run_config: dict[str, Any] = {
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            "ops": {name: {"config": dict(values)} for name, values in (config or {}).items()},
        }
        logging.getLogger("alembic").setLevel(logging.ERROR)
        with storage_errors(settings), dg.DagsterInstance.get() as instance:
            result = definition.execute_in_process(
                instance=instance, tags=tags, run_config=run_config, raise_on_error=False
            )
            failure = None
            if not result.success:
                failure = _first_failure(result)
            return JobResult(result.run_id, result.success, failure)


def _first_failure(result: Any) -> str:
    for event in result.all_events:
        if event.event_type_value == "STEP_FAILURE":
            data = event.step_failure_data
            metadata_error = data.user_failure_data.description if data.user_failure_data else None
            message = metadata_error or (data.error.cause.message if data.error and data.error.cause else None)
            message = message or (data.error.message if data.error else "unknown error")
            return f"{event.step_key}: {message.strip()}"
    return "the run failed before its first step"
