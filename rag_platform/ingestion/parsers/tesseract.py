"""The tesseract program, where it is installed. Its absence, refusal or silence is never an error."""

from __future__ import annotations

import csv
import functools
import io
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rag_platform.ingestion.parsers.reading_order import Box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Parser processes have an empty environment, so PATH cannot be asked.
_PLACES: Final = os.pathsep.join(("/usr/local/bin", "/usr/bin", "/bin", "/opt/homebrew/bin", "/opt/local/bin"))
_ENVIRONMENT: Final = {"OMP_THREAD_LIMIT": "1", "LC_ALL": "C", "PATH": _PLACES}


@functools.cache
def find() -> str | None:
    """Return the program's path, or None."""
    return shutil.which("tesseract", path=_PLACES)


@functools.cache
def _languages() -> frozenset[str]:
    program = find()
    if program is None:
        return frozenset()
    try:
        done = subprocess.run([program, "--list-langs"], env=_ENVIRONMENT, capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return frozenset()
    return frozenset(done.stdout.decode("utf-8", "replace").split())


def has(languages: Sequence[str]) -> bool:
    """Return whether tesseract is installed with all of ``languages``."""
    return bool(languages) and find() is not None and _languages().issuperset(languages)


def read(image: NDArray[np.uint8], languages: Sequence[str]) -> tuple[list[Box], list[str], list[float]] | None:
    """Read one page into line boxes, texts and confidences (0 to 1). Without a time limit of its own, or
    the engine that reads a page would depend on the speed of the machine: the document's limits end it.

    Args:
        image: uint8, shape (height, width, 3), BGR.

    Returns:
        None when the program could not do it.
    """
    import cv2

    program = find()
    encoded, png = cv2.imencode(".png", image)
    if program is None or not encoded:
        return None
    # --psm 1: with orientation detection, which needs osd.traineddata
    mode = "1" if "osd" in _languages() else "3"
    command = [program, "stdin", "stdout", "-l", "+".join(languages), "--psm", mode, "tsv"]
    try:
        done = subprocess.run(command, input=png.tobytes(), env=_ENVIRONMENT, capture_output=True, check=True)
    except subprocess.CalledProcessError as e:
        if e.returncode == -signal.SIGXCPU:  # it inherits the limit of the document, which is used up then
            signal.raise_signal(signal.SIGXCPU)
        return None
    except (OSError, subprocess.SubprocessError):
        return None
    return _lines(done.stdout.decode("utf-8", "replace"))


def _lines(tsv: str) -> tuple[list[Box], list[str], list[float]]:
    """Gather the words of tesseract's table into lines."""
    lines: dict[tuple[str, ...], list[tuple[Box, str, float]]] = {}
    for row in csv.DictReader(io.StringIO(tsv), delimiter="\t", quoting=csv.QUOTE_NONE):
        text = (row.get("text") or "").strip()
        if row.get("level") != "5" or not text:
            continue
        left, top, width, height = (float(row[k]) for k in ("left", "top", "width", "height"))
        key = (row["block_num"], row["par_num"], row["line_num"])
        word = (Box(left, top, left + width, top + height), text, max(0.0, float(row["conf"])) / 100)
        lines.setdefault(key, []).append(word)
    boxes, texts, scores = [], [], []
    for words in lines.values():
        found = [b for b, _, _ in words]
        boxes.append(
            Box(
                min(b.left for b in found),
                min(b.top for b in found),
                max(b.right for b in found),
                max(b.bottom for b in found),
            )
        )
        texts.append(" ".join(t for _, t, _ in words))
        scores.append(sum(s for _, _, s in words) / len(words))
    return boxes, texts, scores
