"""The folder and the fsspec object stores: the contract, and what is particular to each."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest

from rag_platform.backends import s3_client
from rag_platform.backends.object_stores import open_object_store
from rag_platform.backends.object_stores.base import ObjectStore
from rag_platform.backends.sources import api_transport
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.settings import Settings
from rag_platform_tests.backends.api_double import Reply
from rag_platform_tests.backends.faulty_front import FREEZE, before
from rag_platform_tests.backends.gcs_server import GcsServer, gcs_bucket, gcs_server  # noqa: F401 - fixtures
from rag_platform_tests.backends.s3_server import put_many, s3_bucket, s3_endpoint  # noqa: F401 - fixtures
from rag_platform_tests.contracts.object_stores import ObjectStoreContract

_numbers = itertools.count()


class TestLocalFolder(ObjectStoreContract):
    @pytest.fixture(params=["false", "true"], ids=["buffered", "fsync"])
    def store(self, tmp_path: Path, request: pytest.FixtureRequest) -> ObjectStore:
        return open_object_store(Settings(home=tmp_path, environ={"RAG_LOCAL_FOLDER_FSYNC": request.param}))

    def test_an_abandoned_write_is_garbage_after_an_hour(self, tmp_path: Path) -> None:
        """What kill -9 leaves is invisible at first, then listed so that garbage collection removes it."""
        store = open_object_store(Settings(home=tmp_path))
        store.put("seg/a", b"x")
        left = tmp_path / "objects" / "seg" / ".writing-0123"
        left.write_bytes(b"half")
        assert [o.key for o in store.list("seg")] == ["seg/a"]
        old = time.time() - 7200
        os.utime(left, (old, old))
        listed = [o.key for o in store.list("seg")]
        assert listed == ["seg/.writing-0123", "seg/a"]
        store.delete(listed[:1])
        assert not left.exists()

    def test_a_failed_write_leaves_nothing(self, tmp_path: Path) -> None:
        """An object that cannot be written is an outage and no half object."""
        store = open_object_store(Settings(home=tmp_path))
        (tmp_path / "objects").mkdir()
        (tmp_path / "objects" / "seg").write_bytes(b"a file where a folder should be")
        with pytest.raises(DependencyError):
            store.put("seg/a", b"x")
        assert [p.name for p in (tmp_path / "objects").iterdir()] == ["seg"]

    def test_a_file_url_names_a_folder(self, tmp_path: Path) -> None:
        """``file://`` with escapes is the same place as the path."""
        folder = tmp_path / "a b"
        open_object_store(Settings(object_store_url=folder.as_uri())).put("k", b"x")
        assert open_object_store(Settings(object_store_url=str(folder))).get("k") == b"x"


