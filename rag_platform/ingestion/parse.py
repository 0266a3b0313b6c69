"""Documents in, clean text with element spans out; a bad document costs itself and nothing else.

Light formats (plain text, Markdown, captions …) are read in this process. Everything else goes to warm,
jailed parser processes, started when first needed.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import itertools
import os
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from rag_platform.errors import ConfigurationError, DependencyError, DocumentError, EmptyDocument, LimitExceeded
from rag_platform.identity import fingerprint
from rag_platform.ingestion.parsers import formats, ocr
from rag_platform.ingestion.parsers.base import Limits
from rag_platform.ingestion.parsers.dispatch import parse_here
from rag_platform.ingestion.parsers.process import ParserProcess, ProcessKilled
from rag_platform.ingestion.parsers.sniff import light_suffix
from rag_platform.records import ParsedDocument

K = TypeVar("K")

LIGHT_MAX_BYTES: Final = 8 * 1024 * 1024
"""Larger files of light formats go to a worker, where their time and memory are bounded."""

_RECYCLE_DOCUMENTS: Final = 500
_SCRATCH_PREFIX: Final = "rag-parsers-"


def parser_fingerprint(limits: Limits) -> str:
    """Identify what a parse depends on besides its bytes: the version of every parser, the limits that
    alter output, the versions of unstructured and of the OCR engine, and the native programs installed."""
    return fingerprint(
        "parser",
        {
            "modules": {m.name: m.version for m in formats.modules().values()},
            "unstructured": importlib.metadata.version("unstructured"),
            "tools": list(formats.native_tools()),
            "ocr": ocr.tools() if limits.ocr != "off" else {},
            "languages": limits.languages,
            "max_text_chars": limits.max_text_chars,
            "max_pages": limits.max_pages,
            "ocr_max_pages": limits.ocr_max_pages,
            "max_expanded_bytes": limits.max_expanded_bytes,
            "max_attachment_depth": limits.max_attachment_depth,
        },
    )


class ParserPool:
    """Up to ``workers`` parser processes behind one thread-safe ``parse``.

    Args:
        scratch: the folder in which processes may have temporary files; made when needed. The system's
            own when not given.
        extra_parsers: suffix (with the dot) to the importable name of a module that keeps the contract
            of ``parsers/base.py``; always run in a worker.
    """

    def __init__(
        self,
        limits: Limits,
        workers: int,
        *,
        scratch: Path | None = None,
        extra_parsers: Mapping[str, str] | None = None,
    ) -> None:
        self.limits = limits
        self._scratch = scratch
        self.workers = max(1, workers)
        self._extra = dict(extra_parsers or {})
        self._slots = threading.BoundedSemaphore(self.workers)
        self._lock = threading.Lock()
        self._idle: list[ParserProcess] = []
        self._busy: dict[ParserProcess, _Caller] = {}
        self._closed = False
        self._spawner: _Spawner | None = None
        self.started_count = 0
        """Processes started so far; stays 0 while only light formats come."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End every process, also one at work, and delete the scratch folder."""
        with self._lock:
            self._closed = True
            processes = [*self._idle, *self._busy]
            self._idle = []
            spawner, self._spawner = self._spawner, None
        for process in processes:
            process.kill()
        for process in processes:
            if process not in self._busy:
                process.close()
        if spawner is not None:
            spawner.close()

    def parse(self, data: bytes, name: str) -> ParsedDocument:
        """Parse one document; ``name`` is its file name or URI, of which only the suffix matters.

        Raises:
            DocumentError: it cannot be read; the message says why, without its text.
            ConfigurationError: a parser or OCR cannot be loaded, no process can work at all, or the scratch
                folder cannot be made.
            DependencyError: this machine cannot start a parser process now.
        """
        return self._parse(data, name, _Caller())

    def _parse(self, data: bytes, name: str, caller: _Caller) -> ParsedDocument:
        if not data:
            raise EmptyDocument("holds no bytes")
        suffix = light_suffix(data, name) if len(data) <= LIGHT_MAX_BYTES else None
        if suffix is not None and suffix not in self._extra:
            return parse_here(data, suffix, self.limits)
        with self._slots:
            try:
                return self._parse_in_worker(data, name, caller)
            except ProcessKilled:
                pass  # once may be chance: the kernel, short of memory, chose this process
            try:
                return self._parse_in_worker(data, name, caller)
            except ProcessKilled as e:
                raise LimitExceeded("its parser process was killed twice, probably for lack of memory") from e

    def parse_many(
        self, items: Iterable[tuple[K, str, Callable[[], bytes]]]
    ) -> Generator[tuple[K, ParsedDocument | DocumentError, float], None, None]:
        """Parse (key, name, loader) items and yield (key, result, seconds) as they are done, in any order.

        At most ``workers + 1`` documents are held at a time; ``items`` is consumed as fast as results are
        taken. Closing the generator stops the documents at work.

        Raises:
            Exception: whatever a loader raises, unless it is a ``DocumentError``, which is that item's result.
            ConfigurationError, DependencyError: as ``parse``.
        """
        source = iter(items)
        caller = _Caller()
        running: dict[Future[tuple[ParsedDocument | DocumentError, float]], K] = {}
        executor = ThreadPoolExecutor(self.workers, thread_name_prefix="parse")
        try:
            while True:
                for key, name, load in itertools.islice(source, self.workers + 1 - len(running)):
                    running[executor.submit(self._timed, name, load, caller)] = key
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    key = running.pop(future)
                    result, seconds = future.result()
                    del future
                    yield key, result, seconds
        finally:
            self._abandon(caller)
            executor.shutdown(wait=True, cancel_futures=True)

    def _timed(
        self, name: str, load: Callable[[], bytes], caller: _Caller
    ) -> tuple[ParsedDocument | DocumentError, float]:
        began = time.perf_counter()
        result: ParsedDocument | DocumentError
        try:
            result = self._parse(load(), name, caller)
        except DocumentError as e:
            result = e.with_traceback(None)
        return result, time.perf_counter() - began

    def _parse_in_worker(self, data: bytes, name: str, caller: _Caller) -> ParsedDocument:
        process = self._acquire(caller)
        reusable = False
        try:
            document = process.parse(data, name)
            reusable = True
            return document
        except DocumentError:
            reusable = True
            raise
        finally:
            self._release(process, reusable)

    def _acquire(self, caller: _Caller) -> ParserProcess:
        while True:
            with self._lock:
                self._check_wanted(caller)
                process = self._idle.pop() if self._idle else None
                if process is not None:
                    self._busy[process] = caller
                elif self._spawner is None:
                    self._spawner = _Spawner(self.limits, self._scratch, self._extra)
                spawner = self._spawner
            if process is None:
                assert spawner is not None
                process = spawner.spawn()
                with self._lock:
                    self.started_count += 1
                    self._busy[process] = caller
                    if self._closed or caller.gone:
                        process.kill()
                return process
            if process.alive:
                return process
            self._release(process, False)

    def _release(self, process: ParserProcess, reusable: bool) -> None:
        fresh = process.documents < _RECYCLE_DOCUMENTS and process.rss_mb < self.limits.memory_mb // 2
        with self._lock:
            self._busy.pop(process, None)
            keep = reusable and fresh and process.alive and not self._closed
            if keep:
                self._idle.append(process)
        if not keep:
            process.close()

    def _check_wanted(self, caller: _Caller) -> None:
        if self._closed or caller.gone:
            raise DependencyError("parser process", "the pool is closed", retryable=False)

    def _abandon(self, caller: _Caller) -> None:
        """Stop what is at work for one caller; others do not notice."""
        with self._lock:
            caller.gone = True
            for process, owner in self._busy.items():
                if owner is caller:
                    process.kill()


