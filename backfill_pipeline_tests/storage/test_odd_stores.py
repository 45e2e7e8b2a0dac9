"""Days in stores that are nearly S3: each is stored and verified, or the message names what the store lacks."""

from collections import Counter
from collections.abc import Iterator

import pytest

from backfill_pipeline.errors import DamagedObjectError, StoreBusyError, StoreRefusedError
from backfill_pipeline.storage import s3
from backfill_pipeline.storage.days import get_day, put_day
from backfill_pipeline.storage.s3 import S3Store
from backfill_pipeline_tests.storage.bucket import BUCKET, KEY, SECRET, Proxy, answers, bucket_server, emptied
from backfill_pipeline_tests.storage.odd_stores import (
    capitalised,
    damages,
    denies,
    redirects,
    refuse,
    refuses_headers,
    without_hash,
    without_metadata,
)
from backfill_pipeline_tests.storage.test_s3 import DAY, SITE, day_with


@pytest.fixture(scope="module")
def server() -> Iterator[Proxy]:
    with bucket_server() as proxy:
        yield proxy


@pytest.fixture
def proxy(server: Proxy, monkeypatch) -> Iterator[Proxy]:
    server.reset()
    emptied(server.direct)
    monkeypatch.setattr(s3, "_taken", {})
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    yield server
    server.reset()


def store_at(url: str) -> S3Store:
    return S3Store(BUCKET, "p", access_key=KEY, secret=SECRET, endpoint=url, region="us-east-1", timeout_s=5)


ODD = {
    "capitalised": capitalised,
    "without metadata": without_metadata,
    "without any hash": without_hash,
    "no sha256 header": refuses_headers("x-amz-checksum-sha256"),
    "no checksum header at all": refuses_headers("x-amz-checksum"),
    "no hash header at all": refuses_headers("x-amz-checksum", "content-md5"),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_a_store_that_is_nearly_s3_takes_a_day_and_knows_it_again(proxy, odd):
    """The day is stored and verified; the same day is not written again, other rows are."""
    proxy.always = odd
    store = store_at(proxy.url)
    stored = put_day(store, day_with(1))
    assert stored.changed
    assert get_day(store_at(proxy.direct), SITE, DAY).num_rows == stored.rows
    proxy.asked.clear()
    assert not put_day(store, day_with(1)).changed
    methods = Counter(asked.method for asked in proxy.asked)
    assert methods["PUT"] == 0
    assert len(proxy.asked) <= (4 if odd is without_hash else 3)  # one of them asks for texts of the day
    assert put_day(store, day_with(2)).changed


@pytest.mark.parametrize("odd", [without_hash, without_metadata])
def test_without_a_hash_another_days_content_of_the_same_size_is_not_taken_for_this_one(proxy, odd):
    """Equal sizes are not enough: the content decides."""
    proxy.always = odd
    store = store_at(proxy.url)
    data = b"x" * 100
    key = put_day(store, day_with(1)).key
    size = len(store.get(key))
    store_at(proxy.direct).put(key, (data * size)[:size], "00" * 32)
    assert put_day(store, day_with(1)).changed
    assert get_day(store, SITE, DAY).num_rows == 20_000


def test_a_byte_that_a_store_without_any_hash_changed_is_found_at_once(proxy):
    """Where the store reports no hash, the object is read back whole and compared."""
    proxy.always = damages
    with pytest.raises(DamagedObjectError, match="does not match what was written"):
        put_day(store_at(proxy.url), day_with(1))


def test_a_refused_header_is_left_out_for_the_rest_of_the_process(proxy):
    """The store refuses it once; later puts, also of another store object, do not send it."""
    proxy.always = refuses_headers("x-amz-checksum")
    put_day(store_at(proxy.url), day_with(1))
    proxy.asked.clear()
    store_at(proxy.url).put("b", b"x", "00" * 32)
    (put,) = proxy.asked
    names = {name.lower() for name in put.headers}
    assert "content-md5" in names
    assert not any(name.startswith("x-amz-checksum") for name in names)


def test_a_refusal_for_another_reason_costs_no_knowledge(proxy):
    """When the put fails with and without the header, the header is sent again next time, and the message is shown."""

    def always(handler, asked):
        return asked.method == "PUT" and refuse(handler, asked, 400, "InvalidRequest", "this bucket is frozen")

    proxy.always = always
    with pytest.raises(StoreRefusedError, match=r"InvalidRequest: this bucket is frozen"):
        store_at(proxy.url).put("a", b"x", "00" * 32)
    proxy.always = None
    proxy.asked.clear()
    store_at(proxy.url).put("a", b"x", "00" * 32)
    assert any(name.lower() == "x-amz-checksum-sha256" for name in proxy.asked[-1].headers)


@pytest.mark.parametrize("right", ["list", "read", "write"])
def test_a_missing_right_is_named(proxy, right):
    """Of a key that lacks one right, the message names this right alone, and what to grant."""
    put_day(store_at(proxy.direct), day_with(1))
    if right in ("list", "write"):
        emptied(proxy.direct)
    proxy.always = denies(right)
    with pytest.raises(StoreRefusedError, match=rf"no right to {right}\. Give the key the right to {right}"):
        put_day(store_at(proxy.url), day_with(1))


def test_the_stores_own_words_are_one_short_line_without_the_credentials(proxy):
    """A message of many lines that repeats key and secret is shortened, and neither is shown."""
    words = f"first\n line, {SECRET} of {KEY}: " + "and on " * 100

    def own(handler, asked):
        return refuse(handler, asked, 418, "Teapot", words)

    proxy.always = own
    with pytest.raises(StoreRefusedError, match=r"refused \(Teapot: first line, \*\*\* of \*\*\*: and on") as caught:
        store_at(proxy.url).put("a", b"x", "00" * 32)
    message = str(caught.value)
    assert len(message) < 260
    assert not {SECRET, KEY, "\n"} & {part for part in (SECRET, KEY, "\n") if part in message}


@pytest.mark.parametrize("status", [301, 307])
def test_a_redirect_names_its_target_without_its_path(proxy, status):
    """A put, a look-up and a read name where the store sends them; path and query may contain secrets."""
    proxy.always = redirects("https://other.example:444", status)
    store = store_at(proxy.url)
    for attempt in (
        lambda: store.put("a", b"x", "00" * 32),
        lambda: store.head("secret-name"),
        lambda: store.get("secret-name"),
        lambda: list(store.list("secret-name")),
    ):
        with pytest.raises(StoreRefusedError, match=r"redirects \(to https://other\.example:444\)") as caught:
            attempt()
        assert "AWS_ENDPOINT_URL_S3" in caught.value.hint
    assert len(proxy.asked) < 20  # botocore requests the bucket once for each redirect, and no more


def test_a_busy_store_is_no_store_without_the_header(proxy):
    """A store that is busy, or refuses the credentials, gets no second put without its hash."""
    for status, code, kind in ((503, "SlowDown", StoreBusyError), (400, "ExpiredToken", StoreRefusedError)):
        proxy.always = answers(status, code)
        proxy.asked.clear()
        with pytest.raises(kind):
            store_at(proxy.url).put("a", b"x", "00" * 32)
        assert all(any(n.lower() == "x-amz-checksum-sha256" for n in asked.headers) for asked in proxy.asked)
