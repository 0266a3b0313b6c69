"""Which parser module reads a file: known by content first, by suffix where the content is only text.

The index of modules is read from their source (``SUFFIXES``, ``VERSION``, ``LIGHT``) without importing
them, so that looking costs no heavy import. A new format is a new file in this folder.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from rag_platform.errors import ConfigurationError

PACKAGE: Final = "rag_platform.ingestion.parsers"
_CONSTANTS: Final = frozenset(("SUFFIXES", "VERSION", "LIGHT"))


@dataclass(frozen=True, slots=True)
class ParserModule:
    """What a parser module says about itself. ``light`` ones need no heavy import and no jail."""

    name: str
    suffixes: tuple[str, ...]
    version: str
    light: bool


@functools.cache
def modules() -> Mapping[str, ParserModule]:
    """Return every module of the folder that has a ``VERSION``, by name; parsers also have suffixes.

    Raises:
        ConfigurationError: two modules claim one suffix.
    """
    found: dict[str, ParserModule] = {}
    owner: dict[str, str] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        constants = _constants(path)
        if "VERSION" not in constants:
            continue
        suffixes = tuple(constants.get("SUFFIXES", ()))
        for suffix in suffixes:
            if owner.setdefault(suffix, path.stem) != path.stem:
                raise ConfigurationError(f"parsers {owner[suffix]} and {path.stem} both claim {suffix}")
        found[path.stem] = ParserModule(path.stem, suffixes, str(constants["VERSION"]), bool(constants.get("LIGHT")))
    return found


@functools.cache
def by_suffix() -> Mapping[str, ParserModule]:
    """Return the parser of every known suffix."""
    return {suffix: module for module in modules().values() for suffix in module.suffixes}


@functools.cache
def native_tools() -> tuple[str, ...]:
    """Return the programs that parsers would use here besides OCR: part of what a parse depends on."""
    from rag_platform.ingestion.parsers import libreoffice

    return ("libreoffice",) if libreoffice.find() else ()


def suffix_of(name: str) -> str:
    """Return the lower-case suffix of a file name or URI, with the dot; ``""`` when it has none."""
    bare = PurePosixPath(name.replace("\\", "/").split("?", 1)[0].split("#", 1)[0]).name
    suffix = PurePosixPath(bare).suffix.lower()
    return suffix if 1 < len(suffix) <= 12 else ""


def _constants(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for node in ast.parse(path.read_bytes()).body:
        target: ast.expr
        value: ast.expr
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            target, value = node.target, node.value
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
        else:
            continue
        if isinstance(target, ast.Name) and target.id in _CONSTANTS:
            values[target.id] = ast.literal_eval(value)
    return values
