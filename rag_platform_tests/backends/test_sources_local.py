"""Folders of this machine as sources."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_platform.backends.sources import connector_name, names
from rag_platform.errors import ConfigurationError, DependencyError, DocumentError, IncompleteListing
from rag_platform_tests.contracts.sources import MB, SourceContract, connect


class Folder:
    def __init__(self, root: Path) -> None:
        self.root = root / "root"
        self.root.mkdir()
        self.url = str(self.root)
        self.missing_url = str(root / "missing")

    def write(self, uri: str, data: bytes) -> None:
        path = self.root / uri
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def remove(self, uri: str) -> None:
        (self.root / uri).unlink()


@pytest.fixture
def place(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def uris(url: str, **fields: object) -> list[str]:
    return [item.uri for item in connect(url, **fields).list()]


class TestLocalDirectory(SourceContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Folder:
        return Folder(tmp_path)


def test_names_that_are_not_text(place: Folder) -> None:
    """Newlines stay; bytes that are not UTF-8 are escaped, reversibly, and so is what looks like it."""
    raw = [b"bad\xff\xfename.md", b"new\nline.md", b"%FF literal.md", b"%25FF.md", b"100% sure.md", b"back\\slash.md"]
    for name in raw:
        with open(os.path.join(os.fsencode(place.root), name), "wb") as file:  # noqa: PTH118, PTH123 - bytes paths
            file.write(name)
    source = connect(place.url)
    items = source.list()
    assert len({item.uri for item in items}) == len(raw)
    for item in items:
        item.uri.encode("utf-8")
    assert {source.fetch(item.uri, max_bytes=MB) for item in items} == set(raw)
    assert "bad%FF%FEname.md" in {item.uri for item in items}


@given(st.binary(min_size=1, max_size=20).filter(lambda b: b"\0" not in b))
def test_every_name_survives_the_round_trip(raw: bytes) -> None:
    """encode is injective and its result is valid Unicode."""
    name = os.fsdecode(raw)
    uri = names.encode(name)
    uri.encode("utf-8")
    assert names.decode(uri) == name


def test_links_are_followed_inside_and_read_once(place: Folder, tmp_path: Path) -> None:
    """Out of the root: never. Inside: once, under the real path; loops end; dangling links are nothing."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "s.md").write_bytes(b"secret")
    place.write("real/a.md", b"a")
    root = place.root
    (root / "file_link.md").symlink_to("real/a.md")
    (root / "folder_link").symlink_to("real")
    (root / "loop").symlink_to(".")
    (root / "real" / "up").symlink_to("..")
    (root / "dangling.md").symlink_to("nothing.md")
    (root / "self.md").symlink_to("self.md")
    (root / "out.md").symlink_to(tmp_path / "secret" / "s.md")
    (root / "out").symlink_to(tmp_path / "secret")
    assert uris(place.url) == ["real/a.md"]
    source = connect(place.url)
    for uri in ("out.md", "out/s.md"):
        with pytest.raises(DocumentError):
            source.fetch(uri, max_bytes=MB)


def test_a_mounted_config_map_is_read(place: Folder) -> None:
    """Kubernetes shows files as links through a hidden folder; they are documents all the same."""
    place.write("..2024_01/a.md", b"a")
    (place.root / "..data").symlink_to("..2024_01")
    (place.root / "a.md").symlink_to("..data/a.md")
    assert uris(place.url) == ["a.md"]
    assert connect(place.url).fetch("a.md", max_bytes=MB) == b"a"


def test_the_root_may_be_a_link(place: Folder, tmp_path: Path) -> None:
    """The operator points at a link on purpose, such as ``current``."""
    place.write("a.md", b"a")
    (tmp_path / "current").symlink_to(place.root)
    source = connect(str(tmp_path / "current"))
    assert [i.uri for i in source.list()] == ["a.md"]
    assert source.fetch("a.md", max_bytes=MB) == b"a"


def test_pipes_and_sockets_are_passed_over(place: Folder) -> None:
    """Opening a pipe would wait for ever; fetching one by name does not either."""
    place.write("a.md", b"a")
    os.mkfifo(place.root / "pipe.md")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place.root / "s.md"))
        assert uris(place.url) == ["a.md"]
        for uri in ("pipe.md", "s.md"):
            with pytest.raises(DocumentError):
                connect(place.url).fetch(uri, max_bytes=MB)


