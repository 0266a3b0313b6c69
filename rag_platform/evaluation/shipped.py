"""The golden set of the demo, which comes with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from rag_platform.evaluation.golden import GoldenSet, load, set_path
from rag_platform.settings import Settings

DEMO = "demo"


def demo_set() -> GoldenSet:
    """Return the golden set of the demo corpus."""
    return load(_demo_file())


def install_demo_set(settings: Settings) -> Path | None:
    """Copy the demo's set, comments and all, to where golden sets are; None when one of its name is there already:
    somebody may have worked on it."""
    target = set_path(settings, DEMO)
    if target.exists():
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(_demo_file().read_bytes())
    return target


def _demo_file() -> Path:
    return Path(str(files("rag_platform.evaluation") / "sets" / f"{DEMO}.yaml"))
