"""Progress, effects and fail points: the hooks through which a run can be watched and killed.

Every durable effect of ingestion (a ledger commit, an object written, an index changed) passes
through ``effect``. In production that is a counter. In the crash tests ``arm`` makes the n-th one
kill the process with SIGKILL (or something that it depends on), just before or just after it happened, so that
the tests enumerate every place where a run can die, on the real pipeline, without a list that could go stale.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

ProgressListener = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class _State:
    progress: ProgressListener | None = None
    effects: int = 0
    kill_at: int | None = None
    kill_when: Literal["before", "after"] = "before"
    kill: Callable[[], None] = _die
    trail: list[str] | None = None


_state = _State()
_lock = threading.Lock()


def report_progress(stage: str, done: int, total: int) -> None:
    """Tell whoever listens that ``done`` of ``total`` items of a stage are finished."""
    if _state.progress is not None:
        _state.progress(stage, done, total)


@contextmanager
def listening(listener: ProgressListener) -> Iterator[None]:
    """Send the progress of this process to ``listener`` while the block runs."""
    previous, _state.progress = _state.progress, listener
    try:
        yield
    finally:
        _state.progress = previous


@contextmanager
def effect(name: str) -> Iterator[None]:
    """Wrap one durable effect, named ``where:what``."""
    with _lock:
        _state.effects += 1
        number = _state.effects
        if _state.trail is not None:
            _state.trail.append(name)
    if number == _state.kill_at and _state.kill_when == "before":
        _state.kill()
    yield
    if number == _state.kill_at and _state.kill_when == "after":
        _state.kill()


def arm(kill_at: int | None, when: Literal["before", "after"] = "before", kill: Callable[[], None] = _die) -> None:
    """Call ``kill`` (this process's death) at its ``kill_at``-th effect from now on; None disarms. For crash tests."""
    _state.effects, _state.kill_at, _state.kill_when, _state.kill = 0, kill_at, when, kill


@contextmanager
def recording() -> Iterator[list[str]]:
    """Collect the names of the effects that happen inside the block."""
    _state.trail = []
    try:
        yield _state.trail
    finally:
        _state.trail = None
