"""The parent's side of one parser process: start it, give it a document, get the answer or the reason
why there is none, kill it with everything that it started."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rag_platform.errors import (
    ConfigurationError,
    CorruptDocument,
    DependencyError,
    DependencyTimeout,
    LimitExceeded,
)
from rag_platform.ingestion.parsers import frames
from rag_platform.ingestion.parsers.base import Limits
from rag_platform.ingestion.parsers.jail import SIGNAL_BASE
from rag_platform.records import ParsedDocument

START_S: Final = 60.0
"""Wall seconds in which a process must report for work, and in which it must load a parser."""

_LAST_WORDS_S: Final = 5.0

_BOOT: Final = (
    "import sys, json; sys.path += [p for p in json.loads(sys.argv[2]) if p not in sys.path]\n"
    "from rag_platform.ingestion.parsers import jail; jail.close_door(json.loads(sys.argv[1]))\n"
    "from rag_platform.ingestion.parsers.worker import main; main()"
)
"""The jail comes first: the kernel gives namespaces only to a process that has one thread still, and
numerical libraries start theirs when they are imported."""


class ProcessKilled(Exception):
    """Somebody else killed the process (perhaps the kernel, short of memory): not the document's fault
    until it happens again."""


class ParserProcess:
    """One worker. Not thread-safe: whoever holds it uses it alone; only ``kill`` may come from outside.

    Args:
        scratch: existing empty folder, the only place where it may write.
        extra: suffix to importable module name, for parsers outside the package.

    Raises:
        ConfigurationError: it ended before it could work.
        DependencyError: the machine cannot start one now.
    """

    def __init__(self, limits: Limits, scratch: Path, extra: Mapping[str, str]) -> None:
        self.documents = 0
        self.rss_mb = 0
        self._limits = limits
        self._pages = 0
        ours, theirs = socket.socketpair()
        self._socket = ours
        ours.settimeout(START_S)
        settings = {
            "fd": theirs.fileno(),
            "parent": os.getpid(),
            "scratch": str(scratch),
            "memory_mb": limits.memory_mb,
            "extra": dict(extra),
        }
        path = [p for p in sys.path if p and os.path.isabs(p)]  # noqa: PTH117 — a string, maybe no path at all
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-X", "utf8", "-c", _BOOT, json.dumps(settings), json.dumps(path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                cwd=scratch,
                env=_environment(scratch),
            )
        except OSError as e:
            ours.close()
            raise DependencyError("parser process", f"cannot be started ({e.strerror})") from e
        finally:
            theirs.close()
        try:
            self._receive(time.monotonic() + START_S)
        except (EOFError, OSError, ValueError) as e:
            timed_out = isinstance(e, TimeoutError)
            code = self._exit_code()
            ours.close()
            if timed_out:
                raise DependencyTimeout("parser process", f"did not start within {START_S:.0f} s") from e
            if code in (-signal.SIGKILL, SIGNAL_BASE + signal.SIGKILL):
                raise DependencyError("parser process", "was killed while it started") from e
            raise ConfigurationError(
                f"a parser process ends at once (exit code {code}): check the installation, and that "
                f"RAG_PARSE_MEMORY_MB ({limits.memory_mb}) suffices"
            ) from e

    @property
    def pid(self) -> int:
        """Process id of the launcher, which is also the id of its process group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def parse(self, data: bytes, name: str) -> ParsedDocument:
        """Parse one document. After any error but a ``DocumentError`` that the worker itself reported the
        process is dead.

        Raises:
            DocumentError: the document cannot be read, or not within the limits.
            ConfigurationError: a library that its parser needs is missing.
            DependencyTimeout: the parser could not be loaded in time.
            ProcessKilled: killed from outside.
        """
        self.documents += 1
        limits = self._limits
        started = False
        self._pages = 0
        try:
            deadline = time.monotonic() + START_S + limits.wall_s
            request = {"name": name, "limits": dataclasses.asdict(limits)}
            self._send(frames.pack(request, data), deadline)
            message, body = self._receive(time.monotonic() + START_S)
            if message["status"] == "started":
                started = True
                message, body = self._result()
        except TimeoutError as e:
            self.kill()
            if not started:
                raise DependencyTimeout("parser process", f"no parser loaded within {START_S:.0f} s") from e
            raise self._too_slow(limits.wall_s, "s", "RAG_PARSE_WALL_S") from e
        except (EOFError, ConnectionError) as e:
            raise self._why_dead(self._exit_code()) from e
        except (ValueError, KeyError, OSError) as e:
            self.kill()
            raise CorruptDocument("its parser process answered with nonsense") from e
        self.rss_mb = int(message.get("rss_mb", 0))
        if message["status"] == "parsed":
            return frames.read_document(message, body)
        if message["status"] == "misconfigured":
            raise ConfigurationError(str(message.get("message")))
        raise frames.read_error(message)

    def kill(self) -> None:
        """End the process and all that it started. Safe to call twice and from another thread."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill, reap, and let go of the socket."""
        self.kill()
        self._process.wait()
        self._socket.close()

    def _exit_code(self) -> int:
        """How the worker ended. It has closed its socket, so its launcher is about to say; what does not
        end by itself is killed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_WORDS_S)
        self.kill()
        return self._process.wait()

    def _why_dead(self, code: int) -> Exception:
        signum = -code if code < 0 else code - SIGNAL_BASE
        if signum == signal.SIGXCPU:
            return self._too_slow(self._limits.cpu_s, "s of CPU time", "RAG_PARSE_CPU_S")
        if signum == signal.SIGKILL:
            return ProcessKilled()
        if signum == signal.SIGXFSZ:
            return LimitExceeded("wrote more to its scratch folder than it may")
        try:
            reason = signal.Signals(signum).name
        except ValueError:
            reason = f"exit code {code}"
        return CorruptDocument(f"its parser crashed ({reason})")

    def _too_slow(self, seconds: int, unit: str, setting: str) -> LimitExceeded:
        if self._pages == 0:
            return LimitExceeded(f"needed more than {seconds} {unit}", cure=f"raise {setting}")
        each = f"and {self._limits.ocr_page_s} s for each of the pages read by OCR ({self._pages})"
        return LimitExceeded(
            f"needed more than {seconds} {unit} {each}", cure=f"raise RAG_PARSE_OCR_PAGE_S or {setting}"
        )

    def _result(self) -> tuple[dict[str, Any], bytes]:
        """Wait for the answer. Each page that is read by OCR puts the deadline off, at most
        ``ocr_max_pages`` times; what pages left over is kept, but a stall never lasts longer than
        ``wall_s + ocr_page_s``."""
        limits = self._limits
        deadline = time.monotonic() + limits.wall_s
        while True:
            message, body = self._receive(deadline)
            if message["status"] != "page":
                return message, body
            if self._pages < limits.ocr_max_pages:
                self._pages += 1
                deadline = min(deadline, time.monotonic() + limits.wall_s) + limits.ocr_page_s

    def _send(self, pieces: list[bytes], deadline: float) -> None:
        for piece in pieces:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            self._socket.sendall(piece)

    def _receive(self, deadline: float) -> tuple[dict[str, Any], bytes]:
        def take(size: int) -> bytes:
            buffer = bytearray(size)
            view, got = memoryview(buffer), 0
            while got < size:
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))
                read = self._socket.recv_into(view[got : got + (1 << 20)])
                if read == 0:
                    raise EOFError
                got += read
            return bytes(buffer)

        return frames.unpack(take, 8 * self._limits.max_text_chars + (1 << 28))


def _environment(scratch: Path) -> dict[str, str]:
    """Everything the worker inherits: no secret, no proxy, and "no" to every telemetry it might meet."""
    return {
        "PATH": os.defpath if os.name != "posix" else "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "DO_NOT_TRACK": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "SCARF_NO_ANALYTICS": "1",
        "UNSTRUCTURED_DISABLE_NOTICE": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_THREAD_LIMIT": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
