"""Reads ``sources.yaml``: which sources there are, who may read them and when they are looked at."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rag_platform.backends.sources.globs import check_pattern
from rag_platform.errors import ConfigurationError
from rag_platform.records import DEFAULT_TENANT, PUBLIC_GROUP, SourceSpec

logger = logging.getLogger(__name__)

_KEYS = ("name", "uri", "include", "exclude", "tenant", "acl", "tags", "schedule", "options")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_SECRET = re.compile(r"(?:\A|_)(?:secret|password|passwd|token|key|credentials?)(?:\Z|_)", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
"""The name of an environment variable; with its underscore no token of the known vendors looks like it."""

_EXAMPLE = """\
# Sources of documents. Every entry needs a name and a uri; the rest has defaults.
sources:
  - name: handbook              # lower-case letters, digits, - and _; part of every document's identity
    uri: ../handbook            # a folder or file, relative to this file …
    include: ["**/*.md", "**/*.pdf"]   # default: everything
    exclude: ["drafts/"]        # hidden files and editor leftovers are left out anyway
  - name: contracts
    uri: s3://acme-contracts/signed   # … or any fsspec URL; credentials come from the environment
    tenant: acme                # default: default
    acl: [legal, board]         # groups that may read it; default: [public]; []: nobody
    tags: [contract]
    schedule: "0 3 * * *"       # cron: minute hour day month weekday; default: whenever it changes
    options:
      storage: {endpoint_url: "https://s3.example.com"}
  - name: wiki
    uri: confluence+https://acme.atlassian.net/wiki?space=ENG   # spaces of a Confluence …
    acl: [engineering]          # … for its pages without a restriction of their own
    options: {email: bot@acme.example, token_env: CONFLUENCE_TOKEN}   # the variable that holds the token
  - name: notes
    uri: notion://              # what is shared with a Notion connection
    options: {token_env: NOTION_TOKEN}
