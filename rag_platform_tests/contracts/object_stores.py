"""What every object store promises. A store's test class gives the fixture ``store``, empty."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from rag_platform.backends.object_stores.base import ObjectStore


class ObjectStoreContract:
    """Inherited by the tests of each store."""

    @pytest.mark.parametrize("data", [b"", b"x", b"\0\xff" * 100_000], ids=["empty", "one byte", "200 kB"])
    def test_bytes_come_back_as_they_were(self, store: ObjectStore, data: bytes) -> None:
        """Any bytes, the empty ones too."""
        store.put("blobs/ab/abcdef", data)
        assert store.get("blobs/ab/abcdef") == data
        assert store.exists("blobs/ab/abcdef")

    def test_an_absent_key_is_a_key_error(self, store: ObjectStore) -> None:
        """Absent is not a failure of the store."""
        store.put("blobs/there", b"x")
        with pytest.raises(KeyError):
            store.get("blobs/absent")
        assert not store.exists("blobs/absent")
        with pytest.raises(KeyError):
            store.get("blobs")
        assert not store.exists("blobs")

    def test_put_overwrites(self, store: ObjectStore) -> None:
        """The last write wins, whole."""
        store.put("k", b"long old bytes")
        store.put("k", b"new")
        assert store.get("k") == b"new"

    def test_delete_takes_many_and_ignores_absent_keys(self, store: ObjectStore) -> None:
        """Deleting twice is deleting once."""
        for i in range(5):
            store.put(f"seg/{i}", b"x")
        store.delete([*(f"seg/{i}" for i in range(3)), "seg/never", "seg"])
        store.delete(["seg/0"])
        store.delete([])
        assert [o.key for o in store.list("seg")] == ["seg/3", "seg/4"]

    def test_list_shows_a_folder_and_nothing_beside_it(self, store: ObjectStore) -> None:
        """A prefix is a folder: ``seg`` does not show ``seg2``; an absent one is empty."""
        for key in ("seg/a/1", "seg/b", "seg2/c", "other"):
            store.put(key, b"12345")
        listed = {o.key: o for o in store.list("seg")}
        assert set(listed) == {"seg/a/1", "seg/b"}
        assert listed["seg/b"].size == 5
        assert listed["seg/b"].modified_at > 1_500_000_000
        assert {o.key for o in store.list("seg/")} == set(listed)
        assert {o.key for o in store.list("")} == {"seg/a/1", "seg/b", "seg2/c", "other"}
        assert list(store.list("nothing/here")) == []

    @pytest.mark.parametrize(
        "key", ["", "/abs", "a//b", "a/../b", "..", ".", "a/.", "a/", "a\\b", "a\0b", "a\nb", ".hid/x", "x" * 300]
    )
    def test_a_bad_key_is_refused(self, store: ObjectStore, key: str) -> None:
        """No key leaves the store or means two things; keys are computed, so this is a bug, not input."""
        with pytest.raises(ValueError, match="key"):
            store.put(key, b"x")
        with pytest.raises(ValueError, match="key"):
            store.get(key)

    def test_odd_but_legal_keys(self, store: ObjectStore) -> None:
        """Spaces, Unicode and characters that mean something in URLs and globs are plain characters."""
        keys = ["a b/ü 漢.txt", "a/100%25#?&=+.bin", "a/[x]*{y}.bin", "a/x..y"]
        for key in keys:
            store.put(key, key.encode())
        assert [store.get(key).decode() for key in keys] == keys
        assert {o.key for o in store.list("")} == set(keys)

    def test_threads_write_the_same_key(self, store: ObjectStore) -> None:
        """Concurrent writers of one content-addressed key do no harm; readers see it whole."""
        data = b"0123456789" * 20_000

        def work(i: int) -> int:
            store.put("shared/key", data)
            return len(store.get("shared/key"))

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(work, range(24))) == {len(data)}
        assert [o.key for o in store.list("")] == ["shared/key"]

    def test_uri_names_the_object(self, store: ObjectStore) -> None:
        """A person can open it with a tool of their choice."""
        assert "://" in store.uri("a/b")
        assert store.uri("a/b").endswith("a/b")
