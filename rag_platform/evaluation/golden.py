"""Golden sets: questions, what their answers must say, and where in the corpus that stands.

A set is a YAML file that people write, in the folder ``RAG_GOLDEN_DIR``:

    gate: …                                   # optional: what a release must reach; see evaluation/gate.py
    cases:
      - question: Who keeps the key of machine room B-14?
        answer: The night porter.
        spans:
          - uri: handouts/access-notice-scan.pdf
            quote: The key of machine room B-14 is kept by the night porter.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

from rag_platform.errors import ConfigurationError
from rag_platform.evaluation.golden_cases import GoldenCase, GoldenSet, GoldSpan, case_as_json, checked, new_case_id
from rag_platform.evaluation.golden_format import parse, render, render_cases
from rag_platform.settings import Settings

__all__ = [
    "GoldSpan",
    "GoldenCase",
    "GoldenSet",
    "append",
    "case_as_json",
    "checked",
    "golden_sets",
    "load",
    "new_case_id",
    "parse",
    "save",
    "set_path",
]

SUFFIX = ".yaml"


def golden_sets(settings: Settings) -> list[GoldenSet]:
    """Return every golden set of ``settings.resolved_golden_dir``, by name; none where the folder is missing.

    Raises:
        ConfigurationError: one of them cannot be read, or would be passed over for its name.
    """
    folder = settings.resolved_golden_dir
    if (other := next(iter(sorted(folder.glob("*.yml"))), None)) is not None:
        raise ConfigurationError(f"{other}: golden sets end with {SUFFIX}; rename it")
    return [load(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]


def set_path(settings: Settings, name: str) -> Path:
    """Return the file of the set ``name``.

    Raises:
        ConfigurationError: the name is not one for a file.
    """
    if not name or name != Path(name).name or name.startswith(".") or "\\" in name:
        raise ConfigurationError(f"a golden set cannot be named {name!r}: use letters, digits, - and _")
    return settings.resolved_golden_dir / f"{name}{SUFFIX}"


def load(path: Path) -> GoldenSet:
    """Read one golden set; its name is the file's, without the suffix.

    Raises:
        ConfigurationError: there is no such file, or it is something else than a golden set.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as e:
        raise ConfigurationError(f"{path} does not exist; `rag golden add` makes it") from e
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigurationError(f"{path} cannot be read: {type(e).__name__}; save it as UTF-8 text") from e
    return parse(text, name=path.stem, origin=str(path))


def save(path: Path, golden: GoldenSet) -> None:
    """Write a set to ``path``, at once or not at all. Comments of an older file are lost; see ``append``."""
    _replace(path, render(golden))


def append(path: Path, cases: Sequence[GoldenCase]) -> GoldenSet:
    """Add cases at the end of a set, which is made when it is missing, and return the set. Comments and order of the
    file are kept.

    Raises:
        ConfigurationError: the file is no golden set, or has one of the ids already.
    """
    old = load(path) if path.exists() else GoldenSet(path.stem, ())
    known = {case.case_id for case in old.cases}
    for case in cases:
        checked(case, f"case {case.case_id}")
        if case.case_id in known:
            raise ConfigurationError(f"{path} has a case {case.case_id!r} already; give the new one another id")
        known.add(case.case_id)
    new = replace(old, cases=old.cases + tuple(cases))
    if old.cases:
        before, block = path.read_text(encoding="utf-8").rstrip(), render_cases(cases).removeprefix("cases:\n")
        for text in (f"{before}\n\n{block}", f"{before}\n\n{dedent(block)}"):
            try:
                kept = parse(text, name=old.name, origin=str(path)) == new
            except ConfigurationError:
                kept = False  # indented in another way, or the cases do not end the file
            if kept:
                _replace(path, text)
                return new
    save(path, new)
    return new


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
