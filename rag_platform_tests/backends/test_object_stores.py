"""The folder and the fsspec object stores: the contract, and what is particular to each."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest

from rag_platform.backends.object_stores import open_object_store
from rag_platform.backends.object_stores.base import ObjectStore
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.settings import Settings
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

    def test_a_missing_bucket_is_an_outage(self, s3_bucket: str) -> None:  # noqa: F811
        """Not an absent key: that would read as lost objects, or as nothing to collect."""
        store = open_object_store(Settings(object_store_url="s3://no-such-bucket/p"))
        with pytest.raises(DependencyError):
            store.get("k")
        with pytest.raises(DependencyError):
            list(store.list(""))
        with pytest.raises(DependencyError):
            store.put("k", b"x")

    def test_a_closed_port_is_an_outage(self, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
        """Connection refused is never "absent"."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        store = open_object_store(Settings(object_store_url=f"s3://{s3_bucket}/p"))
        with pytest.raises(DependencyError):
            store.exists("k")


def test_a_store_without_atomic_writes_is_refused() -> None:
    """A half-written object could be seen there."""
    with pytest.raises(ConfigurationError, match="RAG_OBJECT_STORE_URL"):
        open_object_store(Settings(object_store_url="ftp://host/x"))
