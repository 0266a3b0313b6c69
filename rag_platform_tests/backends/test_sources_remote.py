"""Object stores and web servers as sources, and the addresses that they may not reach."""

from __future__ import annotations

import functools
import http.server
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import fsspec
import pytest

from rag_platform.backends.sources import addresses
from rag_platform.backends.sources.http_client import ExchangeFailed, HttpClient
from rag_platform.errors import ConfigurationError, DependencyError, DocumentError, IncompleteListing, LimitExceeded
from rag_platform_tests.contracts.sources import MB, SourceContract, connect

_numbers = itertools.count()


# ── memory ──


class MemoryPlace:
    def __init__(self) -> None:
        number = next(_numbers)
        self.url = f"memory://source-{number}/docs"
        self.missing_url = f"memory://missing-{number}/docs"
        self._fs = fsspec.filesystem("memory")

    def write(self, uri: str, data: bytes) -> None:
        self._fs.pipe_file(f"{self.url.removeprefix('memory:/')}/{uri}", data)

    def remove(self, uri: str) -> None:
        self._fs.rm_file(f"{self.url.removeprefix('memory:/')}/{uri}")


class TestMemory(SourceContract):
    @pytest.fixture
    def place(self) -> MemoryPlace:
        return MemoryPlace()


# ── HTTP ──


class WebPlace:
    """A folder served by the standard library's file server, directory listings included."""

    def __init__(self, root: Path) -> None:
        self.root = root
        handler = functools.partial(_Quiet, directory=str(root.parent))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/{quote(root.name)}/"
        self.missing_url = self.url + "missing/"

    def write(self, uri: str, data: bytes) -> None:
        path = self.root / uri
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def remove(self, uri: str) -> None:
        (self.root / uri).unlink()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebPlace]:
    (tmp_path / "site docs").mkdir()
    place = WebPlace(tmp_path / "site docs")
    yield place
    place.server.shutdown()
    place.server.server_close()


class TestHttpIndex(SourceContract):
    @pytest.fixture
    def place(self, web: WebPlace) -> WebPlace:
        return web

    def test_the_change_token_moves_with_the_bytes(self, place: WebPlace) -> None:
        """This server has whole seconds of Last-Modified and no ETag: length or second must differ."""
        place.write("a.md", b"one")
        first = connect(place.url).list()
        assert connect(place.url).list() == first
        place.write("a.md", b"longer")
        assert connect(place.url).list()[0].change_token != first[0].change_token


Reply = Callable[[http.server.BaseHTTPRequestHandler], None]


