"""A parser that misbehaves on demand: what it does is the document. Used by the tests of the pool only."""

import ctypes
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from rag_platform.ingestion.parsers import progress
from rag_platform.ingestion.parsers.base import Block, RawDocument

SUFFIXES = (".hostile",)
VERSION = 1


def parse(data, suffix, limits):
    blocks = []
    for line in data.decode().splitlines():
        order, _, argument = line.partition(" ")
        blocks.append(Block("text", str(globals()[f"do_{order}"](argument))))
    return RawDocument(blocks=blocks)


def do_echo(argument):
    return argument


def do_pid(argument):
    return Path("/proc/self/stat").read_text().split()[0]


def do_sleep(argument):
    Path(argument).write_text("") if argument else None
    time.sleep(600)


def do_spin(argument):
    while True:
        pass


def do_hog(argument):
    held = []
    while True:
        held.append(bytearray(64 * 1024 * 1024))


def do_segfault(argument):
    ctypes.string_at(0)


def do_abort(argument):
    os.abort()


def do_kill(argument):
    os.kill(os.getpid(), 9)
    ctypes.string_at(0)


def do_exit(argument):
    os._exit(7)


def do_raise(argument):
    raise RuntimeError("the document says: " + argument)


def do_recurse(argument):
    return do_recurse(argument)


def do_print(argument):
    print(argument)
    print(argument, file=sys.stderr)
    os.write(1, argument.encode())
    os.write(2, argument.encode())
    return "printed"


def do_connect(argument):
    tried = []
    host, port = argument.split(":")
    for attempt in (
        lambda: socket.create_connection((host, int(port)), timeout=2),
        lambda: socket.socket(),
        lambda: subprocess.run(
            [sys.executable, "-I", "-c", f"import socket; socket.create_connection(({host!r}, {port}), timeout=2)"],
            check=True,
            capture_output=True,
            timeout=20,
        ),
    ):
        try:
            attempt()
            tried.append("connected")
        except Exception as e:
            tried.append(type(e).__name__)
    return " ".join(tried)


def do_write(argument):
    try:
        Path(argument).write_text("escaped")
    except OSError as e:
        return type(e).__name__
    return "written"


def do_litter(argument):
    import tempfile

    Path(tempfile.mkdtemp(), "file").write_text(argument)
    return os.environ["TMPDIR"]


def do_listing(argument):
    return " ".join(["entries:", *(p.name for p in Path(os.environ["TMPDIR"]).iterdir())])


def do_environment(argument):
    return " ".join(sorted(os.environ))


def do_daemon(argument):
    """Start a process that leaves the session, wait until it runs, then sleep."""
    started = Path(os.environ["TMPDIR"], "started")
    code = f"import time, pathlib; pathlib.Path({str(started)!r}).write_text(''); time.sleep(600)  # {argument}"
    subprocess.Popen([sys.executable, "-I", "-c", code], start_new_session=True)
    while not started.exists():
        time.sleep(0.01)
    return "daemon runs"


def do_scan(argument):
    """Read pages by an OCR that takes its time: how many pages, which clock runs, seconds a page."""
    pages, clock, seconds = argument.split()
    for _ in range(int(pages)):
        progress.ocr_page()
        if clock == "wall":
            time.sleep(float(seconds))
        else:
            until = time.process_time() + float(seconds)
            while time.process_time() < until:
                pass
    return f"{pages} pages"
