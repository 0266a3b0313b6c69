"""Google Cloud Storage as a source: the real fake-gcs-server, and in front of it one that denies, drips and lies."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_platform.backends import gcs_client
from rag_platform.backends.sources import api_transport, open_source
from rag_platform.backends.sources.base import Replacement
from rag_platform.errors import (
    ConfigurationError,
    DependencyError,
    DependencyTimeout,
    DocumentError,
    IncompleteListing,
    LimitExceeded,
    QuotaExhausted,
    RateLimited,
)
from rag_platform.records import SourceSpec
from rag_platform.settings import Settings
from rag_platform_tests.backends.api_double import Asked, Reply
from rag_platform_tests.backends.faulty_front import FREEZE, FaultyFront, before
from rag_platform_tests.backends.gcs_server import GcsServer, gcs_bucket, gcs_server  # noqa: F401 - fixtures
from rag_platform_tests.contracts.sources import MB, SourceContract, connect

TIMEOUT_S = 1.0


def error(status: int, reason: str = "", **headers: str) -> Reply:
    """An error as the service sends it; its message holds what no error of ours may repeat."""
    body = {"error": {"code": status, "message": "ya29.secret said no", "errors": [{"reason": reason}]}}
    return Reply(status, json.dumps(body).encode(), headers)


class BucketPlace:
    def __init__(self, server: GcsServer, bucket: str) -> None:
        self.server, self.bucket = server, bucket
        self.url = f"gs://{bucket}/docs"
        self.missing_url = f"gs://{bucket}/nothing"

    def write(self, uri: str, data: bytes, **metadata: str) -> None:
        self.server.put(self.bucket, f"docs/{uri}", data, {f"rag-{k}": v for k, v in metadata.items()})

    def remove(self, uri: str) -> None:
        self.server.remove(self.bucket, f"docs/{uri}")


@pytest.fixture
def place(gcs_server: GcsServer, gcs_bucket: str) -> BucketPlace:  # noqa: F811
    return BucketPlace(gcs_server, gcs_bucket)


@pytest.fixture
def front(place: BucketPlace, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyFront]:
    """The faulty server; connectors made after this go through it, ``place`` does not."""
    with before(place.server.url) as faulty:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", faulty.url)
        monkeypatch.setattr(api_transport, "FIRST_PAUSE_S", 0.01)
        yield faulty


def source(url: str, *, environ: dict[str, str] | None = None, allow_private: bool = True, **options: Any) -> Any:
    settings = Settings(allow_private_addresses=allow_private, environ={**os.environ, **(environ or {})})
    return open_source(SourceSpec("src", url, options=options), settings)


def impatient(url: str) -> Any:
    return source(url, environ={"RAG_GCS_TIMEOUT_S": str(TIMEOUT_S)})


class TestGcs(SourceContract):
    @pytest.fixture
    def place(self, gcs_server: GcsServer, gcs_bucket: str) -> BucketPlace:  # noqa: F811
        return BucketPlace(gcs_server, gcs_bucket)

    def test_pages_beyond_a_thousand(self, place: BucketPlace) -> None:
        """A listing is complete however many pages it takes, and shows nothing beside the prefix."""
        place.server.put_many(place.bucket, (f"docs/{i:05}.md" for i in range(1100)))
        place.server.put_many(place.bucket, ["docs2/other.md", "docs"])
        assert [i.uri for i in connect(place.url).list()] == [f"{i:05}.md" for i in range(1100)]

    def test_names_that_look_like_urls(self, place: BucketPlace) -> None:
        """``#``, ``?``, ``%`` and ``+`` are characters like others, in the root too."""
        uris = ["a#1.md", "q?x=1.md", "100%.md", "%41.md", "plus+.md", "s p.md", "amp&.md", "uml/ü.md"]
        for uri in uris:
            place.write(f"r #?%41/{uri}", uri.encode())
        connector = connect(f"{place.url}/r #?%41")
        assert [i.uri for i in connector.list()] == sorted(uris)
        assert [connector.fetch(u, max_bytes=MB) for u in uris] == [u.encode() for u in uris]

    def test_the_token_is_the_generation(self, place: BucketPlace) -> None:
        """A write moves it, a change of metadata does not; a whole bucket can be a source."""
        place.write("a.md", b"one")
        [first] = connect(place.url).list()
        place.server.label(place.bucket, "docs/a.md", {"colour": "red"})
        assert connect(place.url).list() == [first]
        place.write("a.md", b"one")
        [second] = connect(place.url).list()
        assert second.change_token != first.change_token
        assert [i.uri for i in connect(f"gcs://{place.bucket}").list()] == ["docs/a.md"]

    def test_folder_markers_and_dot_segments_are_no_documents(self, place: BucketPlace) -> None:
        """Names that are no plain path are passed over; the rest is listed, empty documents too."""
        for uri in ("folder/", "x_$folder$", "empty.md", "x//y.md"):
            place.write(uri, b"")
        assert [i.uri for i in connect(place.url).list()] == ["empty.md"]

    def test_a_replaced_object_is_the_new_one_and_says_so(self, place: BucketPlace) -> None:
        """Between listing and fetch: whole new bytes, with the generation and metadata of theirs."""
        place.write("a.md", b"old")
        connector = source(place.url, acl_from="gcs-metadata")
        connector.list()
        place.write("a.md", b"the new one", acl="board")
        found = connector.fetch("a.md", max_bytes=MB)
        assert isinstance(found, Replacement)
        assert (found.data, found.item.size, found.item.acl) == (b"the new one", 11, ("board",))
        assert [found.item] == source(place.url, acl_from="gcs-metadata").list()
        with pytest.raises(LimitExceeded):
            connector.fetch("a.md", max_bytes=2)

    def test_metadata_is_permissions(self, place: BucketPlace) -> None:
        """Access list, tags and tenant of an object; without metadata the source's; unknown is nobody's."""
        place.write("a.md", b"x")
        place.write("b.md", b"x", acl="legal, board", tags="contract")
        place.write("c.md", b"x", acl="staff", tenant="globex")
        place.write("d.md", b"x", acl="staff", tenant="umbrella")
        place.write("e.md", b"x", acls="staff")
        items = source(place.url, acl_from="gcs-metadata", tenants=["globex"]).list()
        assert [(i.acl, i.tags, i.tenant) for i in items] == [
            (None, None, None), (("legal", "board"), ("contract",), None), (("staff",), None, "globex"),
            ((), None, None), ((), None, None),
        ]  # fmt: skip
        assert {i.acl for i in source(place.url).list()} == {None}


