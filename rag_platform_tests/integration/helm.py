"""Renders the Helm chart with the real Helm: from PATH, from the user's cache, or built there once with Go."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from rag_platform_tests.integration.deploy_files import DEPLOY

CHART = DEPLOY / "helm" / "rag-platform"
VERSION = "v3.22.0"
KUBERNETES = "1.33.0"
BUILD_TIMEOUT_S = 560

NEEDED: dict[str, Any] = {
    "existingSecret": "rag-credentials",
    "config": {
        "RAG_OBJECT_STORE_URL": "s3://acme-rag/objects",
        "RAG_WEAVIATE_URL": "http://weaviate.weaviate.svc:8080",
        "RAG_WEAVIATE_GRPC": "weaviate-grpc.weaviate.svc:50051",
        "RAG_KEYWORD_REPLICA_URL": "s3://acme-rag/replica",
    },
}
"""The values that have no default."""


class Refused(Exception):
    """Helm did not render; the message is its own."""


@functools.cache
def binary() -> str:
    """Return the path of Helm; skip the test where there is none and none can be built."""
    found = shutil.which("helm")
    if found is not None:
        return found
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rag-platform" / f"helm-{VERSION}"
    built = folder / "helm"
    if built.exists():
        return str(built)
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        pytest.skip(f"no Helm here: install it, or Go, which builds helm.sh/helm/v3@{VERSION} once (4 CPU minutes)")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            _build(go, folder)
    return str(built)


def _build(go: str, folder: Path) -> None:
    scratch = folder / "building"
    environment = os.environ | {"GOBIN": str(scratch), "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    command = ["nice", "-n", "15", go, "install", "-trimpath", "-ldflags=-s -w", f"helm.sh/helm/v3/cmd/helm@{VERSION}"]
    try:
        subprocess.run(command, check=True, capture_output=True, env=environment, cwd=folder, timeout=BUILD_TIMEOUT_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as e:
        pytest.skip(f"Helm could not be built: {(e.stderr or b'').decode(errors='replace')[-300:]}")
    (scratch / "helm").rename(folder / "helm")


def run(*arguments: str) -> str:
    """Run Helm without a cluster and without the user's configuration.

    Raises:
        Refused: it did not end with 0.
    """
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "HELM_NO_PLUGINS": "1"}
    done = subprocess.run(
        [binary(), *arguments], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def render(folder: Path, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects that the chart makes of ``NEEDED`` and ``values``; ``folder`` takes a file.

    Raises:
        Refused: the values do not fit the schema, or a template failed.
    """
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(merged(NEEDED, values)), encoding="utf-8")
    text = run("template", "rag", str(CHART), "--namespace", "rag", "--kube-version", KUBERNETES, "--values", str(file))
    return [d for d in yaml.safe_load_all(text) if d]


def merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``more`` laid over it, folder by folder."""
    result = dict(base)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result
