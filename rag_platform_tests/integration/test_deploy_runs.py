"""Runs of a cluster: the Jobs that Dagster's launcher makes of the chart, and their commands, each carried out with
nothing but what its pod would have. Only the API server of Kubernetes is a stand-in: it writes Jobs down."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag_platform_tests.backends import s3_server
from rag_platform_tests.backends.s3_server import s3_bucket, s3_endpoint  # noqa: F401 - fixtures
from rag_platform_tests.integration import helm
from rag_platform_tests.integration.deploy_postgres import Databases, databases  # noqa: F401 - a fixture
from rag_platform_tests.integration.rag_command import Rag
from rag_platform_tests.integration.test_deploy_helm import assert_restricted

pytest.importorskip("dagster_k8s", reason="the extra k8s is not installed")
pytest.importorskip("psycopg2", reason="the extra postgres is not installed")

from rag_platform_tests.integration import kubernetes_objects

pytestmark = pytest.mark.slow
RUN_TIMEOUT_S = 240
DOCUMENTS = {f"guide-{n}.md": f"# Guide {n}\n\nThe valve number {n} is opened with the {n}th key.\n" for n in range(12)}


@dataclass
class ApiServer:
    """What the launcher asks of Kubernetes."""

    jobs: list[Any] = field(default_factory=list)

    def create_namespaced_job_with_retries(self, body: Any, namespace: str, **_: Any) -> None:
        assert namespace == "rag"
        self.jobs.append(body)


@dataclass
class Cluster:
    """The chart's configuration as a pod finds it, pointing to servers on this machine.

    Attributes:
        settings: ConfigMap and Secret together.
        instance: content of dagster.yaml.
    """

    folder: Path
    settings: dict[str, str]
    instance: str
    sources: str
    _numbers: Any = field(default_factory=itertools.count)

    def pod(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a new pod: folders of its own, empty but for the mounted configuration."""
        root = self.folder / f"pod-{next(self._numbers)}"
        home, mounted = root / "home", root / "etc"
        for folder in (home / "dagster", mounted, root / "tmp"):
            folder.mkdir(parents=True)
        (home / "dagster" / "dagster.yaml").write_text(self.instance)
        (mounted / "sources.yaml").write_text(self.sources)
        places = {"RAG_HOME": str(home), "DAGSTER_HOME": str(home / "dagster"), "HOME": str(root / "tmp")}
        places |= {"RAG_SOURCES_FILE": str(mounted / "sources.yaml"), "TMPDIR": str(root / "tmp")}
        return {"PATH": os.environ["PATH"], **self.settings, **(extra or {}), **places}


@pytest.fixture
def cluster(tmp_path: Path, databases: Databases, s3_bucket: str) -> Iterator[Cluster]:  # noqa: F811
    """The chart over a real PostgreSQL and an S3 server that hold everything; twelve documents in a bucket."""
    for name, text in DOCUMENTS.items():
        s3_server.client().put_object(Bucket=s3_bucket, Key=f"guides/{name}", Body=text.encode())
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    objects = helm.render(
        tmp_path,
        {
            "config": {
                "RAG_OBJECT_STORE_URL": f"s3://{s3_bucket}/objects",
                "RAG_VECTOR_STORE": "lancedb",
                "RAG_INDEX_URL": f"s3://{s3_bucket}/index",
                "RAG_KEYWORD_REPLICA_URL": "none",
                "RAG_CACHE": "none",
                "RAG_OCR": "off",
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ENDPOINT": endpoint,
                "AWS_ALLOW_HTTP": "true",
                "AWS_DEFAULT_REGION": "us-east-1",
            },
            "sources": [{"name": "guides", "uri": f"s3://{s3_bucket}/guides"}],
            "runs": {"workers": 1},
        },
    )
    maps = {o["metadata"]["name"]: o["data"] for o in objects if o["kind"] == "ConfigMap"}
    instance = next(data for name, data in maps.items() if name.endswith("-instance"))
    config = next(data for name, data in maps.items() if name.endswith("-config"))
    secret = {
        "RAG_LEDGER_URL": databases.url("ledger"),
        "RAG_DAGSTER_POSTGRES_URL": databases.url("dagster"),
        "RAG_QUERY_LOG_PEPPER": "of a test",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }
    yield Cluster(tmp_path, {**config, **secret}, instance["dagster.yaml"], instance["sources.yaml"])