# ── what the service does to us ──


def test_throttling_is_waited_out(front: FaultyFront, place: BucketPlace) -> None:
    """429, 503 and 500 on every second request cost time, nothing else."""
    place.write("a.md", b"text")
    replies = [error(429, "rateLimitExceeded"), error(503, "backendError"), Reply(500, b"<html>")]
    front.fault = lambda asked: replies[len(front.asked) // 2 % 3] if len(front.asked) % 2 else None
    connector = source(place.url)
    assert [i.uri for i in connector.list()] == ["a.md"]
    assert connector.fetch("a.md", max_bytes=MB) == b"text"


def test_throttling_without_end_is_an_outage(front: FaultyFront, place: BucketPlace) -> None:
    """In both calls; how long it asks to wait is told, not waited beyond the deadline."""
    place.write("a.md", b"x")
    connector = source(place.url)
    front.fault = lambda asked: error(429, "rateLimitExceeded", **{"Retry-After": "90"})
    started = time.monotonic()
    with pytest.raises(IncompleteListing) as listing:
        connector.list()
    with pytest.raises(RateLimited) as fetching:
        connector.fetch("a.md", max_bytes=MB)
    assert time.monotonic() - started < 5
    assert (listing.value.retry_after_s, fetching.value.retry_after_s) == (90.0, 90.0)


def test_a_killed_and_a_frozen_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP and kill -9: incomplete listings and outages within the deadline, and all is well when it goes on."""
    server = GcsServer()
    try:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        bucket = server.bucket()
        server.put(bucket, "docs/a.md", b"text")
        connector, patient = impatient(f"gs://{bucket}/docs"), source(f"gs://{bucket}/docs")
        assert patient.fetch("a.md", max_bytes=MB) == b"text"
        for stop in (signal.SIGSTOP, signal.SIGKILL):
            server.process.send_signal(stop)
            for call in (connector.list, lambda: connector.fetch("a.md", max_bytes=MB)):
                started = time.monotonic()
                with pytest.raises((IncompleteListing, DependencyError)):
                    call()
                assert time.monotonic() - started < TIMEOUT_S + 1.5
            if stop == signal.SIGSTOP:
                server.process.send_signal(signal.SIGCONT)
                assert patient.fetch("a.md", max_bytes=MB) == b"text"
    finally:
        server.close()


def test_a_dripping_answer_meets_the_deadline(front: FaultyFront, place: BucketPlace) -> None:
    """However slowly it comes; and a listing that is frozen ends."""
    place.write("a.md", b"x")
    connector = impatient(place.url)
    for reply in (Reply(200, b" " * 900, drip_s=0.05), FREEZE):
        front.fault = lambda asked, reply=reply: reply
        for call in (connector.list, lambda: connector.fetch("a.md", max_bytes=MB)):
            started = time.monotonic()
            with pytest.raises((IncompleteListing, DependencyTimeout)):
                call()
            assert time.monotonic() - started < TIMEOUT_S + 1.5


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500, b""),
        Reply(404, b"<html>"),
        Reply(200, b"<html>please log in</html>"),
        Reply(200, b"{}"),
        Reply(200, b'{"kind": "storage#objects", "items": 1}'),
        Reply(200, b'{"kind": "storage#objects", "items": [{}]}'),
        Reply(302, b"", {"Location": "/login"}),
        Reply(200, b'{"kind": "storage#objects"}', cut=True),
    ],
    ids=["500", "404", "html", "empty object", "no list", "empty row", "login page", "cut"],
)
def test_no_failing_page_reads_as_deletions(
    front: FaultyFront, place: BucketPlace, reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever request it is: an incomplete listing, or (where a retry is made) the complete one."""
    monkeypatch.setattr(gcs_client, "PAGE", 2)
    place.server.put_many(place.bucket, (f"docs/{i}.md" for i in range(5)))
    connector = source(place.url)
    for number in (1, 2, 3):
        front.nth(number, reply)
        try:
            items = connector.list()
        except IncompleteListing:
            continue
        assert [i.uri for i in items] == [f"{i}.md" for i in range(5)]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (error(403, "forbidden"), "storage.objects.(list|get)"),
        (error(401, "authError"), "GOOGLE_APPLICATION_CREDENTIALS"),
        (error(403, "accountDisabled"), "quota and the account"),
        (Reply(400, b'{"error": {"message": "Bucket is a requester pays bucket"}}'), "RAG_GCS_USER_PROJECT"),
    ],
    ids=["denied", "login", "account", "requester pays"],
)
def test_refusals_of_everything_name_their_cure(
    front: FaultyFront, place: BucketPlace, reply: Reply, words: str
) -> None:
    """In both calls, without retries and without the service's own words; nothing is dead-lettered."""
    for name in ("a.md", "b.md", "c.md"):
        place.write(name, b"x")
    connector = source(place.url)
    connector.list()
    front.fault = lambda asked: reply
    with pytest.raises(IncompleteListing, match=words) as listing:
        connector.list()
    with pytest.raises(DependencyError, match=words) as fetching:
        connector.fetch("a.md", max_bytes=MB)
    assert not listing.value.retryable and not fetching.value.retryable
    assert "secret" not in f"{listing.value}{fetching.value}"
    assert (reply.status == 403 and b"accountDisabled" in reply.body) == isinstance(fetching.value, QuotaExhausted)


