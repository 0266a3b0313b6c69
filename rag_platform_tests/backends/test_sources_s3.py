"""S3 as a source: moto's server, and in front of it one that throttles, denies, drips and lies."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_platform.backends import s3_client
from rag_platform.backends.sources import open_source
from rag_platform.backends.sources.base import Replacement, SourceConnector
from rag_platform.errors import (
    ConfigurationError,
    DependencyError,
    DependencyTimeout,
    DocumentError,
    IncompleteListing,
    LimitExceeded,
    RateLimited,
)
from rag_platform.records import SourceItem, SourceSpec
from rag_platform.settings import Settings
from rag_platform_tests.backends.api_double import Asked, Reply
from rag_platform_tests.backends.faulty_front import FREEZE, FaultyFront, before
from rag_platform_tests.backends.s3_server import client, put_many, s3_bucket, s3_endpoint  # noqa: F401 - fixtures
from rag_platform_tests.contracts.sources import MB, SourceContract, connect

TIMEOUT_S = 1.0


def xml(code: str, status: int = 403, **headers: str) -> Reply:
    """An error as S3 sends it; its message holds what no error of ours may repeat."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>AKIA0123456789 said no</Message></Error>"
    return Reply(status, body.encode(), {"Content-Type": "application/xml", **headers})


class BucketPlace:
    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.url = f"s3://{bucket}/docs"
        self.missing_url = f"s3://{bucket}/nothing"
        self.s3 = client()

    def write(self, uri: str, data: bytes, **arguments: Any) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=f"docs/{uri}", Body=data, **arguments)

    def remove(self, uri: str) -> None:
        self.s3.delete_object(Bucket=self.bucket, Key=f"docs/{uri}")

    def tag(self, uri: str, **tags: str) -> None:
        pairs = [{"Key": k.replace("_", "-"), "Value": v} for k, v in tags.items()]
        self.s3.put_object_tagging(Bucket=self.bucket, Key=f"docs/{uri}", Tagging={"TagSet": pairs})


@pytest.fixture
def place(s3_bucket: str) -> BucketPlace:  # noqa: F811
    return BucketPlace(s3_bucket)


@pytest.fixture
def front(s3_endpoint: str, place: BucketPlace, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyFront]:  # noqa: F811
    """The faulty server; connectors made after this go through it, ``place`` does not."""
    with before(s3_endpoint) as faulty:
        monkeypatch.setenv("AWS_ENDPOINT_URL", faulty.url)
        monkeypatch.setattr(s3_client, "FIRST_PAUSE_S", 0.01)
        yield faulty


def source(url: str, *, environ: dict[str, str] | None = None, allow_private: bool = True, **options: Any) -> Any:
    settings = Settings(allow_private_addresses=allow_private, environ=environ or {})
    return open_source(SourceSpec("src", url, options=options), settings)


def impatient(url: str, **options: Any) -> Any:
    return source(url, environ={"RAG_S3_TIMEOUT_S": str(TIMEOUT_S)}, **options)


def listed(connector: SourceConnector) -> dict[str, SourceItem]:
    return {item.uri: item for item in connector.list()}


