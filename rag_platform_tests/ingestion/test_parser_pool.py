"""The parser processes: one bad document costs itself and nothing else, and nothing gets out."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rag_platform.errors import (
    ConfigurationError,
    CorruptDocument,
    DependencyError,
    DocumentError,
    EmptyDocument,
    LimitExceeded,
)
from rag_platform.ingestion.parse import ParserPool, parser_fingerprint
from rag_platform.ingestion.parsers import process as process_module
from rag_platform.ingestion.parsers.base import Limits
from rag_platform.records import ParsedDocument

LIMITS = Limits(cpu_s=1, wall_s=30, memory_mb=600)
EXTRA = {".hostile": "hostile_parser", ".absent": "no_such_parser_module"}


@pytest.fixture(scope="module")
def pool() -> Iterator[ParserPool]:
    with ParserPool(LIMITS, 2, extra_parsers=EXTRA) as opened:
        yield opened


def ask(pool: ParserPool, order: str) -> str:
    return pool.parse(order.encode(), "x.hostile").text


def eventually(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Poll; the bound is generous because the machine may be busy."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.02)
    return true()


def running_with(mark: str) -> list[int]:
    """Processes whose command line holds ``mark``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if mark.encode() in line and state != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize(
    ("order", "error", "says"),
    [
        ("spin", LimitExceeded, "1 s of CPU time"),
        ("hog", LimitExceeded, "600 MB of memory"),
        ("recurse", LimitExceeded, "nested too deeply"),
        ("segfault", CorruptDocument, "SIGSEGV"),
        ("abort", CorruptDocument, "crashed"),
        ("exit", CorruptDocument, "exit code 7"),
        ("raise secret-word", CorruptDocument, "RuntimeError"),
    ],
)
def test_a_misbehaving_document_costs_only_itself(pool: ParserPool, order: str, error: type, says: str) -> None:
    """Each way to fail becomes a DocumentError that a person understands; the next document is read."""
    with pytest.raises(error, match=says) as caught:
        ask(pool, order)
    assert "secret-word" not in str(caught.value)
    assert ask(pool, "echo next") == "next"


def test_a_sleeping_parser_is_ended_by_the_clock() -> None:
    """Wall time is bounded too, by the parent; the pool goes on."""
    with ParserPool(Limits(wall_s=1), 1, extra_parsers=EXTRA) as own:
        with pytest.raises(LimitExceeded, match="more than 1 s"):
            ask(own, "sleep")
        assert ask(own, "echo next") == "next"


@pytest.mark.parametrize(
    ("clock", "limits"),
    [("cpu", Limits(cpu_s=1, wall_s=60, ocr_page_s=2)), ("wall", Limits(cpu_s=9, wall_s=1, ocr_page_s=5))],
)
def test_pages_read_by_ocr_earn_time(clock: str, limits: Limits) -> None:
    """Five pages of one second each are read to their end although the document alone has one second:
    how much of a scan is read does not depend on the speed of the machine."""
    with ParserPool(limits, 1, extra_parsers=EXTRA) as own:
        assert ask(own, f"scan 5 {clock} 1.0") == "5 pages"


@pytest.mark.parametrize(
    ("order", "limits", "says"),
    [
        ("scan 1 wall 600", Limits(wall_s=1, ocr_page_s=1), r"1 s and 1 s for each of the pages .* \(1\)"),
        ("scan 1 cpu 600", Limits(cpu_s=1, ocr_page_s=1), r"1 s of CPU time and 1 s for each .* \(1\)"),
        ("scan 100000 wall 0.05", Limits(wall_s=1, ocr_page_s=1, ocr_max_pages=2), r"\(2\)"),
    ],
)
def test_earned_time_is_bounded(order: str, limits: Limits, says: str) -> None:
    """A page that stalls dies, and pages beyond ``ocr_max_pages`` earn nothing; the error names the
    setting to raise, and the next document has the usual time."""
    with ParserPool(limits, 1, extra_parsers=EXTRA) as own:
        with pytest.raises(LimitExceeded, match=says) as caught:
            ask(own, order)
        assert "RAG_PARSE_OCR_PAGE_S" in str(caught.value)
        with pytest.raises(LimitExceeded, match=r"more than 1 s.*raise RAG_PARSE_(CPU|WALL)_S$"):
            ask(own, "spin" if "cpu" in order else "sleep")