DENIED = """
import os, sys
from rag_platform.records import SourceSpec
from rag_platform.settings import Settings
from rag_platform.backends.sources import open_source
open_source(SourceSpec("s", "/"), Settings())  # loads all modules, which the other user may not be able to
os.setgroups([]); os.setgid(65534); os.setuid(65534)
source = open_source(SourceSpec("s", sys.argv[1], exclude=tuple(sys.argv[2:])), Settings())
try:
    print([item.uri for item in source.list()])
    print(source.fetch("denied.md", max_bytes=10))
except Exception as e:
    print(type(e).__name__)
"""


def as_nobody(*arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", DENIED, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root, to become somebody else")
def test_what_may_not_be_read() -> None:
    """A denied folder makes the listing incomplete, unless it is excluded; a denied file costs itself."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        (root / "denied.md").write_bytes(b"x")
        (root / "denied.md").chmod(0)
        (root / "locked").mkdir(mode=0)
        (root / "lost+found").mkdir(mode=0)
        assert as_nobody(folder) == ["IncompleteListing"]
        assert as_nobody(folder, "locked/") == ["['denied.md']", "DocumentError"]
        (root / "locked").chmod(0o700)


def test_a_root_that_is_no_folder(place: Folder, tmp_path: Path) -> None:
    """A pipe as root is refused without opening it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(IncompleteListing):
        connect(str(tmp_path / "pipe")).list()


def test_a_vanished_root_is_an_outage(place: Folder) -> None:
    """An unmounted share is no deletion."""
    place.write("a.md", b"a")
    source = connect(place.url)
    source.list()
    place.root.rename(place.root.with_name("moved"))
    with pytest.raises(DependencyError):
        source.fetch("a.md", max_bytes=MB)
    with pytest.raises(IncompleteListing):
        source.list()


def settle(path: Path) -> None:
    """Wait until the file's change time is older than a clock tick."""
    while time.time_ns() - path.stat().st_ctime_ns < 60_000_000:
        os.sched_yield()


def test_an_unchanged_file_keeps_its_token_and_a_forged_one_does_not(place: Folder) -> None:
    """Same size and same modification time after an edit: the change time tells."""
    place.write("a.md", b"one")
    path = place.root / "a.md"
    settle(path)
    before = connect(place.url).list()
    assert connect(place.url).list() == before
    status = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    settle(path)
    after = connect(place.url).list()
    assert after[0].modified_at == before[0].modified_at
    assert after[0].change_token != before[0].change_token


def test_a_fresh_file_is_looked_at_again(place: Folder) -> None:
    """An edit in the same clock tick would not show; until the tick is over the token never repeats."""
    place.write("a.md", b"one")
    first = connect(place.url).list()[0].change_token
    if ":fresh" in first:
        settle(place.root / "a.md")
        assert connect(place.url).list()[0].change_token != first


def test_file_urls(place: Folder) -> None:
    """Escapes in a file URL are undone; another host is refused."""
    place.write("a b.md", b"x")
    assert uris(place.root.as_uri()) == ["a b.md"]
    assert uris((place.root / "a b.md").as_uri()) == ["a b.md"]
    with pytest.raises(ConfigurationError):
        connect("file://server/share")


def test_connectors_are_found_by_scheme_or_name(place: Folder) -> None:
    """A path is a folder, any other scheme goes to the file of its name or to fsspec."""
    assert connector_name("docs") == "local_directory"
    assert connector_name("C:/docs") == "local_directory"
    assert connector_name("file:///docs") == "local_directory"
    assert connector_name("https://host/docs/") == "http_index"
    assert connector_name("s3://bucket") == "s3"
    assert connector_name("gs://bucket") == "gcs"
    assert connector_name("abfs://bucket") == "fsspec_url"
    with pytest.raises(
        ConfigurationError, match=r"known: confluence, fsspec_url, gcs, http_index, local_directory, notion, s3\Z"
    ):
        connect(place.url, options={"connector": "globs"})


def test_a_deep_tree_is_listed(place: Folder) -> None:
    """No recursion: the depth of a tree costs nothing."""
    deep = "/".join(["d"] * 500)
    place.write(f"{deep}/a.md", b"x")
    assert uris(place.url) == [f"{deep}/a.md"]
