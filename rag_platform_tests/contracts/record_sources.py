"""What every connector to a vendor's API promises, where documents are records with ids.

A connector's test class gives the fixture ``place``. The promises about paths and globs of files are in
``contracts/sources.py``; here a document's uri is made by the connector.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

import pytest

from rag_platform.backends.sources import api_transport
from rag_platform.backends.sources.base import SourceConnector
from rag_platform.errors import (
    DependencyError,
    DependencyTimeout,
    DocumentError,
    IncompleteListing,
    LimitExceeded,
    RateLimited,
)
from rag_platform_tests.backends.api_double import ApiDouble, Asked, Reply

MB = 1_000_000
TIMEOUT_S = 0.6


class RecordPlace(Protocol):
    """A vendor's double, written to behind the connector's back."""

    double: ApiDouble
    token_variable: str

    def connect(self, *, allow_private: bool = True, timeout_s: float = 10.0, **fields: Any) -> SourceConnector: ...

    def connect_to_missing(self) -> SourceConnector:
        """Return a source whose root does not exist."""

    def write(self, title: str, text: str) -> str:
        """Add a document; return its uri."""

    def edit(self, uri: str, text: str) -> None: ...

    def remove(self, uri: str) -> None:
        """Put it into the bin."""

    def move(self, uri: str) -> None:
        """Put it under another parent."""

    def of(self, uri: str) -> str:
        """Return what the path of a request for this document ends with, and no listing's does."""

    def small_pages(self) -> None:
        """Give out listings by twos."""

    def expire_token(self) -> None: ...


def listing_fault(place: RecordPlace, number: int, reply: Reply) -> None:
    """Let the ``number``-th request of a listing (from 1) be answered so."""
    count = 0

    def fault(asked: Asked) -> Reply | None:
        nonlocal count
        count += 1
        return reply if count == number else None

    place.double.fault = fault