@pytest.fixture
def serve() -> Iterator[Callable[[Reply], str]]:
    """Start a server that answers every request by the given function; returns its address."""
    servers = []

    def start(reply: Reply) -> str:
        class Handler(_Quiet):
            def do_GET(self) -> None:
                try:
                    reply(self)
                except OSError:
                    self.close_connection = True

            do_HEAD = do_GET

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.handle_error = lambda *_: None
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def answer(status: int, body: bytes = b"", **headers: str) -> Reply:
    def reply(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(body)

    return reply


def test_private_addresses_are_refused(serve: Callable[[Reply], str]) -> None:
    """Loopback by default: neither listed nor fetched, and the cure is named."""
    url = serve(answer(200, b"secret"))
    for target in (url, url.replace("127.0.0.1", "localhost"), url + "doc.md"):
        source = connect(target, allow_private=False)
        with pytest.raises(IncompleteListing, match="RAG_ALLOW_PRIVATE_ADDRESSES"):
            source.list()
        with pytest.raises(DependencyError, match="RAG_ALLOW_PRIVATE_ADDRESSES"):
            source.fetch("doc.md", max_bytes=MB)


def test_a_redirect_or_a_second_look_up_does_not_get_around_it(
    serve: Callable[[Reply], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address that a socket connects to is what is checked, at every hop."""
    inner = serve(answer(200, b"secret"))
    outer = serve(answer(302, Location=inner))
    asked = []

    def public(address: str) -> bool:
        asked.append(address)
        return len(asked) <= 1  # the first connection passes as public, the redirected one does not

    monkeypatch.setattr(addresses, "is_public", public)
    with pytest.raises(addresses.AddressRefused):
        HttpClient(allow_private=False).request("GET", outer, max_bytes=MB)
    assert len(asked) == 2


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "0.0.0.0",
        "100.64.0.1",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    """Private, loopback, link-local (cloud metadata), shared, multicast, and IPv6 forms that hide them."""
    assert not addresses.is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_that_are_public(address: str) -> None:
    """The internet."""
    assert addresses.is_public(address)


def test_no_redirect_leaves_http(serve: Callable[[Reply], str]) -> None:
    """file:, ftp: and endless loops are refused."""
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/x", "/again"):
        url = serve(answer(302, Location=target))
        with pytest.raises(ExchangeFailed):
            HttpClient(allow_private=True).request("GET", url, max_bytes=MB)


@pytest.mark.parametrize("declared", [True, False])
def test_an_endless_body_is_cut_off(serve: Callable[[Reply], str], declared: bool) -> None:
    """The limit bounds what is read, whether the length is declared or not."""

    def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        if declared:
            handler.send_header("Content-Length", str(10**12))
        handler.end_headers()
        while True:
            handler.wfile.write(b"x" * 65_536)

    with pytest.raises(LimitExceeded):
        connect(serve(endless)).fetch("a.md", max_bytes=MB)


@pytest.mark.parametrize("part", ["header", "body"])
def test_a_dripping_server_meets_the_deadline(serve: Callable[[Reply], str], part: str) -> None:
    """A byte now and then does not keep a request alive."""
    done = threading.Event()

    def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
        if part == "body":
            handler.send_response(200)
            handler.end_headers()
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not done.wait(0.05):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    url = serve(drip)
    before = time.monotonic()
    with pytest.raises(ExchangeFailed):
        HttpClient(allow_private=True, timeout_s=0.5).request("GET", url, max_bytes=MB)
    assert time.monotonic() - before < 2
    done.set()


def test_a_body_that_ends_early_is_no_document(serve: Callable[[Reply], str]) -> None:
    """A cut connection is an outage, not a shorter document."""
    url = serve(answer(200, b"half", Content_Length="8"))
    with pytest.raises(DependencyError):
        connect(url).fetch("a.md", max_bytes=MB)


@pytest.mark.parametrize(
    ("status", "error"), [(500, DependencyError), (503, DependencyError), (429, DependencyError), (403, DocumentError)]
)
def test_statuses(serve: Callable[[Reply], str], status: int, error: type[Exception]) -> None:
    """The service's trouble stops the stage; a refusal of one document costs that document."""
    url = serve(answer(status, Retry_After="7"))
    with pytest.raises(error):
        connect(url).fetch("a.md", max_bytes=MB)
    with pytest.raises(IncompleteListing):
        connect(url).list()


def test_a_listing_stays_below_its_root(serve: Callable[[Reply], str]) -> None:
    """Links to other places, sorting queries, fragments, mail and scripts are no documents."""
    page = b"""<a href="a.md#top">a</a> <a href="/docs/b.md">b</a> <a href="../up.md">up</a> <a href="?C=N">sort</a>
    <a href="http://other.example/docs/c.md">c</a> <a href="mailto:x@y">m</a> <a href="javascript:1">j</a>
    <a href="%2e%2e/%2e%2e/etc/passwd">e</a> <a href="http://[bad">n</a> <a href="d%20e.md">d e</a>"""
    root = serve(lambda handler: answer(200, page)(handler))
    assert [i.uri for i in connect(root + "docs/").list()] == ["a.md", "b.md", "d e.md"]


def test_a_failing_page_makes_the_listing_incomplete(serve: Callable[[Reply], str]) -> None:
    """One folder that answers 500 is enough."""

    def reply(handler: http.server.BaseHTTPRequestHandler) -> None:
        inner = "sub" in handler.path
        answer(500 if inner else 200, b'<a href="sub/">s</a><a href="a.md">a</a>')(handler)

    with pytest.raises(IncompleteListing):
        connect(serve(reply)).list()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("simplecache::http://127.0.0.1/x", "chained"),
        ("reference://x", "not a place"),
        ("sftp://127.0.0.1/x", "RAG_ALLOW_PRIVATE_ADDRESSES"),
        ("ftp://user:secret@host/x", "no passwords"),
        ("http://user:secret@host/x", "no user names"),
        ("nosuch://x", "fsspec cannot open"),
        ("https://host/docs/?q=1", "query"),
    ],
)
def test_unsuitable_urls_are_refused(url: str, words: str) -> None:
    """Before anything is requested, with the reason and without the secret."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        connect(url, allow_private=False)
    assert "secret" not in str(caught.value)


def test_a_host_without_a_server_is_an_outage() -> None:
    """Connection refused."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
        with pytest.raises(IncompleteListing):
            connect(url).list()