def test_time_left_over_by_pages_does_not_let_a_stall_last() -> None:
    """A thousand quick pages leave no hours for the stall that follows."""
    with ParserPool(Limits(wall_s=1, ocr_page_s=2, ocr_max_pages=5000), 1, extra_parsers=EXTRA) as own:
        began = time.monotonic()
        with pytest.raises(LimitExceeded, match=r"\(1000\)"):
            ask(own, "scan 1000 wall 0\nsleep")
        assert time.monotonic() - began < 60


def test_a_worker_killed_from_outside_is_tried_once_more(pool: ParserPool) -> None:
    """SIGKILL that we did not send is not the document's fault the first time."""
    result: list[object] = []
    thread = threading.Thread(target=lambda: result.append(_outcome(pool, b"sleep asleep")))
    thread.start()
    seen: set[Path] = set()

    def another_worker_has_it() -> bool:
        """The parser leaves a file in its scratch folder when it has got the document."""
        return pool._spawner is not None and bool(set(pool._spawner._root.glob("w*/asleep")) - seen)

    for _ in range(2):
        assert eventually(another_worker_has_it, 30)
        assert pool._spawner is not None
        seen |= set(pool._spawner._root.glob("w*/asleep"))
        next(iter(pool._busy)).kill()
    thread.join(30)
    assert isinstance(result[0], LimitExceeded)
    assert "killed twice" in str(result[0])


def _outcome(pool: ParserPool, data: bytes) -> object:
    try:
        return pool.parse(data, "x.hostile")
    except Exception as e:
        return e


def test_no_network_inside(pool: ParserPool) -> None:
    """Neither the parser nor a program that it starts reaches a listening socket of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        tried = ask(pool, f"connect 127.0.0.1:{port}").split()
    assert "connected" not in tried[:2]
    if subprocess.run(["unshare", "-Urn", "true"], capture_output=True).returncode == 0:
        assert tried[2] == "CalledProcessError"


def test_nothing_is_written_outside_scratch_and_scratch_is_emptied(pool: ParserPool, tmp_path: Path) -> None:
    """Scratch is empty for each document; where the kernel has Landlock, writing elsewhere is refused."""
    scratch = Path(ask(pool, "litter rubbish"))
    assert eventually(lambda: not list(scratch.iterdir()))
    assert ask(pool, "listing") == "entries:"
    escape = tmp_path / "escape"
    answer = ask(pool, f"write {escape}")
    if _has_landlock():
        assert answer == "PermissionError"
        assert not escape.exists()


def _has_landlock() -> bool:
    """Ask the kernel for Landlock's ABI version (LANDLOCK_CREATE_RULESET_VERSION)."""
    return ctypes.CDLL(None).syscall(444, None, 0, 1) > 0