def _launch(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, ranges: list[tuple[str, str]]
) -> tuple[list[Any], list[str]]:
    """Give runs over these ranges to the launcher of the instance; return the Jobs and the runs' ids."""
    import dagster as dg
    import dagster_k8s.launcher as launching
    from dagster._core.code_pointer import ModuleCodePointer
    from dagster._core.launcher import LaunchRunContext
    from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin

    from rag_platform.definitions import defs
    from rag_platform.partitions import range_tags

    server = ApiServer()
    monkeypatch.setattr(launching, "load_kubernetes_config", lambda **_: None)
    monkeypatch.setattr(launching.DagsterKubernetesClient, "production_client", lambda **_: server)
    for name, value in cluster.pod().items():
        monkeypatch.setenv(name, value)
    code = ModuleCodePointer("rag_platform.definitions", "defs", working_directory=None)
    repository = RepositoryPythonOrigin(
        sys.executable, code, container_image="rag-platform:0.1.0", entry_point=["dagster"], container_context={}
    )
    runs = []
    with dg.DagsterInstance.get() as instance:
        for first, last in ranges:
            run = instance.create_run_for_job(
                job_def=defs.resolve_job_def("ingest_sources"),
                tags=range_tags(first, last),
                job_code_origin=JobPythonOrigin("ingest_sources", repository),
            )
            instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
            runs.append(run.run_id)
    return server.jobs, runs


def _as_yaml(job: Any) -> dict[str, Any]:
    from kubernetes.client import ApiClient

    with ApiClient() as client:
        return yaml.safe_load(yaml.safe_dump(client.sanitize_for_serialization(job)))


def test_bucket_ranges_are_ingested_by_pods_that_share_no_disk(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs become two Jobs that fit the restricted standard and hold no secret; their commands, carried out at
    the same time with folders of their own, bring two halves of the corpus into one index; a third home reads it."""
    jobs, run_ids = _launch(cluster, monkeypatch, [("0", "7"), ("8", "f")])
    documents = [_as_yaml(job) for job in jobs]
    for document in documents:
        assert kubernetes_objects.problems(document) == []
        pod = document["spec"]["template"]["spec"]
        assert_restricted(pod)
        assert pod["automountServiceAccountToken"] is False and pod["restartPolicy"] == "Never"
        assert document["spec"]["backoffLimit"] == 0
        text = yaml.safe_dump(document)
        assert not any(secret in text for secret in ("ledger:", "dagster:", "testing"))

    processes = []
    for document in documents:
        container = document["spec"]["template"]["spec"]["containers"][0]
        own = {e["name"]: e["value"] for e in container["env"] if "value" in e and e["name"] != "DAGSTER_HOME"}
        program, *arguments = container["args"]
        assert program == "dagster"
        environment = cluster.pod(own)
        command = [sys.executable, "-m", "dagster", *arguments]
        processes.append(
            subprocess.Popen(
                command, env=environment, cwd=environment["TMPDIR"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
    for process in processes:
        out, _ = process.communicate(timeout=RUN_TIMEOUT_S)
        assert process.returncode == 0, out.decode()[-3000:]

    _assert_finished(run_ids)
    reader = cluster.pod()
    rag = Rag(Path(reader["RAG_HOME"]), {k: v for k, v in reader.items() if k not in ("RAG_HOME", "PATH")})
    chunks = rag.lines("index", "dump", "--jsonl")
    assert {c["uri"] for c in chunks} == set(DOCUMENTS)
    found = rag.json("retrieve", "Which key opens valve number 7?", "-k", "3")
    assert "guide-7.md" in {r["uri"] for r in found["results"]}
    for home in cluster.folder.glob("pod-*/home"):
        left = {p.relative_to(home).parts[0] for p in home.rglob("*") if p.is_file()}
        assert left <= {"dagster", "cache", "query_log.pepper"}, f"{home}: {left}"


def _assert_finished(run_ids: list[str]) -> None:
    import dagster as dg

    failures: list[str] = []
    with dg.DagsterInstance.get() as instance:
        for run_id in run_ids:
            run = instance.get_run_by_id(run_id)
            assert run is not None
            if run.status != dg.DagsterRunStatus.SUCCESS:
                records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
                failures += [r.event_log_entry.dagster_event.step_failure_data.error.to_string() for r in records]
    assert not failures, "\n".join(failures)
