"""How an embedder was set up, kept with what it has made: enough to build it again when the settings have moved on.

Kept are the variables of its ``Settings`` that are no secrets, as text that the environment could hold. Keys are
read from the environment whenever an embedder is built: those of the present settings for the present address alone,
``RAG_FORMER_…`` for a recorded one, so that nobody is sent a key that was given for somebody else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from rag_platform import backends
from rag_platform.backends.embedders.base import Embedder
from rag_platform.errors import ConfigurationError
from rag_platform.settings import Settings

FORMER = "RAG_FORMER_"
"""In the place of ``RAG_``, begins the variables with the secrets of an embedder at an address that is not the present
one."""


def recorded(settings: Settings) -> dict[str, str]:
    """Return variable and value of every setting, not secret, of the embedder that ``settings`` name.

    An empty value stands for the default. An address is kept without user, password and query. A vendor's file
    without ``PREFIX`` has nothing to record.

    Raises:
        ConfigurationError: no such embedder, or a value that cannot be read.
    """
    module = backends.load("embedders", settings.embedder)
    fields = _fields(module, secret=False)
    if not fields:
        return {}
    own = settings.vendor(module.Settings, module.PREFIX)
    texts = {variable: _text(getattr(own, name)) for variable, name in fields.items()}
    return {variable: text for variable, text in texts.items() if text is not None}


def laid_over(settings: Settings, name: str, values: Mapping[str, str]) -> Settings:
    """Return settings that name the embedder ``name`` and set it up as recorded.

    Everything else stays as it is; so does an address that differs from the recorded one only in what was left out of
    that. When the embedder is at another host than the present settings say, its secrets are those of the variables
    that begin with ``FORMER``, or none.

    Raises:
        ConfigurationError: no such embedder.
    """
    module = backends.load("embedders", name)
    public = _fields(module, secret=False)
    environ = dict(settings.environ)
    elsewhere = False
    for variable, value in values.items():
        if variable in public and _without_login(environ.get(variable, "")) != value:
            elsewhere = elsewhere or _host(environ.get(variable, "")) != _host(value)
            environ[variable] = value
    if elsewhere:
        for variable in _fields(module, secret=True):
            environ[variable] = settings.environ.get(FORMER + variable.removeprefix("RAG_"), "")
    return dataclasses.replace(settings, embedder=name, environ=environ)


def remade(made_by: Mapping[str, Any], values: Mapping[str, str], settings: Settings, *, whose: str) -> Embedder:
    """Return an embedder whose vectors belong to those of an earlier one. Connects to nothing.

    It is set up by the present settings when those describe it, else as it was recorded; keys and all that is secret
    come from the environment either way.

    Args:
        made_by: the fields of its ``EmbedderSpec``.
        values: what ``recorded`` gave then; empty when that is not known.
        whose: what it made, for errors.

    Raises:
        ConfigurationError: it cannot be built here; the message says what it was and what to do.
    """
    name, fingerprint = str(made_by["name"]), str(made_by["fingerprint"])
    why: list[str] = []
    cause: ConfigurationError | None = None
    for set_up in ("present", "recorded"):
        if set_up == "recorded" and not values:
            why.append("the release recorded none of its settings")
            continue
        try:
            over = laid_over(settings, name, {} if set_up == "present" else values)
            built: Embedder = backends.load("embedders", name).build(over)
            if built.spec.fingerprint == fingerprint:
                return built
            why.append(f"its {set_up} settings describe {built.spec.model} ({built.spec.fingerprint})")
        except ConfigurationError as e:
            cause = e
            why.append(f"by its {set_up} settings: {e}")
    raise ConfigurationError(
        f"{whose} was made by {name} ({made_by['model']}, {made_by['dimensions']} dimensions, {fingerprint}), which "
        f"cannot be built here: {'; '.join(why)}. Bring its model back, or set the variables of RAG_EMBEDDER={name} as "
        "they were then, and restart; or let another release serve"
    ) from cause


def _fields(module: ModuleType, *, secret: bool) -> dict[str, str]:
    """Return, by variable, the fields of a vendor's settings that are secrets, or those that are none."""
    prefix = getattr(module, "PREFIX", None)
    if prefix is None:
        return {}
    fields = [f for f in dataclasses.fields(module.Settings) if bool(f.metadata.get("secret")) is secret]
    return {f"{prefix}{f.name.upper()}": f.name for f in fields}


def _host(value: str) -> tuple[str, str] | None:
    """Return scheme and host, with its port, of an address; None: it is none."""
    try:
        url = urlsplit(value)
    except ValueError:
        return None
    return (url.scheme, url.netloc.rpartition("@")[2].lower()) if url.netloc else None


def _text(value: Any) -> str | None:
    if value is None:
        return ""
    # Another process, with another working directory, shall find the same file.
    return str(value.absolute()) if isinstance(value, Path) else _without_login(str(value))


def _without_login(value: str) -> str | None:
    """Return an address without the parts that may hold a secret, anything else as it is; None: nobody can tell."""
    try:
        url = urlsplit(value)
    except ValueError:
        return None
    if not url.netloc or not ("@" in url.netloc or url.query or url.fragment):
        return value
    return urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))
