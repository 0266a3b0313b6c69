"""Who does it: anything with a socket, a key or model weights.

One folder a role; in it ``base.py`` (the protocol) and one file a vendor with three names:
``Settings``, the class, and ``build(settings)``. A vendor is found by its file name, so adding one
edits nothing here.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from rag_platform.errors import ConfigurationError


def vendors(role: str) -> list[str]:
    """Return the vendor names of a role: its modules, less ``base`` and those its package lists in ``SHARED``."""
    package = importlib.import_module(f"{__name__}.{role}")
    shared = {"base", *getattr(package, "SHARED", ())}
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name not in shared and not m.ispkg)


def load(role: str, vendor: str) -> ModuleType:
    """Return the module ``backends/<role>/<vendor>.py``.

    Raises:
        ConfigurationError: no such vendor (the message lists the known ones), or its SDK is not
            installed (the message holds the install line, the module's ``INSTALL``).
    """
    known = vendors(role)
    if vendor not in known:
        raise ConfigurationError(f"unknown {role} backend {vendor!r}; known: {', '.join(known)}")
    try:
        return importlib.import_module(f"{__name__}.{role}.{vendor}")
    except ModuleNotFoundError as e:
        if e.name is not None and e.name.startswith("rag_platform"):
            raise
        raise ConfigurationError(
            f"backend {role}/{vendor} needs the package {e.name!r}: run `pip install {e.name}`"
        ) from e
