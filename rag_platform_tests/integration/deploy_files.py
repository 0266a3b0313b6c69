"""Reads the files of ``deploy/`` the way that Docker and Compose read them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"

_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<kind>:-|:\?)(?P<rest>[^}]*))?\})")


class MissingVariable(Exception):
    """A variable without which Compose refuses to start."""


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``${NAME}``, ``${NAME:-default}``, ``${NAME:?message}`` and ``$$``.

    Raises:
        MissingVariable: a ``:?`` variable is unset or empty.
    """

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        given = variables.get(found["name"], "")
        if given or found["kind"] is None:
            return given
        if found["kind"] == ":?":
            raise MissingVariable(found["name"])
        return found["rest"]

    return _VARIABLE.sub(value, text)


def compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return compose.yaml with its variables filled in and its anchors resolved, without the ``x-`` parts."""
    document = yaml.safe_load(COMPOSE.read_text("utf-8"))
    return {k: _filled(v, variables) for k, v in document.items() if not k.startswith("x-")}


def required_variables() -> set[str]:
    """Return the names that compose.yaml demands with ``:?``."""
    return {m["name"] for m in _VARIABLE.finditer(COMPOSE.read_text("utf-8")) if m["kind"] == ":?"}


def variables() -> set[str]:
    """Return every name that compose.yaml takes from its environment."""
    return {m["name"] for m in _VARIABLE.finditer(COMPOSE.read_text("utf-8")) if m["name"]}


def env_file(path: Path) -> dict[str, str]:
    """Return the assignments of an env file; comments are left out."""
    lines = (line for line in path.read_text("utf-8").splitlines() if re.match(r"[A-Za-z_]\w*=", line))
    return dict(line.split("=", 1) for line in lines)


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return interpolate(value, variables)
    if isinstance(value, list):
        return [_filled(v, variables) for v in value]
    if isinstance(value, dict):
        return {k: _filled(v, variables) for k, v in value.items()}
    return value


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile: ``words`` of its arguments; for the exec form, of the list."""

    stage: str
    name: str
    arguments: str

    @property
    def exec_form(self) -> bool:
        return self.arguments.startswith("[")

    @property
    def words(self) -> list[str]:
        return list(yaml.safe_load(self.arguments)) if self.exec_form else shlex.split(self.arguments)


def dockerfile() -> Iterator[Instruction]:
    """Yield the instructions of deploy/Dockerfile, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    stage = ""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        name, _, arguments = line.strip().partition(" ")
        if not name:
            continue
        if name == "FROM":
            stage = arguments.rpartition(" AS ")[2]
        yield Instruction(stage, name.upper(), arguments.strip())