def test_an_absent_bucket_is_an_incomplete_listing(place: BucketPlace) -> None:
    """Never an empty one."""
    with pytest.raises(IncompleteListing, match="bucket is not there"):
        connect("gs://no-such-bucket/docs").list()


def test_one_denied_object_costs_itself(front: FaultyFront, place: BucketPlace) -> None:
    """Also when it is the first one that is read."""
    for name in ("a.md", "b.md"):
        place.write(name, b"x")
    connector = source(place.url)
    connector.list()
    front.fault = lambda asked: error(403, "forbidden") if asked.path.endswith("a.md") else None
    with pytest.raises(DocumentError, match="not permitted"):
        connector.fetch("a.md", max_bytes=MB)
    assert connector.fetch("b.md", max_bytes=MB) == b"x"


# ── settings ──


def test_a_service_account_logs_in(front: FaultyFront, place: BucketPlace, tmp_path: Path) -> None:
    """A signed request for a token at the key file's own address; the token is sent, kept, and renewed once when it
    is refused; one that is not given is a failure of the source."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    place.write("a.md", b"x")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path / "key.json"
    file.write_text(
        json.dumps(
            {"type": "service_account", "client_email": "bot@x.example", "token_uri": f"{front.url}/token",
             "private_key": key.decode(), "private_key_id": "1", "project_id": "p"}
        )
    )  # fmt: skip
    tokens: list[str] = []
    spoilt: list[str] = []

    def fault(asked: Asked) -> Reply | None:
        if asked.path == "/token":
            tokens.append(f"ya29.{len(tokens)}")
            body = {"access_token": tokens[-1], "expires_in": 3600, "token_type": "Bearer"}
            return Reply(200, json.dumps(body).encode())
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        return error(401, "authError") if token not in tokens or token in spoilt else None

    front.fault = fault
    environ = {"RAG_GCS_ENDPOINT_URL": front.url, "GOOGLE_APPLICATION_CREDENTIALS": str(file)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        connector = source(place.url, environ=environ)
        assert [i.uri for i in connector.list()] == ["a.md"]
        assert connector.fetch("a.md", max_bytes=MB) == b"x"
        assert tokens == ["ya29.0"]
        spoilt.append("ya29.0")
        assert connector.fetch("a.md", max_bytes=MB) == b"x"
        assert tokens == ["ya29.0", "ya29.1"]
        refusal = Reply(400, b'{"error": "invalid_grant", "error_description": "secret"}')
        front.fault = lambda asked: refusal if asked.path == "/token" else None
        with pytest.raises(IncompleteListing, match="login is refused") as caught:
            source(place.url, environ=environ).list()
        assert not caught.value.retryable and "secret" not in str(caught.value)
        file.write_text("{}")
        with pytest.raises(IncompleteListing, match="no usable login"):
            source(place.url, environ=environ).list()


def test_the_payer_is_named(front: FaultyFront, place: BucketPlace) -> None:
    """With every request, from the setting or the source."""
    place.write("a.md", b"x")
    source(place.url, environ={"RAG_GCS_USER_PROJECT": "payer"}).list()
    source(place.url, storage={"user_project": "other"}).fetch("a.md", max_bytes=MB)
    assert [a.query.get("userProject") for a in front.asked] == ["payer", "other"]


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("gs://", {}, "bucket"),
        ("gs://user:secret@host/x", {}, "bucket"),
        ("gs://b", {"storage": {"anon": True}}, "anon.*anonymous"),
        ("gs://b", {"storage": {"endpoint_url": "ftp://x"}}, "http"),
        ("gs://b", {"acl_from": "s3-tags"}, "gcs-metadata"),
    ],
)
def test_unsuitable_sources_are_refused(url: str, options: dict[str, Any], words: str) -> None:
    """Before anything is requested, with the cure and without the secret."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        source(url, **options)
    assert "secret" not in str(caught.value)


def test_a_private_endpoint_of_a_source_is_refused(place: BucketPlace) -> None:
    """One that the installation names is meant."""
    place.write("a.md", b"x")
    own = {"storage": {"endpoint_url": place.server.url, "anonymous": True}}
    with pytest.raises(IncompleteListing, match="RAG_ALLOW_PRIVATE_ADDRESSES"):
        source(place.url, allow_private=False, **own).list()
    assert len(source(place.url, **own).list()) == 1
    assert len(source(place.url, allow_private=False).list()) == 1