class TestMemory(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return open_object_store(Settings(object_store_url=f"memory://objects-{next(_numbers)}/prefix"))


class TestS3(ObjectStoreContract):
    @pytest.fixture
    def store(self, s3_bucket: str) -> ObjectStore:  # noqa: F811
        return open_object_store(Settings(object_store_url=f"s3://{s3_bucket}/prefix"))

    def test_pages_beyond_a_thousand(self, s3_bucket: str) -> None:  # noqa: F811
        """S3 lists and deletes a thousand at a time."""
        store = open_object_store(Settings(object_store_url=f"s3://{s3_bucket}/p"))
        put_many(s3_bucket, (f"p/seg/{i:05}" for i in range(1100)))
        keys = [o.key for o in store.list("seg")]
        assert keys == [f"seg/{i:05}" for i in range(1100)]
        store.delete(keys)
        assert list(store.list("seg")) == []

    def test_a_whole_bucket_can_be_the_store(self, s3_bucket: str) -> None:  # noqa: F811
        """Without a prefix."""
        store = open_object_store(Settings(object_store_url=f"s3://{s3_bucket}"))
        store.put("a/b", b"x")
        assert [o.key for o in store.list("")] == ["a/b"]
        assert store.uri("a/b") == f"s3://{s3_bucket}/a/b"

    def test_a_missing_bucket_is_an_outage(self, s3_bucket: str) -> None:  # noqa: F811
        """Not an absent key: that would read as lost objects, or as nothing to collect."""
        outages(open_object_store(Settings(object_store_url="s3://no-such-bucket/p")), "bucket is not there")

    def test_a_closed_port_is_an_outage(self, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
        """Connection refused is never "absent"."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setattr(s3_client, "FIRST_PAUSE_S", 0.01)
        store = open_object_store(Settings(object_store_url=f"s3://{s3_bucket}/p"))
        outages(store, "no usable answer")
        with pytest.raises(DependencyError):
            store.exists("k")

    @pytest.mark.parametrize(
        ("reply", "words"),
        [
            (Reply(403, b"<Error><Code>AccessDenied</Code></Error>"), "grant s3:"),
            (Reply(403, b"<Error><Code>InvalidAccessKeyId</Code></Error>"), "login is refused"),
            (Reply(503, b"<Error><Code>SlowDown</Code></Error>", {"Retry-After": "90"}), "slow down"),
            (FREEZE, "no answer within"),
        ],
        ids=["denied", "login", "throttled", "frozen"],
    )
    def test_what_the_service_refuses(
        self,
        s3_endpoint: str,  # noqa: F811
        s3_bucket: str,  # noqa: F811
        reply: Reply,
        words: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Every refusal is an outage with its cure, within the deadline."""
        environ = {"RAG_S3_TIMEOUT_S": "0.4"} if reply is FREEZE else {}
        with before(s3_endpoint) as front:
            monkeypatch.setenv("AWS_ENDPOINT_URL", front.url)
            front.fault = lambda asked: reply
            outages(open_object_store(Settings(object_store_url=f"s3://{s3_bucket}/p", environ=environ)), words)

    def test_throttling_is_waited_out(
        self,
        s3_endpoint: str,  # noqa: F811
        s3_bucket: str,  # noqa: F811
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Every first request is refused."""
        monkeypatch.setattr(s3_client, "FIRST_PAUSE_S", 0.01)
        with before(s3_endpoint) as front:
            monkeypatch.setenv("AWS_ENDPOINT_URL", front.url)
            store = open_object_store(Settings(object_store_url=f"s3://{s3_bucket}/p"))
            for call in (lambda: store.put("k", b"y"), lambda: store.get("k"), lambda: store.delete(["z"])):
                front.nth(1, Reply(503, b"<Error><Code>SlowDown</Code></Error>"))
                call()
            front.forget()
            assert store.get("k") == b"y"

    def test_an_object_that_cannot_be_deleted_is_told(
        self,
        s3_endpoint: str,  # noqa: F811
        s3_bucket: str,  # noqa: F811
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """S3 answers 200 and lists what it did not delete."""
        said = b"<DeleteResult><Error><Key>p/k</Key><Code>AccessDenied</Code></Error></DeleteResult>"
        with before(s3_endpoint) as front:
            monkeypatch.setenv("AWS_ENDPOINT_URL", front.url)
            front.fault = lambda asked: Reply(200, said)
            store = open_object_store(Settings(object_store_url=f"s3://{s3_bucket}/p"))
            with pytest.raises(DependencyError, match="s3:DeleteObject"):
                store.delete(["k"])


class TestGcs(ObjectStoreContract):
    @pytest.fixture
    def store(self, gcs_bucket: str) -> ObjectStore:  # noqa: F811
        return open_object_store(gcs_settings(f"gs://{gcs_bucket}/prefix"))

    def test_pages_beyond_a_thousand(self, gcs_server: GcsServer, gcs_bucket: str) -> None:  # noqa: F811
        """A thousand come at a time."""
        store = open_object_store(gcs_settings(f"gs://{gcs_bucket}"))
        gcs_server.put_many(gcs_bucket, (f"seg/{i:05}" for i in range(1100)))
        keys = [o.key for o in store.list("seg")]
        assert keys == [f"seg/{i:05}" for i in range(1100)]
        store.delete(keys[:50])
        assert len(list(store.list("seg"))) == 1050

    def test_a_missing_bucket_is_an_outage(self, gcs_bucket: str) -> None:  # noqa: F811
        """Not an absent key."""
        outages(open_object_store(gcs_settings("gs://no-such-bucket/p")), "bucket is not there", deleting=False)

    @pytest.mark.parametrize(
        ("reply", "words"),
        [
            (Reply(403, b"{}"), "grant storage.objects."),
            (Reply(401, b"{}"), "login is refused"),
            (Reply(429, b"{}", {"Retry-After": "90"}), "HTTP 429"),
            (FREEZE, "no answer within"),
        ],
        ids=["denied", "login", "throttled", "frozen"],
    )
    def test_what_the_service_refuses(
        self,
        gcs_server: GcsServer,  # noqa: F811
        gcs_bucket: str,  # noqa: F811
        reply: Reply,
        words: str,
    ) -> None:
        """Every refusal is an outage with its cure, within the deadline."""
        environ = {"RAG_GCS_TIMEOUT_S": "0.4"} if reply is FREEZE else {}
        with before(gcs_server.url) as front:
            front.fault = lambda asked: reply
            outages(
                open_object_store(gcs_settings(f"gs://{gcs_bucket}/p", STORAGE_EMULATOR_HOST=front.url, **environ)),
                words,
            )

    def test_a_killed_server_is_an_outage(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Connection refused is never "absent"."""
        server = GcsServer()
        bucket = server.bucket()
        store = open_object_store(gcs_settings(f"gs://{bucket}/p", STORAGE_EMULATOR_HOST=server.url))
        store.put("k", b"x")
        server.close()
        monkeypatch.setattr(api_transport, "FIRST_PAUSE_S", 0.01)
        outages(store, "no usable answer")


def gcs_settings(url: str, **environ: str) -> Settings:
    return Settings(object_store_url=url, environ={**os.environ, **environ})


def outages(store: ObjectStore, words: str, *, deleting: bool = True) -> None:
    """Every call is an outage, within a few seconds."""
    calls = [lambda: store.get("k"), lambda: list(store.list("")), lambda: store.put("k", b"x")]
    for call in [*calls, *([lambda: store.delete(["k"])] if deleting else [])]:
        started = time.monotonic()
        with pytest.raises(DependencyError, match=words):
            call()
        assert time.monotonic() - started < 3


def test_a_store_without_atomic_writes_is_refused() -> None:
    """A half-written object could be seen there."""
    with pytest.raises(ConfigurationError, match="RAG_OBJECT_STORE_URL"):
        open_object_store(Settings(object_store_url="ftp://host/x"))
