"""Runs ingestions in children that can be killed: a program of its own, so that it forks before anything
has started a thread or a runtime. Reads one JSON order a line, answers with one JSON line.

An order is ``{"home", "root", "acl", "run_id", "environ", "kill_at", "when"}``; with ``"rebuild"`` it is a rebuild
in place of an ingestion. A line holds a list of them, which run at once. The vector store ``second`` is a server
store with its rows in the home. An answer is ``{"killed", "error", "effects", "counters", "state"}``: ``state`` is what a reader finds afterwards.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

# Everything heavy is imported once, here, and inherited by every child.
import lancedb
import onnxruntime
import pyarrow.parquet
import tokenizers

import rag_platform.backends.embedders.onnx_minilm
import rag_platform.backends.sources.local_directory
import rag_platform.ingestion.chunkers.recursive  # noqa: F401
from rag_platform import telemetry
from rag_platform.backends.vector_stores.lancedb import LanceVectorStore
from rag_platform.ingestion.parsers import formats
from rag_platform.ingestion.stages.audit import conservation
from rag_platform.ingestion.workbench import Workbench
from rag_platform.records import SourceSpec
from rag_platform_tests import harness
from rag_platform_tests.backends.server_store import ServerStore

assert lancedb and onnxruntime and pyarrow.parquet and tokenizers


def state(bench: Workbench) -> dict[str, Any]:
    """What is searchable, and whether ledger and index agree."""
    audit = harness.check_invariants(bench)
    standing = conservation(bench, bench.bucket_names)
    return {
        "rows": sorted([list(map(_plain, row)) for row in harness.identified(bench)]),
        "chunks": [audit.ledger_chunks, audit.index_chunks],
        "standing": [standing.received, standing.indexed, standing.dead_lettered, standing.in_flight],
        "letters": sorted(x.uri for x in bench.ledger.dead_letters.search(state="open")),
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def work(order: dict[str, Any]) -> dict[str, Any]:
    spec = SourceSpec("docs", order["root"], acl=tuple(order["acl"]))
    settings = harness.settings(Path(order["home"]), **order.get("environ", {}))
    telemetry.arm(order.get("kill_at"), order.get("when", "before"))
    second = ServerStore(LanceVectorStore(str(settings.root / "second")))
    with telemetry.recording() as effects, Workbench(settings, {"second": second}) as bench:
        if order.get("rebuild"):
            counters = harness.rebuild(bench, order["run_id"])
        else:
            counters = harness.ingest(bench, [spec], order["run_id"])
        done = list(effects)
        telemetry.arm(None)
        return {"counters": counters, "effects": done, "state": state(bench)}


def child(order: dict[str, Any], pipe: int) -> None:
    try:
        answer = work(order)
    except BaseException:
        answer = {"error": traceback.format_exc()}
    with os.fdopen(pipe, "w") as out:
        json.dump(answer, out)


def start(order: dict[str, Any]) -> tuple[int, int]:
    receiving, sending = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(receiving)
        child(order, sending)
        os._exit(0)
    os.close(sending)
    return pid, receiving


def finish(pid: int, pipe: int) -> dict[str, Any]:
    with os.fdopen(pipe) as received:
        raw = received.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return {"killed": os.WTERMSIG(status) == signal.SIGKILL, "signal": os.WTERMSIG(status)}
    return {"killed": False} | json.loads(raw)


def main() -> None:
    warnings.simplefilter("ignore")  # lancedb says that forking is experimental
    formats.modules()
    for line in sys.stdin:
        orders = json.loads(line)
        started = [start(order) for order in orders]  # at once
        print(json.dumps([finish(*one) for one in started]), flush=True)


if __name__ == "__main__":
    main()