def test_the_environment_is_empty_and_output_is_swallowed(
    pool: ParserPool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No variable of ours reaches a parser, and nothing that it prints reaches our streams."""
    monkeypatch.setenv("RAG_SECRET_OF_THE_TEST", "x")
    with ParserPool(LIMITS, 1, extra_parsers=EXTRA) as own:
        names = ask(own, "environment").split()
        assert not [n for n in names if n.startswith(("RAG_", "AWS_", "HTTP"))]
        assert {"DO_NOT_TRACK", "SCARF_NO_ANALYTICS", "HOME", "TMPDIR"} <= set(names)
        assert ask(own, "print confidential") == "printed"
    out, err = capfd.readouterr()
    assert "confidential" not in out + err


def test_a_parser_that_cannot_be_loaded_is_no_dead_letter(pool: ParserPool) -> None:
    """A missing library stops the stage: ConfigurationError, not DocumentError."""
    with pytest.raises(ConfigurationError, match="no_such_parser_module"):
        pool.parse(b"anything", "x.absent")


def test_a_worker_that_cannot_start_is_no_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends before it reports is a ConfigurationError with its exit code."""
    monkeypatch.setattr(process_module, "_BOOT", "import sys; sys.exit(3)")
    with ParserPool(LIMITS, 1, extra_parsers=EXTRA) as own, pytest.raises(ConfigurationError, match="exit code 3"):
        ask(own, "echo x")


def test_a_machine_that_cannot_fork_is_a_dependency_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """EAGAIN from fork means: try later."""

    def no_fork(*args: object, **kwargs: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(process_module.subprocess, "Popen", no_fork)
    with ParserPool(LIMITS, 1, extra_parsers=EXTRA) as own, pytest.raises(DependencyError):
        ask(own, "echo x")


def test_kill_reaches_what_a_parser_started(tmp_path: Path) -> None:
    """A daemon that left the session dies with the pool (where PID namespaces are allowed)."""
    mark = f"mark-{os.getpid()}-daemon"
    with ParserPool(LIMITS, 1, extra_parsers=EXTRA) as own:
        assert ask(own, f"daemon {mark}") == "daemon runs"
    if subprocess.run(["unshare", "-Urpf", "true"], capture_output=True).returncode == 0:
        assert eventually(lambda: not running_with(mark))


def test_no_orphan_survives_kill_9_of_the_parent(tmp_path: Path) -> None:
    """The processes of a killed parent end, at work or idle; the next pool removes the scratch folder."""
    # A scratch folder of its own: any other test that starts a pool would remove an abandoned one.
    mark = f"mark-{os.getpid()}-orphan"
    script = textwrap.dedent(
        f"""
        import sys, threading, os
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from rag_platform.ingestion.parse import ParserPool
        from rag_platform.ingestion.parsers.base import Limits
        extra, scratch = {{".hostile": "hostile_parser"}}, Path({str(tmp_path)!r})
        pool = ParserPool(Limits(cpu_s=60, wall_s=60), 2, scratch=scratch, extra_parsers=extra)
        pool.parse(b"daemon {mark}", "x.hostile")
        threading.Thread(target=lambda: pool.parse(b"spin", "x.hostile"), daemon=True).start()
        while not pool._busy: pass
        print(next(iter(pool._busy)).pid, pool._spawner._root, flush=True)
        threading.Event().wait()
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, root = parent.stdout.readline().split()
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert eventually(lambda: not running_with(root))
    assert not Path(f"/proc/{pid}").exists() or eventually(lambda: not Path(f"/proc/{pid}").exists())
    if subprocess.run(["unshare", "-Urpf", "true"], capture_output=True).returncode == 0:
        assert eventually(lambda: not running_with(mark))
    assert Path(root).exists()
    with ParserPool(LIMITS, 1, scratch=tmp_path, extra_parsers=EXTRA) as own:
        ask(own, "echo x")
        assert not Path(root).exists()


def test_light_formats_start_no_process_and_import_nothing_heavy() -> None:
    """Text, Markdown, CSV and captions cost neither a worker nor an import of the document libraries."""
    script = textwrap.dedent(
        """
        import sys
        from rag_platform.ingestion.parse import ParserPool, parser_fingerprint
        from rag_platform.ingestion.parsers.base import Limits
        parser_fingerprint(Limits())
        with ParserPool(Limits(), 2) as pool:
            for name in ("a.txt", "b.md", "c.csv", "d.vtt", "e.yaml"):
                pool.parse("WEBVTT\\n\\n00:00.000 --> 00:01.000\\nsome words, 1\\n".encode(), name)
            assert pool.started_count == 0
        heavy = {"unstructured", "spacy", "pandas", "lxml", "onnxruntime", "docx", "dagster", "charset_normalizer"}
        print(sorted(heavy & set(sys.modules)))
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_parse_many_yields_every_key_and_holds_few_documents() -> None:
    """Every key comes back once, failures as values, and loaders run only a little ahead of the reader."""
    loaded = 0
    lock = threading.Lock()

    def loader(data: bytes) -> Callable[[], bytes]:
        def load() -> bytes:
            nonlocal loaded
            with lock:
                loaded += 1
            return data

        return load

    orders = [b"echo %d" % n if n % 10 else b"exit" for n in range(40)]
    with ParserPool(LIMITS, 2, extra_parsers=EXTRA) as own:
        seen = {}
        for done, (key, result, seconds) in enumerate(
            own.parse_many((n, "x.hostile", loader(order)) for n, order in enumerate(orders)), 1
        ):
            seen[key] = result
            assert seconds >= 0
            assert loaded <= done + own.workers + 1
    assert sorted(seen) == list(range(40))
    assert all(isinstance(r, DocumentError) == (k % 10 == 0) for k, r in seen.items())
    assert all(isinstance(r, ParsedDocument) and r.text == str(k) for k, r in seen.items() if k % 10)


def test_closing_parse_many_stops_what_is_at_work() -> None:
    """The generator closes at once, although a document would run for seconds more, and the pool goes on."""
    with ParserPool(Limits(cpu_s=60, wall_s=60), 2, extra_parsers=EXTRA) as own:
        results = own.parse_many([(0, "x.hostile", lambda: b"echo 0"), (1, "x.hostile", lambda: b"spin")])
        assert next(results)[0] == 0
        began = time.monotonic()
        results.close()
        assert time.monotonic() - began < 10
        assert ask(own, "echo on") == "on"


def test_a_loader_that_fails_stops_the_stage(pool: ParserPool) -> None:
    """An outage of the object store is not a dead letter."""

    def broken() -> bytes:
        raise DependencyError("object store", "is down")

    with pytest.raises(DependencyError, match="is down"):
        list(pool.parse_many([(0, "a.txt", broken)]))


def test_parse_is_thread_safe(pool: ParserPool) -> None:
    """More threads than workers share the pool and get their own documents back."""
    answers: dict[int, str] = {}

    def one(n: int) -> None:
        answers[n] = ask(pool, f"echo {n}")

    threads = [threading.Thread(target=one, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {n: str(n) for n in range(12)}


def test_workers_are_warm_and_recycled(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process reads many documents, and is replaced after its share of them."""
    monkeypatch.setattr("rag_platform.ingestion.parse._RECYCLE_DOCUMENTS", 3)
    with ParserPool(LIMITS, 1, extra_parsers=EXTRA) as own:
        for n in range(4):
            ask(own, f"echo {n}")
        assert own.started_count == 2


def test_a_closed_pool_says_so_and_leaves_no_folder() -> None:
    """After close nothing is parsed in a worker, no process and no folder remains."""
    own = ParserPool(LIMITS, 1, extra_parsers=EXTRA)
    ask(own, "echo x")
    assert own._spawner is not None
    root = own._spawner._root
    own.close()
    assert not root.exists()
    with pytest.raises(DependencyError):
        ask(own, "echo x")
    own.close()


def test_scratch_lies_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``scratch`` given nothing is made in the system's temporary folder; the folder is made with its
    parents, is the only one where a parser may write, is swept of what killed runs left, and ends empty."""
    system, scratch = tmp_path / "system", tmp_path / "home" / "scratch"
    system.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(system))
    abandoned = scratch / "rag-parsers-abandoned"
    abandoned.mkdir(parents=True)
    (abandoned / "lock").touch()
    (scratch / "notes.txt").touch()
    with ParserPool(LIMITS, 1, scratch=scratch, extra_parsers=EXTRA) as own:
        assert Path(ask(own, "litter rubbish")).is_relative_to(scratch)
        assert not abandoned.exists()
        if _has_landlock():
            for outside in (scratch / "beside", tmp_path / "home" / "above", system / "escape"):
                assert ask(own, f"write {outside}") == "PermissionError"
    assert [p.name for p in scratch.iterdir()] == ["notes.txt"]
    assert not list(system.iterdir())
    with ParserPool(LIMITS, 1, scratch=tmp_path / "new" / "scratch", extra_parsers=EXTRA) as own:
        assert ask(own, "echo x") == "x"
    blocked = tmp_path / "file"
    blocked.touch()
    with (
        ParserPool(LIMITS, 1, scratch=blocked / "scratch", extra_parsers=EXTRA) as own,
        pytest.raises(ConfigurationError, match="scratch"),
    ):
        ask(own, "echo x")


def test_empty_bytes_are_an_empty_document(pool: ParserPool) -> None:
    """Nothing is started for nothing."""
    with pytest.raises(EmptyDocument):
        pool.parse(b"", "a.pdf")


def test_the_fingerprint_follows_what_alters_output() -> None:
    """OCR settings and size limits are part of it; time and memory limits are not."""
    base = parser_fingerprint(Limits())
    assert base == parser_fingerprint(Limits(cpu_s=5, wall_s=7, memory_mb=512, ocr_page_s=3))
    for changed in (Limits(ocr="off"), Limits(languages="deu"), Limits(max_pages=3), Limits(max_text_chars=9)):
        assert parser_fingerprint(changed) != base


@pytest.mark.parametrize("package", ["rapidocr", "onnxruntime"])
def test_the_fingerprint_follows_the_ocr_engine(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of the engine or of its runtime is another pipeline, but only where OCR is on."""
    version = importlib.metadata.version
    on, off = parser_fingerprint(Limits()), parser_fingerprint(Limits(ocr="off"))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.1" if name == package else version(name))
    assert parser_fingerprint(Limits()) != on
    assert parser_fingerprint(Limits(ocr="off")) == off
