"""What every source connector promises. A connector's test class gives the fixture ``place``."""

from __future__ import annotations

import os
from typing import Any, Protocol

import pytest

from rag_platform.backends.sources import open_source
from rag_platform.backends.sources.base import SourceConnector
from rag_platform.errors import DocumentError, IncompleteListing, LimitExceeded
from rag_platform.records import SourceSpec
from rag_platform.settings import Settings

MB = 1_000_000


class Place(Protocol):
    """Where a connector reads; written to behind its back."""

    url: str
    missing_url: str

    def write(self, uri: str, data: bytes) -> None: ...

    def remove(self, uri: str) -> None: ...


def connect(url: str, *, allow_private: bool = True, **fields: Any) -> SourceConnector:
    spec = SourceSpec(fields.pop("name", "src"), url, **fields)
    return open_source(spec, Settings(allow_private_addresses=allow_private, environ=dict(os.environ)))


class SourceContract:
    """Inherited by the tests of each connector."""

    ODD_NAMES = (
        "plain.md",
        "with space.md",
        "sub/deeper/ünïcode 漢字 😀.md",
        "sub/rtl \u200fשלום.md",
        "sub/100% [sure] #1 {a}.md",
        "sub/e\u0301 decomposed.md",
        "sub/\u00e9 composed.md",
    )

    def test_what_is_listed_can_be_fetched(self, place: Place) -> None:
        """Every name comes back as it is, and its bytes with it; the order is stable."""
        for name in self.ODD_NAMES:
            place.write(name, name.encode())
        source = connect(place.url)
        items = list(source.list())
        assert [item.uri for item in items] == sorted(self.ODD_NAMES)
        assert items == sorted(items, key=lambda item: item.uri)
        for item in items:
            assert source.fetch(item.uri, max_bytes=MB) == item.uri.encode()
            assert item.size == len(item.uri.encode())

    def test_globs_and_default_excludes(self, place: Place) -> None:
        """Include, exclude and the documented leftovers."""
        for name in ("a.md", "b.txt", "drafts/c.md", "sub/d.md", ".git/e.md", "sub/.hidden.md", "sub/~$f.md", "g.md~"):
            place.write(name, b"x")
        assert [i.uri for i in connect(place.url).list()] == ["a.md", "b.txt", "drafts/c.md", "sub/d.md"]
        chosen = connect(place.url, include=("*.md",), exclude=("drafts/",))
        assert [i.uri for i in chosen.list()] == ["a.md", "sub/d.md"]
        everything = connect(place.url, include=(".git/**",), options={"default_excludes": False})
        assert [i.uri for i in everything.list()] == [".git/e.md"]

    def test_the_change_token_moves_with_the_bytes(self, place: Place) -> None:
        """An edit of the same length moves it; no edit leaves it once the clock has ticked."""
        place.write("a.md", b"one")
        place.write("b.md", b"two")
        first = {i.uri: i.change_token for i in connect(place.url).list()}
        place.write("a.md", b"eno")
        second = {i.uri: i.change_token for i in connect(place.url).list()}
        assert second["a.md"] != first["a.md"]

    def test_a_missing_root_is_an_incomplete_listing(self, place: Place) -> None:
        """Never an empty listing: that would read as the deletion of everything."""
        with pytest.raises(IncompleteListing):
            connect(place.missing_url).list()

    def test_a_vanished_document_is_none(self, place: Place) -> None:
        """It went between listing and fetch: a deletion, not an error."""
        place.write("a.md", b"x")
        place.write("b.md", b"x")
        source = connect(place.url)
        source.list()
        place.remove("a.md")
        assert source.fetch("a.md", max_bytes=MB) is None
        assert source.fetch("never/was.md", max_bytes=MB) is None

    def test_the_size_limit_is_exact(self, place: Place) -> None:
        """Up to ``max_bytes`` is read, one byte more is refused."""
        place.write("a.md", b"12345")
        place.write("empty.md", b"")
        source = connect(place.url)
        assert source.fetch("a.md", max_bytes=5) == b"12345"
        with pytest.raises(LimitExceeded):
            source.fetch("a.md", max_bytes=4)
        assert source.fetch("empty.md", max_bytes=5) == b""

    @pytest.mark.parametrize("uri", ["../outside.md", "/etc/passwd", "sub/../../outside.md", "a//b", "", ".", "a\0b"])
    def test_a_path_out_of_the_root_is_refused(self, place: Place, uri: str) -> None:
        """Whatever a caller hands in, nothing outside the source is read."""
        place.write("sub/a.md", b"x")
        with pytest.raises(DocumentError):
            connect(place.url).fetch(uri, max_bytes=MB)

    def test_one_document_can_be_the_source(self, place: Place) -> None:
        """Its uri is its name."""
        place.write("sub/only.md", b"alone")
        source = connect(f"{place.url.rstrip('/')}/sub/only.md")
        assert [i.uri for i in source.list()] == ["only.md"]
        assert source.fetch("only.md", max_bytes=MB) == b"alone"
        assert source.fetch("other.md", max_bytes=MB) is None
