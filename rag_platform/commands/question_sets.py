"""Question sets: files with many questions, for ``--batch``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rag_platform.errors import ConfigurationError


def questions_of(path: Path) -> list[tuple[Any, str]]:
    """Read a question set: JSONL of ``{"id", "text"}``.

    Raises:
        ConfigurationError: no such file, or a line that is something else.
    """
    if not path.is_file():
        raise ConfigurationError(f"--batch: {path} does not exist")
    questions: list[tuple[Any, str]] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                questions.append((row["id"], str(row["text"])))
            except (ValueError, KeyError, TypeError) as e:
                raise ConfigurationError(f'--batch: line {number} of {path} is not {{"id": …, "text": …}}') from e
    return questions