"""

# The five fields of a cron expression: lowest, highest, names.
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)


def load(path: Path) -> list[SourceSpec]:
    """Return the sources of a ``sources.yaml``, in its order.

    Relative uris are resolved against the file's folder. An entry without ``acl`` is readable by its
    whole tenant (``public``); ``acl: []`` by nobody, which is logged.

    Raises:
        ConfigurationError: the file cannot be read or says something wrong; names file, entry, cure.
    """
    try:
        document = yaml.safe_load(path.read_text("utf-8-sig"))
    except OSError as e:
        raise ConfigurationError(f"{path}: cannot be read ({e.strerror}); set RAG_SOURCES_FILE") from e
    except (UnicodeDecodeError, yaml.YAMLError) as e:
        mark = getattr(e, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{path}{where}: is not YAML in UTF-8") from e
    if not isinstance(document, dict) or set(document) != {"sources"} or not isinstance(document["sources"], list):
        raise ConfigurationError(f"{path}: must hold one key, sources, with a list of entries")
    specs: list[SourceSpec] = []
    for i, entry in enumerate(document["sources"], 1):
        spec = _entry(path, f"{path}: entry {i}", entry)
        if any(spec.name == other.name for other in specs):
            raise ConfigurationError(f"{path}: entry {i}: the name {spec.name!r} is taken; names must differ")
        specs.append(spec)
    return specs


def check_cron(expression: str) -> None:
    """Raise ``ValueError``, naming the fault, for what is not a five-field cron expression."""
    fields = expression.lower().split()
    if len(fields) != len(_FIELDS):
        raise ValueError("it needs five fields: minute hour day month weekday")
    for text, (name, low, high, words) in zip(fields, _FIELDS, strict=True):
        for item in text.split(","):
            span, _, step = item.partition("/")
            if "/" in item and not (step.isascii() and step.isdecimal() and int(step) > 0):
                raise ValueError(f"{name}: {item!r} has a bad step")
            if span == "*":
                continue
            ends = [_number(part, low, words) for part in span.split("-")]
            if len(ends) > 2 or any(end is None or not low <= end <= high for end in ends):
                raise ValueError(f"{name}: {item!r} is not between {low} and {high}")
            if len(ends) == 2 and (ends[0] or 0) > (ends[1] or 0):
                raise ValueError(f"{name}: {item!r} runs backwards")


def dump_example() -> str:
    """Return a commented ``sources.yaml``."""
    return _EXAMPLE


def _number(text: str, low: int, words: Sequence[str]) -> int | None:
    if text in words:
        return words.index(text) + low
    return int(text) if text.isascii() and text.isdecimal() else None


def _entry(path: Path, where: str, entry: Any) -> SourceSpec:
    if not isinstance(entry, dict):
        raise ConfigurationError(f"{where}: must be a mapping with at least name and uri")
    name = entry.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(f"{where}: name {name!r}: use 1 to 63 lower-case letters, digits, - and _, as text")
    where = f"{where} ({name})"
    if unknown := [key for key in entry if key not in _KEYS]:
        raise ConfigurationError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(_KEYS)}")
    tenant = _text(where, entry, "tenant", DEFAULT_TENANT)
    options = entry.get("options") or {}
    if not isinstance(options, Mapping):
        raise ConfigurationError(f"{where}: options must be a mapping")
    _refuse_secrets(where, options)
    acl = _texts(where, entry, "acl", (PUBLIC_GROUP,))
    if not acl:
        logger.warning("%s: acl is empty, so nobody but the operator can find its documents", where)
    return SourceSpec(
        name=name,
        uri=_uri(path, where, entry),
        include=_patterns(where, entry, "include", ("**/*",)),
        exclude=_patterns(where, entry, "exclude", ()),
        tenant=tenant,
        acl=acl,
        tags=_texts(where, entry, "tags", ()),
        schedule=_schedule(where, entry),
        options=options,
    )


def _uri(path: Path, where: str, entry: Mapping[str, Any]) -> str:
    uri = _text(where, entry, "uri", None)
    if _SCHEME.match(uri):
        return uri
    local = Path(uri).expanduser()
    return str(local if local.is_absolute() else (path.absolute().parent / local))


def _schedule(where: str, entry: Mapping[str, Any]) -> str | None:
    if entry.get("schedule") is None:
        return None
    schedule = _text(where, entry, "schedule", None)
    try:
        check_cron(schedule)
    except ValueError as e:
        raise ConfigurationError(f"{where}: schedule {schedule!r}: {e}") from e
    return schedule


def _text(where: str, entry: Mapping[str, Any], key: str, default: str | None) -> str:
    value = entry.get(key, default)
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{where}: {key} must be text, is {value!r}; quote it")
    return value.strip()


def _texts(where: str, entry: Mapping[str, Any], key: str, default: tuple[str, ...]) -> tuple[str, ...]:
    if key not in entry:
        return default
    value = entry[key]
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        # A bare null would silently mean "public" or "nobody", whichever one did not intend.
        raise ConfigurationError(f"{where}: {key} must be a list of texts, is {value!r}; write {key}: [a, b] or []")
    return tuple(dict.fromkeys(item.strip() for item in value))


def _patterns(where: str, entry: Mapping[str, Any], key: str, default: tuple[str, ...]) -> tuple[str, ...]:
    patterns = _texts(where, entry, key, default)
    if key == "include" and not patterns:
        raise ConfigurationError(f"{where}: include is empty, so nothing would be read; leave it out for everything")
    for pattern in patterns:
        try:
            check_pattern(pattern)
        except ValueError as e:
            raise ConfigurationError(f"{where}: {key} pattern {pattern!r}: {e}") from e
    return patterns


def _refuse_secrets(where: str, options: Mapping[Any, Any]) -> None:
    for key, value in options.items():
        if isinstance(value, Mapping):
            _refuse_secrets(where, value)
        elif str(key).endswith("_env") and _VARIABLE.fullmatch(str(value)):
            continue  # the name of a variable
        elif _SECRET.search(str(key)) and value:
            raise ConfigurationError(
                f"{where}: option {key!r} looks like a secret; secrets come from the environment that the "
                "vendor's SDK reads (AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS …), or from a variable that "
                "the source names (token_env: CONFLUENCE_TOKEN)"
            )