class TestS3(SourceContract):
    @pytest.fixture
    def place(self, s3_bucket: str) -> BucketPlace:  # noqa: F811
        return BucketPlace(s3_bucket)

    def test_pages_beyond_a_thousand(self, place: BucketPlace) -> None:
        """A listing is complete however many pages it takes, and shows nothing beside the prefix."""
        put_many(place.bucket, (f"docs/{i:05}.md" for i in range(2100)))
        put_many(place.bucket, ["docs2/other.md", "docs"])
        assert [i.uri for i in connect(place.url).list()] == [f"{i:05}.md" for i in range(2100)]

    def test_keys_that_look_like_urls(self, place: BucketPlace) -> None:
        """``#``, ``?``, ``%`` and ``+`` are characters like others, in the root too."""
        uris = ["a#b.md", "q?x=1.md", "100%.md", "%41.md", "plus+.md", "s p.md", "amp&.md", "uml/ü.md"]
        for uri in uris:
            place.write(f"r #?%41/{uri}", uri.encode())
        connector = connect(f"{place.url}/r #?%41")
        assert [i.uri for i in connector.list()] == sorted(uris)
        assert [connector.fetch(u, max_bytes=MB) for u in uris] == [u.encode() for u in uris]

    def test_the_token_is_the_etag(self, place: BucketPlace) -> None:
        """Equal bytes written again keep it, so nothing is fetched; a whole bucket can be a source."""
        place.write("a.md", b"one")
        first = connect(place.url).list()
        place.write("a.md", b"one")
        second = connect(place.url).list()
        assert first[0].change_token == second[0].change_token
        assert [i.uri for i in connect(f"s3://{place.bucket}").list()] == ["docs/a.md"]
        assert [i.uri for i in connect(f"s3a://{place.bucket}/").list()] == ["docs/a.md"]

    def test_folder_markers_and_dot_segments_are_no_documents(self, place: BucketPlace) -> None:
        """Keys that are no plain path are passed over; the rest is listed, empty documents too."""
        for uri in ("folder/", "emr_$folder$", "empty.md"):
            place.write(uri, b"")
        put_many(place.bucket, ["docs/x//y.md", "docs/../up.md", "docs/a.md"])
        assert [i.uri for i in connect(place.url).list()] == ["a.md", "empty.md"]

    def test_an_empty_prefix_may_be_permitted(self, place: BucketPlace) -> None:
        """The operator says that nothing is a valid state, or a folder marker does."""
        assert list(connect(place.missing_url, options={"allow_empty": True}).list()) == []
        place.write("marked/", b"")
        assert list(connect(f"{place.url}/marked").list()) == []

    def test_a_replaced_object_is_the_new_one_and_says_so(self, place: BucketPlace) -> None:
        """Between listing and fetch: whole new bytes, under the change token that the next listing shows."""
        place.write("a.md", b"old")
        connector = connect(place.url)
        connector.list()
        place.write("a.md", b"the new one")
        found = connector.fetch("a.md", max_bytes=MB)
        assert isinstance(found, Replacement)
        assert (found.data, found.item.size) == (b"the new one", 11)
        [now] = connect(place.url).list()
        assert found.item == now
        with pytest.raises(LimitExceeded):
            connector.fetch("a.md", max_bytes=3)

    @pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
    def test_an_archived_object_costs_itself(self, place: BucketPlace, storage_class: str) -> None:
        """It is listed, cannot be read, and the cure is named."""
        place.write("cold.md", b"x", StorageClass=storage_class)
        place.write("warm.md", b"x", StorageClass="STANDARD_IA")
        connector = connect(place.url)
        assert len(connector.list()) == 2
        with pytest.raises(DocumentError, match="restore"):
            connector.fetch("cold.md", max_bytes=MB)
        assert connector.fetch("warm.md", max_bytes=MB) == b"x"


# ── what the service does to us ──


