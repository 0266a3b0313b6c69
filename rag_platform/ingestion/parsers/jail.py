"""How a parser process is confined. Linux first; what a kernel or container refuses is left out, and
the limits that every POSIX system has remain.

    launcher      own session; dies with the parent (PR_SET_PDEATHSIG)
      └── init    first process of its own PID namespace: whatever is started below dies with it
            └── worker   no network, resource limits, may write below its scratch folder only (Landlock)

Where namespaces are refused, the worker runs in the launcher itself and the process group is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWPID: Final = 0x20000000
_CLONE_NEWNET: Final = 0x40000000
_CLONE_NEWIPC: Final = 0x08000000
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
MAX_FILE_BYTES: Final = 2 * 1024**3
MAX_CORE_BYTES: Final = 0
SIGNAL_BASE: Final = 128
"""A worker ended by signal n is reported by its launcher as exit code 128 + n."""


def close_door(settings: dict[str, Any]) -> None:
    """Confine this process as a parser: tie it to its parent, then ``enter``.

    Args:
        settings: what ``process.ParserProcess`` passes: parent, memory_mb, scratch.
    """
    die_with_parent(settings["parent"])
    enter(settings["memory_mb"], Path(settings["scratch"]))


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies; leave at once if that has happened.

    Args:
        parent: process id of the parent, as seen from here.
    """
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def enter(memory_mb: int, scratch: Path) -> None:
    """Confine this process and everything it starts. Returns in the process that shall work: it may be
    a grandchild of the one that called, whose other copies only wait and pass on how it ended."""
    if sys.platform == "linux" and _unshare():
        _fork_and_wait()  # the launcher waits; its child is the first process of the new namespace
        _fork_and_wait()  # which must stay free to reap; its child works
        with contextlib.suppress(OSError, AttributeError):
            _write_only_below(scratch)
    _limit(resource.RLIMIT_CORE, MAX_CORE_BYTES)
    _limit(resource.RLIMIT_FSIZE, MAX_FILE_BYTES)
    _limit(resource.RLIMIT_AS, memory_mb * 1024**2)
    _limit(resource.RLIMIT_NOFILE, 256)
    os.umask(0o077)
    deny_sockets()


def allow_cpu(seconds: int) -> None:
    """Let this process use ``seconds`` more of CPU time; the kernel ends it (SIGXCPU) after that. Also
    what each program that it starts may use."""
    _set_cpu_limit(_cpu_used() + seconds)


def extend_cpu(seconds: int, at_most: int) -> None:
    """Let this process use ``seconds`` of CPU time more than it might so far, and ``at_most`` from now on."""
    soft, _ = resource.getrlimit(resource.RLIMIT_CPU)
    if soft != resource.RLIM_INFINITY:
        _set_cpu_limit(min(soft + seconds, _cpu_used() + at_most))


def _cpu_used() -> int:
    """Return the CPU seconds used, rounded up."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return int(usage.ru_utime + usage.ru_stime) + 1


def _set_cpu_limit(soft: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    # No handler: Python would run it only between byte codes, and a hang is most often inside a library.
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def resident_mb() -> int:
    """Return the resident memory of this process, in MB; 0 where /proc is absent."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * resource.getpagesize() // 1024**2


def deny_sockets() -> None:
    """Refuse sockets at the level of Python as well, for systems without network namespaces."""

    class NoSocket(socket.socket):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            raise PermissionError("parsers have no network")

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise PermissionError("parsers have no network")

    socket.socket = NoSocket  # type: ignore[misc]
    for name in ("create_connection", "create_server", "getaddrinfo", "gethostbyname", "socketpair", "fromfd"):
        setattr(socket, name, refuse)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _unshare() -> bool:
    """Enter new user, network, PID and IPC namespaces, keeping the user's own id."""
    uid, gid = os.getuid(), os.getgid()
    if _libc().unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWPID | _CLONE_NEWIPC) != 0:
        return False
    with contextlib.suppress(OSError):
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    return True


def _fork_and_wait() -> None:
    """Return in a forked child; the parent waits for it, reaps what is orphaned to it, closes what it
    has no use for, and ends as the child did."""
    me = os.getpid()
    child = os.fork()
    if child == 0:
        _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() not in (me, 0):
            os._exit(0)
        return
    os.closerange(3, 64)
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            os._exit(1)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else SIGNAL_BASE - code)


def _limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(what, (value, value))


def _write_only_below(folder: Path) -> None:
    """Landlock (Linux 5.13): reading stays as it was, writing is possible below ``folder`` only."""
    libc = _libc()
    create, add, restrict = 444, 445, 446
    # write_file, remove_dir, remove_file, make_char, make_dir, make_reg, make_sock, make_fifo, make_block, make_sym
    writes = 1 << 1 | sum(1 << bit for bit in range(4, 13))
    attributes = ctypes.c_uint64(writes)
    ruleset = libc.syscall(create, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
    if ruleset < 0:
        return
    try:
        for path, allowed in ((folder, writes), (Path("/dev/null"), 1 << 1)):
            opened = os.open(path, getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
            try:
                rule = allowed.to_bytes(8, sys.byteorder) + opened.to_bytes(4, sys.byteorder, signed=True)
                libc.syscall(add, ruleset, 1, ctypes.c_char_p(rule), 0)
            finally:
                os.close(opened)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.syscall(restrict, ruleset, 0)
    finally:
        os.close(ruleset)
