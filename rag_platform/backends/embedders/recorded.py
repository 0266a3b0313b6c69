"""How an embedder was set up, kept with what it has made: enough to build it again when the settings have moved on.

Kept are the variables of its ``Settings`` that are no secrets, as text that the environment could hold. Keys are
read from the environment whenever an embedder is built.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from rag_platform import backends
from rag_platform.settings import Settings


def recorded(settings: Settings) -> dict[str, str]:
    """Return variable and value of every setting, not secret, of the embedder that ``settings`` name.

    An empty value stands for the default. An address is kept without user, password and query. A vendor's file
    without ``PREFIX`` has nothing to record.

    Raises:
        ConfigurationError: no such embedder, or a value that cannot be read.
    """
    module = backends.load("embedders", settings.embedder)
    fields = _public_fields(module)
    if not fields:
        return {}
    own = settings.vendor(module.Settings, module.PREFIX)
    texts = {variable: _text(getattr(own, name)) for variable, name in fields.items()}
    return {variable: text for variable, text in texts.items() if text is not None}


def laid_over(settings: Settings, name: str, values: Mapping[str, str]) -> Settings:
    """Return settings that name the embedder ``name`` and set it up as recorded.

    Everything else, secrets above all, stays as it is; so does an address that differs from the recorded one only
    in what was left out of that.

    Raises:
        ConfigurationError: no such embedder.
    """
    public = _public_fields(backends.load("embedders", name))
    environ = dict(settings.environ)
    for variable, value in values.items():
        if variable in public and _without_login(environ.get(variable, "")) != value:
            environ[variable] = value
    return dataclasses.replace(settings, embedder=name, environ=environ)


def _public_fields(module: ModuleType) -> dict[str, str]:
    """Return, by variable, the fields of a vendor's settings that are no secrets."""
    prefix = getattr(module, "PREFIX", None)
    if prefix is None:
        return {}
    fields = [f for f in dataclasses.fields(module.Settings) if not f.metadata.get("secret")]
    return {f"{prefix}{f.name.upper()}": f.name for f in fields}


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
