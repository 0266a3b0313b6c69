"""Runs the real ``rag`` command in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Rag:
    """One RAG_HOME, and the command line on it."""

    home: Path
    env: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, code: int | None = 0, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Run ``rag ARGUMENTS``; fail when it does not end with ``code``."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAG_", "OPENAI_", "DAGSTER_"))}
        result = subprocess.run(
            [sys.executable, "-m", "rag_platform.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=kept | {"RAG_HOME": str(self.home)} | self.env,
            cwd=self.home.parent,
            check=False,
        )
        if code is not None:
            assert result.returncode == code, (
                f"exit {result.returncode}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
            )
        return result

    def json(self, *arguments: str, code: int | None = 0) -> Any:
        """Run with ``--json`` and return what was printed."""
        return json.loads(self(*arguments, "--json", code=code).stdout)

    def lines(self, *arguments: str) -> list[Any]:
        """Run and return the JSON objects of its lines."""
        return [json.loads(line) for line in self(*arguments).stdout.splitlines()]