def test_throttling_is_waited_out(front: FaultyFront, place: BucketPlace) -> None:
    """503 SlowDown, 429 and 500 on every second request cost time, nothing else."""
    for n in range(3):
        place.write(f"{n}.md", b"text")
    replies = [xml("SlowDown", 503), Reply(429, b"slow"), xml("InternalError", 500), Reply(503, b"<html>")]

    def fault(asked: Asked) -> Reply | None:
        return replies[len(front.asked) // 2 % 4] if len(front.asked) % 2 else None

    front.fault = fault
    connector = source(place.url, acl_from="s3-tags")
    assert list(listed(connector)) == ["0.md", "1.md", "2.md"]
    assert connector.fetch("1.md", max_bytes=MB) == b"text"


def test_throttling_without_end_is_an_outage(front: FaultyFront, place: BucketPlace) -> None:
    """Until the deadline, in both calls; a longer wait than that is told and not waited."""
    place.write("a.md", b"x")
    endless, long = xml("SlowDown", 503), xml("SlowDown", 503, **{"Retry-After": "90"})
    for connector, reply, wait in ((impatient(place.url), endless, None), (source(place.url), long, 90.0)):
        front.fault = lambda asked, reply=reply: reply
        started = time.monotonic()
        with pytest.raises(IncompleteListing) as listing:
            connector.list()
        with pytest.raises(RateLimited if wait else (RateLimited, DependencyTimeout)) as fetching:
            connector.fetch("a.md", max_bytes=MB)
        assert time.monotonic() - started < 2 * TIMEOUT_S + 3
        assert listing.value.retryable and fetching.value.retryable
        assert (listing.value.retry_after_s, fetching.value.retry_after_s) == (wait, wait)


@pytest.mark.parametrize("reply", [FREEZE, Reply(200, b"<?xml version='1.0'?>" + b" " * 900, drip_s=0.05)])
def test_a_server_that_does_not_end_meets_the_deadline(front: FaultyFront, place: BucketPlace, reply: Reply) -> None:
    """Frozen, or dripping so that no read times out."""
    place.write("a.md", b"x")
    connector = impatient(place.url)
    front.fault = lambda asked: reply
    for call in (connector.list, lambda: connector.fetch("a.md", max_bytes=MB)):
        started = time.monotonic()
        with pytest.raises((IncompleteListing, DependencyTimeout)):
            call()
        assert time.monotonic() - started < TIMEOUT_S + 1.5


def test_a_listing_as_a_whole_has_a_deadline(front: FaultyFront, place: BucketPlace) -> None:
    """However quick each page is."""
    put_many(place.bucket, (f"docs/{i}.md" for i in range(3)))
    front.fault = lambda asked: FREEZE
    started = time.monotonic()
    with pytest.raises(IncompleteListing, match=r"not listed within 0\.3 s"):
        source(place.url, environ={"RAG_S3_LISTING_TIMEOUT_S": "0.3"}).list()
    assert time.monotonic() - started < 3


_PAGE = b"<?xml version='1.0'?><ListBucketResult><Name>b</Name>%b</ListBucketResult>"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500, b""),
        Reply(404, b"<html>not here</html>"),
        Reply(200, b"<html>please log in</html>"),
        Reply(200, b""),
        Reply(200, b"{}"),
        Reply(200, _PAGE % b""),
        Reply(200, _PAGE % b"<IsTruncated>true</IsTruncated>"),
        Reply(302, b"", {"Location": "/login"}),
        Reply(200, _PAGE % b"<IsTruncated>false</IsTruncated>", cut=True),
    ],
    ids=["500", "404", "html", "empty", "json", "no end", "no next", "redirect", "cut"],
)
def test_no_failing_page_reads_as_deletions(
    front: FaultyFront, place: BucketPlace, reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever request it is: an incomplete listing, or (where a retry is made) the complete one."""
    monkeypatch.setattr(s3_client, "PAGE", 2)
    put_many(place.bucket, (f"docs/{i}.md" for i in range(5)))
    connector = source(place.url)
    for number in (1, 2, 3):
        front.nth(number, reply)
        try:
            items = connector.list()
        except IncompleteListing:
            continue
        assert [i.uri for i in items] == [f"{i}.md" for i in range(5)]


def test_a_denied_listing_names_the_permission(front: FaultyFront, place: BucketPlace) -> None:
    """Nothing is concluded from it, and trying again does not help."""
    front.fault = lambda asked: xml("AccessDenied")
    with pytest.raises(IncompleteListing, match="s3:ListBucket") as caught:
        source(place.url).list()
    assert not caught.value.retryable
    assert len(front.asked) == 1
    front.forget()
    with pytest.raises(IncompleteListing, match="bucket is not there"):
        source("s3://no-such-bucket").list()


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (xml("InvalidAccessKeyId"), "login is refused"),
        (xml("SignatureDoesNotMatch"), "login is refused"),
        (xml("ExpiredToken", 400), "login is refused"),
        (xml("RequestTimeTooSkewed"), "clock"),
        (xml("AuthorizationHeaderMalformed", 400), "RAG_S3_REGION"),
        (xml("InvalidArgument", 400), "InvalidArgument"),
    ],
)
def test_a_refused_login_is_the_sources_failure(
    front: FaultyFront, place: BucketPlace, reply: Reply, words: str
) -> None:
    """In both calls, without retries, with the cure and without the service's own words."""
    place.write("a.md", b"x")
    connector = source(place.url)
    front.fault = lambda asked: reply
    with pytest.raises(IncompleteListing, match=words) as listing:
        connector.list()
    with pytest.raises(DependencyError, match=words) as fetching:
        connector.fetch("a.md", max_bytes=MB)
    assert not listing.value.retryable and not fetching.value.retryable
    assert "AKIA" not in f"{listing.value}{fetching.value}"


def test_no_login_at_all_is_said(place: BucketPlace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, no profile, no role; and a profile that does not exist."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for options in ({}, {"storage": {"profile": "nobody"}}):
        with pytest.raises(IncompleteListing, match="no usable login") as caught:
            source(place.url, **options).list()
        assert not caught.value.retryable


def denying(*names: str) -> Callable[[Asked], Reply | None]:
    return lambda asked: xml("AccessDenied") if asked.path.endswith(names) else None


def test_one_denied_object_costs_itself(front: FaultyFront, place: BucketPlace) -> None:
    """Also when it is the first one that is read, and when it is all there is."""
    for name in ("a.md", "b.md", "c.md", "d.md"):
        place.write(name, b"x")
    connector = source(place.url)
    connector.list()
    front.fault = denying("a.md", "c.md")
    for name in ("a.md", "c.md", "a.md"):
        with pytest.raises(DocumentError, match="s3:GetObject"):
            connector.fetch(name, max_bytes=MB)
    assert connector.fetch("b.md", max_bytes=MB) == b"x"
    alone = source(f"{place.url}/a.md")
    alone.list()
    with pytest.raises(DocumentError):
        alone.fetch("a.md", max_bytes=MB)


def test_a_login_that_may_read_nothing_dead_letters_nothing(front: FaultyFront, place: BucketPlace) -> None:
    """It may list: then the first denial would be one of thousands."""
    for name in ("a.md", "b.md", "c.md", "d.md"):
        place.write(name, b"x")
    connector = source(place.url)
    connector.list()
    front.fault = denying(".md")
    with pytest.raises(DependencyError, match="s3:GetObject") as caught:
        connector.fetch("c.md", max_bytes=MB)
    assert not caught.value.retryable


def test_a_body_that_ends_early_is_read_again(front: FaultyFront, place: BucketPlace) -> None:
    """Half a document is no document."""
    place.write("a.md", b"whole text")
    connector = source(place.url)
    connector.list()
    front.nth(1, Reply(200, b"whole text", cut=True))
    assert connector.fetch("a.md", max_bytes=MB) == b"whole text"
    front.fault = lambda asked: Reply(200, b"whole text", cut=True)
    with pytest.raises(DependencyError):
        connector.fetch("a.md", max_bytes=MB)


def test_a_closed_port_is_an_outage(place: BucketPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a listing and for a fetch."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    connector = source(place.url)
    with pytest.raises(IncompleteListing) as caught:
        connector.list()
    assert caught.value.retryable
    with pytest.raises(DependencyError):
        connector.fetch("a.md", max_bytes=MB)


# ── permissions ──


def test_tags_are_permissions(place: BucketPlace) -> None:
    """Access list, tags and tenant of an object; without a tag the source's; unknown is nobody's."""
    for name in ("a", "b", "c", "d", "e", "f"):
        place.write(f"{name}.md", b"x")
    place.tag("b.md", rag_acl="legal board", rag_tags="contract 2024", team="whatever")
    place.tag("c.md", rag_acl=" ")
    place.tag("d.md", rag_tenant="globex", rag_acl="staff")
    place.tag("e.md", rag_tenant="umbrella", rag_acl="staff")
    place.tag("f.md", Rag_Acl="legal")  # not ours, but was meant to be
    before_, items = listed(source(place.url)), listed(source(place.url, acl_from="s3-tags", tenants=["globex"]))
    said = {u: (i.acl, i.tags, i.tenant) for u, i in items.items()}
    assert said == {
        "a.md": (None, None, None),
        "b.md": (("legal", "board"), ("contract", "2024"), None),
        "c.md": ((), None, None),
        "d.md": (("staff",), None, "globex"),
        "e.md": ((), None, None),
        "f.md": ((), None, None),
    }
    assert {u: i.change_token for u, i in items.items()} == {u: i.change_token for u, i in before_.items()}
    assert all(i.acl is None for i in before_.values())


def test_tags_are_read_for_wanted_objects_some_at_a_time(front: FaultyFront, place: BucketPlace) -> None:
    """One request each, and never more than RAG_S3_TAG_READERS at once."""
    put_many(place.bucket, [*(f"docs/{i}.md" for i in range(40)), *(f"docs/{i}.png" for i in range(40))])
    connector = open_source(
        SourceSpec("src", place.url, include=("*.md",), options={"acl_from": "s3-tags"}),
        Settings(environ={"RAG_S3_TAG_READERS": "3"}),
    )
    running = most = 0
    original = connector._client.call  # type: ignore[attr-defined]

    async def counted(operation: str, **arguments: Any) -> Any:
        nonlocal running, most
        running += operation == "get_object_tagging"
        most = max(most, running)
        try:
            return await original(operation, **arguments)
        finally:
            running -= operation == "get_object_tagging"

    connector._client.call = counted  # type: ignore[attr-defined]
    assert len(connector.list()) == 40
    assert most == 3
    assert sum("tagging" in a.query for a in front.asked) == 40


def test_an_object_whose_tags_may_not_be_read_is_closed(
    front: FaultyFront, place: BucketPlace, caplog: pytest.LogCaptureFixture
) -> None:
    """One of several is nobody's; when it is all of them the login is wrong, and nothing changes."""
    for name in ("a.md", "b.md"):
        place.write(name, b"x")
    connector = source(place.url, acl_from="s3-tags")
    front.fault = lambda asked: xml("AccessDenied") if "tagging" in asked.query and "a.md" in asked.path else None
    with caplog.at_level(logging.WARNING):
        assert {u: i.acl for u, i in listed(connector).items()} == {"a.md": (), "b.md": None}
    assert "1 documents are closed to all readers (a.md: its labels may not be read)" in caplog.text
    front.fault = lambda asked: xml("AccessDenied") if "tagging" in asked.query else None
    with pytest.raises(IncompleteListing, match="s3:GetObjectTagging"):
        connector.list()


@pytest.mark.parametrize("reply", [xml("InternalError", 500), Reply(200, b"<html/>"), FREEZE])
def test_failing_tags_make_the_listing_incomplete(front: FaultyFront, place: BucketPlace, reply: Reply) -> None:
    """No permission is guessed."""
    for name in ("a.md", "b.md"):
        place.write(name, b"x")
    front.fault = lambda asked: reply if "tagging" in asked.query and "a.md" in asked.path else None
    with pytest.raises(IncompleteListing):
        impatient(place.url, acl_from="s3-tags").list()


def test_an_object_deleted_under_the_listing_is_gone(front: FaultyFront, place: BucketPlace) -> None:
    """Its tags are 404; the listing is complete without it. A replaced one comes with its new tags."""
    for name in ("a.md", "b.md"):
        place.write(name, b"x")
    connector = source(place.url, acl_from="s3-tags")
    front.fault = lambda asked: xml("NoSuchKey", 404) if "tagging" in asked.query and "a.md" in asked.path else None
    assert list(listed(connector)) == ["b.md"]
    front.forget()
    connector.list()
    place.write("b.md", b"new", Tagging="rag-acl=board")
    found = connector.fetch("b.md", max_bytes=MB)
    assert isinstance(found, Replacement) and found.item.acl == ("board",)


# ── settings ──


def test_logins_and_endpoints(front: FaultyFront, place: BucketPlace, tmp_path: Path) -> None:
    """RAG_S3_… wins over AWS_…, a source's profile over both; anonymous requests are not signed."""
    place.write("a.md", b"x")
    credentials = tmp_path / "credentials"
    credentials.write_text("[reader]\naws_access_key_id = PROFILEKEY\naws_secret_access_key = s\n")
    keys = {"RAG_S3_ACCESS_KEY_ID": "OURKEY", "RAG_S3_SECRET_ACCESS_KEY": "s", "RAG_S3_REGION": "eu-central-1"}

    def authorization(environ: dict[str, str], **storage: Any) -> str:
        front.forget()
        list(listed(source(place.url, environ=environ, **({"storage": storage} if storage else {}))))
        return front.asked[0].headers.get("authorization", "none")

    assert "Credential=testing/" in authorization({})
    assert "Credential=OURKEY/" in authorization(keys) and "/eu-central-1/" in authorization(keys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
        assert "Credential=PROFILEKEY/" in authorization(keys, profile="reader")
    assert authorization(keys, anon=True) == "none"
    assert authorization({"RAG_S3_ANONYMOUS": "true"}) == "none"
    assert "testing" in authorization({}, requester_pays=True)
    assert front.asked[0].headers["x-amz-request-payer"] == "requester"
    front.forget()
    os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"  # put back by the fixture's monkeypatch
    assert len(source(place.url, environ={"RAG_S3_ENDPOINT_URL": front.url}).list()) == 1
    assert len(source(place.url, storage={"endpoint_url": front.url}).list()) == 1


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("s3://", {}, "bucket"),
        ("s3://user:secret@host/x", {}, "bucket"),
        ("s3://b", {"storage": {"config_kwargs": {}}}, "config_kwargs.*endpoint_url"),
        ("s3://b", {"storage": "x"}, "mapping"),
        ("s3://b", {"storage": {"anonymous": "yes"}}, "true or false"),
        ("s3://b", {"storage": {"endpoint_url": "minio:9000"}}, "http"),
        ("s3://b", {"storage": {"endpoint_url": "http://127.0.0.1:9"}}, "RAG_ALLOW_PRIVATE_ADDRESSES"),
        ("s3://b", {"storage": {"addressing": "dns"}}, "path or virtual"),
        ("s3://b", {"acl_from": "tags"}, "s3-tags"),
        ("s3://b", {"tenants": ["a"]}, "acl_from"),
        ("s3://b", {"acl_from": "s3-tags", "tenants": "a"}, "list of names"),
        ("/tmp", {"acl_from": "s3-tags"}, "s3:// and gs://"),
        ("memory://x", {"acl_from": "s3-tags"}, "s3:// and gs://"),
    ],
)
def test_unsuitable_sources_are_refused(url: str, options: dict[str, Any], words: str) -> None:
    """Before anything is requested, with the cure and without the secret."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        source(url, allow_private=False, **options)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("RAG_S3_ADDRESSING", "x"), ("RAG_S3_TIMEOUT_S", "0"), ("RAG_S3_TAG_READERS", "0"), ("RAG_S3_ACCESS_KEY_ID", "k")],
)
def test_unusable_variables_are_named(variable: str, value: str) -> None:
    """With what they may be."""
    with pytest.raises(
        ConfigurationError, match=variable.removeprefix("RAG_S3_").split("_")[0].lower() + "|" + variable
    ):
        source("s3://b", environ={variable: value})