class RecordSourceContract:
    """Inherited by the tests of each connector."""

    def test_what_is_listed_can_be_fetched(self, place: RecordPlace) -> None:
        """Through all pages of the listing, sorted by uri, title and text with it."""
        place.small_pages()
        written = {place.write(f"Title {n}", f"The text number {n}."): n for n in range(7)}
        source = place.connect()
        items = list(source.list())
        assert [item.uri for item in items] == sorted(written)
        for item in items:
            data = source.fetch(item.uri, max_bytes=MB)
            assert data is not None
            assert item.title == f"Title {written[item.uri]}"
            assert f"The text number {written[item.uri]}.".encode() in data
            assert item.title.encode() in data
        assert list(source.list()) == items == list(place.connect().list())

    def test_an_edit_moves_the_token_of_its_document_only(self, place: RecordPlace) -> None:
        """And the bytes with it."""
        one, other = place.write("One", "first words"), place.write("Other", "stays")
        before = {i.uri: i.change_token for i in place.connect().list()}
        place.edit(one, "second words")
        source = place.connect()
        after = {i.uri: i.change_token for i in source.list()}
        assert (after[one] != before[one], after[other] == before[other]) == (True, True)
        assert b"second words" in (source.fetch(one, max_bytes=MB) or b"")

    def test_a_move_is_no_deletion(self, place: RecordPlace) -> None:
        """The document keeps its uri, and its bytes."""
        uri, _ = place.write("Moving", "as it is"), place.write("Other", "stays")
        before = place.connect().fetch(uri, max_bytes=MB)
        place.move(uri)
        source = place.connect()
        assert uri in [i.uri for i in source.list()]
        assert source.fetch(uri, max_bytes=MB) == before

    def test_a_missing_root_is_an_incomplete_listing(self, place: RecordPlace) -> None:
        """Never an empty one: that would read as the deletion of everything."""
        place.write("One", "text")
        with pytest.raises(IncompleteListing):
            place.connect_to_missing().list()

    def test_a_deleted_document_is_not_listed_and_is_none(self, place: RecordPlace) -> None:
        """Also when it goes between listing and fetch, and when there never was one."""
        uri, other = place.write("One", "text"), place.write("Other", "text")
        source = place.connect()
        assert len(source.list()) == 2
        place.remove(uri)
        assert source.fetch(uri, max_bytes=MB) is None
        assert [i.uri for i in source.list()] == [other]
        assert source.fetch("never/was.md", max_bytes=MB) is None

    def test_the_size_limit_is_exact(self, place: RecordPlace) -> None:
        """Up to ``max_bytes`` is read, one byte less is refused."""
        uri = place.write("One", "text of some length")
        source = place.connect()
        data = source.fetch(uri, max_bytes=MB)
        assert data is not None
        assert source.fetch(uri, max_bytes=len(data)) == data
        with pytest.raises(LimitExceeded):
            source.fetch(uri, max_bytes=len(data) - 1)

    @pytest.mark.parametrize("uri", ["../outside.md", "/etc/passwd", "a//b", "", ".", "a\0b"])
    def test_a_path_is_refused(self, place: RecordPlace, uri: str) -> None:
        """Whatever a caller hands in, no other address is asked."""
        source = place.connect()
        place.double.forget()
        with pytest.raises(DocumentError):
            source.fetch(uri, max_bytes=MB)
        assert place.double.paths() == []

    @pytest.mark.parametrize(
        "reply",
        [Reply(500, {}), Reply(404, {}), Reply(200, b"<html>"), Reply(200, {}), Reply(200, {"results": 1}),
         Reply(200, {"results": [{}]}), Reply(302, b"", {"Location": "/login"}), Reply(200, {"results": []}, cut=True)],
        ids=["500", "404", "html", "empty object", "no list", "empty row", "login page", "cut"],
    )  # fmt: skip
    def test_no_failing_request_of_a_listing_reads_as_deletions(
        self, place: RecordPlace, reply: Reply, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whichever request it is: an incomplete listing, or (where a retry is made) the complete one."""
        monkeypatch.setattr(api_transport, "FIRST_PAUSE_S", 0.01)
        place.small_pages()
        written = sorted(place.write(f"Title {n}", "text") for n in range(5))
        place.connect().list()
        place.double.forget()
        place.connect().list()
        requests = len(place.double.paths())
        assert requests >= 4
        complete = 0
        for number in range(1, requests + 1):
            listing_fault(place, number, reply)
            try:
                items = place.connect().list()
            except IncompleteListing:
                continue
            complete += 1
            assert [i.uri for i in items] == written
        assert complete < requests or reply.status == 500 or reply.cut

    def test_an_expired_token_names_its_cure(self, place: RecordPlace) -> None:
        """Neither a deletion nor a dead letter: the source fails as a whole, and the variable is named."""
        uri = place.write("One", "text")
        source = place.connect()
        place.expire_token()
        with pytest.raises(IncompleteListing, match=f"token.*{place.token_variable}") as listing:
            source.list()
        with pytest.raises(DependencyError, match=f"token.*{place.token_variable}") as fetching:
            source.fetch(uri, max_bytes=MB)
        assert (listing.value.retryable, fetching.value.retryable) == (False, False)
        assert "secret" not in f"{listing.value}{fetching.value}"

    def test_a_denied_document_is_an_error_of_its_own(self, place: RecordPlace) -> None:
        """403 for one costs that one."""
        denied, other = place.write("One", "text"), place.write("Other", "more text")
        source = place.connect()
        ending = place.of(denied)
        place.double.fault = lambda a: Reply(403, _denied()) if a.path.endswith(ending) else None
        with pytest.raises(DocumentError):
            source.fetch(denied, max_bytes=MB)
        assert b"more text" in (source.fetch(other, max_bytes=MB) or b"")

    def test_retry_after_is_honoured(self, place: RecordPlace) -> None:
        """A 429 costs the wait that it asks for, once, and the call goes on."""
        place.write("One", "text")
        listing_fault(place, 1, Reply(429, _limited(), {"Retry-After": "0.3"}))
        started = time.monotonic()
        assert len(place.connect().list()) == 1
        assert time.monotonic() - started >= 0.3

    def test_a_wait_beyond_the_deadline_is_not_waited(self, place: RecordPlace) -> None:
        """The error says how long was asked for; the call returns before."""
        uri = place.write("One", "text")
        place.double.fault = lambda asked: Reply(429, _limited(), {"Retry-After": "30"})
        source = place.connect(timeout_s=5.0)
        started = time.monotonic()
        with pytest.raises(IncompleteListing) as listing:
            source.list()
        with pytest.raises(RateLimited) as fetching:
            source.fetch(uri, max_bytes=MB)
        assert (listing.value.retry_after_s, fetching.value.retry_after_s) == (30.0, 30.0)
        assert time.monotonic() - started < 20

    def test_a_dripping_answer_ends_at_the_deadline(self, place: RecordPlace) -> None:
        """However slowly it comes, no call outlasts its time."""
        uri = place.write("One", "text")
        source = place.connect(timeout_s=TIMEOUT_S)
        place.double.fault = lambda asked: Reply(200, {"results": [], "filler": "x" * 500}, drip_s=0.05)
        for call in (source.list, lambda: source.fetch(uri, max_bytes=MB)):
            started = time.monotonic()
            with pytest.raises((DependencyTimeout, IncompleteListing)):
                call()
            assert time.monotonic() - started < TIMEOUT_S + 3

    def test_a_private_address_is_refused(self, place: RecordPlace) -> None:
        """Unless it is permitted; nothing is sent."""
        place.write("One", "text")
        place.double.forget()
        with pytest.raises(DependencyError, match="RAG_ALLOW_PRIVATE_ADDRESSES"):
            place.connect(allow_private=False).list()
        assert place.double.paths() == []


def _denied() -> dict[str, Any]:
    return {"object": "error", "status": 403, "code": "restricted_resource", "message": "denied"}


def _limited() -> dict[str, Any]:
    return {"object": "error", "status": 429, "code": "rate_limited", "message": "slow down"}
