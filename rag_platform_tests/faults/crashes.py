"""The tests' side of ``crash_runner``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any


class CrashRunner:
    """A process that runs ingestions in children. Use as a context manager."""

    def __enter__(self) -> CrashRunner:
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("RAG_", "OPENAI_", "DAGSTER_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rag_platform_tests.faults.crash_runner"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env=environ,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def at_once(self, *orders: dict[str, Any]) -> list[dict[str, Any]]:
        """Run ingestions in as many processes at the same time."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(orders) + "\n")
        self._process.stdin.flush()
        watchdog = threading.Timer(120, self._process.kill)
        watchdog.start()
        try:
            answers: list[dict[str, Any]] = json.loads(self._process.stdout.readline())
        finally:
            watchdog.cancel()
        for answer in answers:
            assert "error" not in answer, answer["error"]
        return answers

    def run(self, **order: Any) -> dict[str, Any]:
        """Run one ingestion to its end, or to its death."""
        return self.at_once(order)[0]