class _Caller:
    """Who waits for a document; ``gone`` once nobody does any more."""

    gone = False


class _Spawner:
    """A thread that starts the processes and lives as long as they do: Linux sends the signal that
    kills a child with its parent when the *thread* that started the child ends. Also owns the scratch
    folder, locked so that a later run can tell it from one whose owner was killed."""

    def __init__(self, limits: Limits, base: Path | None, extra: Mapping[str, str]) -> None:
        self._limits, self._extra = limits, extra
        base = Path(tempfile.gettempdir()) if base is None else base.absolute()
        try:
            base.mkdir(parents=True, exist_ok=True)
            _sweep_abandoned(base)
            self._root, self._guard = _locked_folder(base)
        except OSError as e:
            raise ConfigurationError(f"no scratch folder for parsers can be made in {base} ({e.strerror})") from e
        self._count = itertools.count()
        self._requests: queue.SimpleQueue[Future[ParserProcess] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="parser-spawner", daemon=True)
        self._thread.start()

    def spawn(self) -> ParserProcess:
        future: Future[ParserProcess] = Future()
        self._requests.put(future)
        return future.result()

    def close(self) -> None:
        self._requests.put(None)
        self._thread.join()
        os.close(self._guard)
        shutil.rmtree(self._root, ignore_errors=True)

    def _run(self) -> None:
        while (future := self._requests.get()) is not None:
            try:
                scratch = self._root / f"w{next(self._count)}"
                scratch.mkdir(mode=0o700)
                future.set_result(ParserProcess(self._limits, scratch, self._extra))
            except BaseException as e:
                future.set_exception(e)


def _locked_folder(base: Path) -> tuple[Path, int]:
    """Make a scratch folder; return it and the descriptor of its locked lock file. It gets the name by
    which others find it once it is locked, or one that starts now would take it for abandoned."""
    made = Path(tempfile.mkdtemp(prefix=f".{_SCRATCH_PREFIX}", dir=base))
    guard = os.open(made / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(OSError):  # a file system without locks: nobody can sweep there either
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return made.rename(base / made.name[1:]), guard


def _sweep_abandoned(base: Path) -> None:
    """Delete scratch folders whose owner was killed: nobody holds their lock any more."""
    for folder in base.glob(f"{_SCRATCH_PREFIX}*"):
        with contextlib.suppress(OSError):
            guard = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(guard)
