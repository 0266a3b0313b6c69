"""``rag up``: the real Dagster webserver and daemon; a change of a source becomes a run by itself."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_platform_tests.integration.rag_command import Rag

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.xdist_group("up")]

DEADLINE_S = 180


@pytest.fixture
def rag(tmp_path: Path) -> Rag:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "tide.md").write_text("# Tide table\n\nHigh water is at nine.\n")
    return Rag(tmp_path / "home", {"RAG_SENSOR_INTERVAL_S": "5"})


@pytest.fixture
def ui(rag: Rag, tmp_path: Path) -> Iterator[str]:
    """Start ``rag up`` on a free port and yield the address it prints."""
    rag.json("ingest", "--source", str(tmp_path / "docs"), "--name", "docs")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAG_", "DAGSTER_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "rag_platform.cli", "up", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=kept | {"RAG_HOME": str(rag.home), "PYTHONUNBUFFERED": "1", "COLUMNS": "300"} | rag.env,
    )
    output: list[str] = []
    address: list[str] = []
    ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            if match := re.search(r"http://127\.0\.0\.1:\d+", line):
                address.append(match.group())
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert ready.wait(DEADLINE_S) and address, "".join(output)
        yield address[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        reader.join(30)
        assert process.stdout is not None
        process.stdout.close()
    left = [p for p in Path("/proc").glob("[0-9]*/environ") if str(rag.home) in _text(p)]
    assert not left, "processes outlived `rag up`"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def graphql(address: str, query: str) -> Any:
    request = urllib.request.Request(
        f"{address}/graphql",
        data=json.dumps({"query": query}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)["data"]


def test_the_ui_shows_the_run_and_the_sensor_ingests_a_change(rag: Rag, ui: str, tmp_path: Path) -> None:
    """What the command line ran is in the UI, and an edited file is searchable without anybody doing anything."""
    nodes = graphql(ui, "{ assetNodes { assetKey { path } assetMaterializations(limit: 1) { runId } } }")["assetNodes"]
    shown = {n["assetKey"]["path"][-1]: n["assetMaterializations"] for n in nodes}
    assert set(shown) == {
        "source_snapshots", "parsed_documents", "chunks", "embeddings", "vector_index", "keyword_replica",
        "dead_letters", "query_log", "evaluation_samples", "evaluation_report", "index_release",
    }  # fmt: skip
    by_command = rag.json("status")["last_run"]["run_id"]
    assert shown["vector_index"][0]["runId"] == by_command

    (tmp_path / "docs" / "tide.md").write_text("# Tide table\n\nLow water is at quarter past three.\n")
    deadline = time.monotonic() + DEADLINE_S
    status = rag.json("status")["last_run"]
    while (status["run_id"] == by_command or status["finished_at"] is None) and time.monotonic() < deadline:
        status = rag.json("status")["last_run"]
    assert (status["changed"], status["index_writes"]) == (1, 1)
    assert "quarter past three" in rag.json("retrieve", "low water")["results"][0]["text"]
    runs = graphql(ui, "{ runsOrError { ... on Runs { results { runId tags { key value } } } } }")["runsOrError"]
    tags = {r["runId"]: {t["key"]: t["value"] for t in r["tags"]} for r in runs["results"]}
    assert tags[status["run_id"]]["dagster/sensor_name"] == "source_changes"
