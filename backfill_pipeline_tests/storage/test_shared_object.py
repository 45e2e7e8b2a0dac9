"""Rules of objects that several processes change: no change of another writer is lost."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from backfill_pipeline.errors import StoreBusyError
from backfill_pipeline.storage.local import LocalStore
from backfill_pipeline.storage.s3 import S3Store
from backfill_pipeline.storage.shared_object import TRIES, update
from backfill_pipeline.storage.store import Store
from backfill_pipeline_tests.storage.bucket import BUCKET, KEY, SECRET, Proxy, answers, bucket_server
from backfill_pipeline_tests.storage.odd_stores import refuses_headers

WRITERS = 8


@contextmanager
def a_bucket() -> Iterator[tuple[Store, Proxy]]:
    with bucket_server() as proxy:
        yield S3Store(BUCKET, access_key=KEY, secret=SECRET, endpoint=proxy.url, region="us-east-1"), proxy


@pytest.fixture(params=["folder", "bucket"])
def store(request, tmp_path) -> Iterator[Store]:
    if request.param == "folder":
        yield LocalStore(tmp_path)
        return
    with a_bucket() as (bucket, _):
        yield bucket


def adds(line: bytes):
    """A change that adds a line, once."""

    def change(data: bytes | None) -> bytes | None:
        lines = set((data or b"").split())
        return None if line in lines else b"\n".join(sorted(lines | {line}))

    return change


def test_writers_at_the_same_moment_lose_nothing(store):
    """When several writers change one object at once, the object ends with the change of each of them."""
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda n: update(store, "shared", adds(b"line-%d" % n)), range(WRITERS)))
    found = store.read("shared")
    assert found is not None
    assert set(found.data.split()) == {b"line-%d" % n for n in range(WRITERS)}


def test_a_change_that_changes_nothing_writes_nothing(store):
    """When the change returns None or the same bytes, the object keeps its version."""
    update(store, "shared", adds(b"a"))
    before = store.read("shared")
    assert update(store, "shared", adds(b"a")) == b"a"
    assert update(store, "shared", lambda data: data) == b"a"
    assert store.read("shared") == before


def test_a_version_that_is_no_longer_there_is_not_replaced(store):
    """A conditional write stores nothing when the object is of another version, exists, or is gone."""
    assert store.replace("x", b"1", None)
    assert not store.replace("x", b"2", None)
    one = store.read("x")
    assert one is not None
    assert store.replace("x", b"2", one.version)
    assert not store.replace("x", b"3", one.version)
    assert store.get("x") == b"2"
    store.delete("x")
    assert not store.replace("x", b"3", one.version)
    assert store.read("x") is None


def test_a_store_without_conditional_writes_is_read_back():
    """Where a store does not know conditional writes, the change is stored without a condition and read back."""
    with a_bucket() as (store, proxy):
        proxy.faults.extend([None, answers(501, "NotImplemented")])  # the read, then the conditional put
        assert update(store, "shared", adds(b"a")) == b"a"
        assert "If-None-Match" not in proxy.asked[2].headers
        assert update(store, "shared", adds(b"b")) == b"a\nb"
        assert not any("If-Match" in one.headers for one in proxy.asked)


def test_a_store_that_refuses_the_condition_as_an_argument_is_read_back():
    """Where a store answers 400 to a conditional header, the change is stored without a condition and read back."""
    with a_bucket() as (store, proxy):
        proxy.always = refuses_headers("if-none-match", "if-match")
        assert update(store, "shared", adds(b"a")) == b"a"
        assert update(store, "shared", adds(b"b")) == b"a\nb"


def test_writers_that_are_always_faster_end_the_try_with_a_named_error(tmp_path):
    """After a dozen attempts in which another writer was faster, the update fails and names the object."""
    store, waits = LocalStore(tmp_path), []

    def disturbed(data: bytes | None) -> bytes:
        store.put("shared", (data or b"") + b".", "")
        return b"mine"

    with pytest.raises(StoreBusyError, match="shared"):
        update(store, "shared", disturbed, sleep=waits.append, uniform=lambda: 0.5)
    assert len(waits) == TRIES
