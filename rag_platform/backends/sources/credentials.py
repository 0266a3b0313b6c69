"""Where a source's secret comes from: a variable that the source names, or the vendor's own setting.

``sources.yaml`` holds the name of the variable (``token_env: CONFLUENCE_TOKEN``), never the secret.
"""

from __future__ import annotations

from rag_platform.errors import ConfigurationError
from rag_platform.records import SourceSpec
from rag_platform.settings import Settings


def credential(spec: SourceSpec, settings: Settings, default: str | None, variable: str) -> tuple[str, str]:
    """Return a source's token and the name of the environment variable that it came from.

    Args:
        spec: its option ``token_env`` wins over the default.
        settings: hold the environment.
        default: the vendor's setting.
        variable: the name of that setting's variable.

    Raises:
        ConfigurationError: there is none; names the variable.
    """
    named = spec.options.get("token_env")
    if named is not None:
        variable = str(named)
        token = settings.environ.get(variable)
    else:
        token = default
    if not token:
        raise ConfigurationError(f"source {spec.name!r}: no token; set {variable} in the environment")
    if not token.isascii() or not token.isprintable() or token != token.strip():
        raise ConfigurationError(f"source {spec.name!r}: {variable} holds a space or a line break; it is no token")
    return token, variable
