"""The parser process: reads frames from its private socket, parses in its jail, answers.

Started by ``process.ParserProcess`` with an empty environment; standard output and error are closed, so
nothing that a parser prints reaches a log. One document at a time; its scratch folder is emptied after
each one.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any, Final, NoReturn

from rag_platform.errors import ConfigurationError, DocumentError, LimitExceeded
from rag_platform.ingestion.parsers import frames, jail, progress
from rag_platform.ingestion.parsers.base import Limits
from rag_platform.ingestion.parsers.dispatch import load, parse_here
from rag_platform.ingestion.parsers.formats import suffix_of
from rag_platform.ingestion.parsers.sniff import decide

_LOAD_CPU_S: Final = 120


def main() -> NoReturn:
    """Serve until the socket is closed, inside the jail that ``jail.close_door`` has made.
    ``sys.argv[1]`` is a JSON object: fd, parent, scratch, memory_mb and extra (suffix to module)."""
    settings = json.loads(sys.argv[1])
    scratch = Path(settings["scratch"])
    warnings.simplefilter("ignore")
    sys.setrecursionlimit(3000)
    connection = settings["fd"]
    _send(connection, frames.pack({"status": "ready"}))
    while True:
        try:
            message, data = frames.unpack(lambda n: _take(connection, n), 1 << 40)
        except EOFError:
            os._exit(0)
        _send(connection, _answer(connection, message, data, settings["extra"]))
        del data
        _empty(scratch)
        gc.collect()


def _answer(connection: int, message: dict[str, Any], data: bytes, extra: dict[str, str]) -> list[bytes]:
    limits = Limits(**message["limits"])
    began = time.process_time()
    try:
        jail.allow_cpu(_LOAD_CPU_S)
        suffix = suffix_of(message["name"])
        if suffix not in extra:
            suffix = decide(data, message["name"], limits)
        load(suffix, extra)
        jail.allow_cpu(limits.cpu_s)
        _send(connection, frames.pack({"status": "started"}))
        progress.listen(_Clock(connection, limits).page)
        document = parse_here(data, suffix, limits, extra)
        return frames.document_frame(document, rss_mb=jail.resident_mb(), cpu_s=time.process_time() - began)
    except DocumentError as e:
        return frames.error_frame(e, rss_mb=jail.resident_mb())
    except ConfigurationError as e:
        return frames.pack({"status": "misconfigured", "message": str(e)})
    except MemoryError:
        return frames.error_frame(LimitExceeded(f"needed more than {limits.memory_mb} MB of memory"), rss_mb=1 << 30)


class _Clock:
    """Gives the document more time for each page that is read by OCR, here and in the parent."""

    def __init__(self, connection: int, limits: Limits) -> None:
        self._connection, self._limits = connection, limits
        self._pages = 0

    def page(self) -> None:
        limits = self._limits
        self._pages += 1
        if self._pages <= limits.ocr_max_pages:
            jail.extend_cpu(limits.ocr_page_s, limits.cpu_s + limits.ocr_page_s)
            _send(self._connection, frames.pack({"status": "page"}))


def _take(connection: int, size: int) -> bytes:
    buffer = bytearray(size)
    view, got = memoryview(buffer), 0
    while got < size:
        read = os.readv(connection, [view[got : got + (1 << 20)]])
        if read == 0:
            raise EOFError
        got += read
    return bytes(buffer)


def _send(connection: int, pieces: list[bytes]) -> None:
    try:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(connection, view[: 1 << 20]) :]
    except OSError:
        os._exit(0)  # the parent is gone or has lost interest


def _empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    Path(entry.path).unlink()
