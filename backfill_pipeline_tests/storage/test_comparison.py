"""Records compared with the store: by a listing of the range, and by a hash only where the listing leaves doubt."""

from datetime import date, timedelta

import botocore.session
import pytest
from botocore.parsers import create_parser
from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.core.object_keys import ROOT, day_prefix, object_key, range_prefix
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage import comparison
from backfill_pipeline.storage.comparison import Recorded, compare_range, list_days
from backfill_pipeline.storage.days import put_day, settings_store
from backfill_pipeline.storage.s3_listing import parse_objects
from backfill_pipeline.storage.store import Stat
from backfill_pipeline_tests.orchestration.fakes import day_rows
from backfill_pipeline_tests.storage.bucket import BUCKET, KEY, SECRET, bucket_server

FIRST = date(2024, 12, 28)
DAYS = [FIRST + timedelta(days=number) for number in range(8)]


@pytest.fixture(scope="module", params=["folder", "bucket"])
def place(request, tmp_path_factory):
    if request.param == "folder":
        yield None, settings_store(Settings(store=str(tmp_path_factory.mktemp("store"))))
        return
    with bucket_server() as proxy:
        keys = {"s3_access_key_id": KEY, "s3_secret_access_key": SECRET, "s3_endpoint_url": proxy.url}
        yield proxy, settings_store(Settings(store=f"s3://{BUCKET}/days", s3_region="auto", **keys))


def recorded(store, sites=("a", "b")):
    """All days put, and what would be recorded of them."""
    records = {}
    for number, site in enumerate(sites):
        for day in DAYS:
            put = put_day(store, day_rows(site, day, points=number + 1))
            records[site, day] = Recorded(put.bytes, put.etag, put.sha256)
    return records


def test_what_a_listing_shows_is_found_and_nothing_else(place):
    """Deleted, cut, emptied and swapped objects; a copy of the same bytes is the recorded object."""
    _, store = place
    records = recorded(store)
    assert len(compare_range(store, records)) == 0
    north, south = (store.get(object_key(site, DAYS[4])) for site in ("a", "b"))
    same = store.get(object_key("a", DAYS[5]))
    store.delete(object_key("a", DAYS[1]))
    store.put(object_key("a", DAYS[2]), same[:-5], "00" * 32)
    store.put(object_key("a", DAYS[3]), b"", "00" * 32)
    store.put(object_key("a", DAYS[4]), south, "00" * 32)
    store.put(object_key("b", DAYS[4]), north, "00" * 32)
    store.put(object_key("a", DAYS[5]), same, records["a", DAYS[5]].sha256)
    found = compare_range(store, records)
    assert found.missing == {("a", DAYS[1])}
    assert set(found.different) == {("a", DAYS[2]), ("a", DAYS[3]), ("a", DAYS[4]), ("b", DAYS[4])}
    assert list(found) == sorted(found)


def test_an_object_of_the_same_size_is_found_by_its_etag_and_hash(place):
    """A record without an ETag, of an earlier version, is compared by size alone."""
    _, store = place
    records = recorded(store, ["a"])
    whole = store.get(object_key("a", DAYS[0]))
    store.put(object_key("a", DAYS[0]), whole[:99] + bytes([whole[99] ^ 1]) + whole[100:], "00" * 32)
    assert set(compare_range(store, records).different) == {("a", DAYS[0])}
    old = {one: Recorded(known.bytes) for one, known in records.items()}
    assert len(compare_range(store, old)) == 0


def test_the_range_costs_one_list_request(place):
    """Whatever the number of days, a listing of up to 1,000 objects is one request, beside other years' objects."""
    proxy, store = place
    records = recorded(store)
    for day in (date(2023, 5, 5), date(2026, 5, 5)):
        store.put(object_key("a", day), b"x", "00" * 32)
    if proxy:
        proxy.reset()
    assert sorted(list_days(store, FIRST, DAYS[-1])) == sorted(object_key(*one) for one in records)
    compare_range(store, records)
    assert proxy is None or [asked.method for asked in proxy.asked] == ["GET", "GET"]


def test_a_range_of_many_years_is_listed_in_parts(place):
    """Each object of each year is listed once."""
    _, store = place
    days = [date(year, month, 1) for year in range(2015, 2024) for month in (1, 12)]
    for day in days:
        store.put(object_key("z", day), b"x", "00" * 32)
    listed = list_days(store, date(2015, 1, 1), date(2023, 12, 1))
    assert [key for key in sorted(listed) if key.endswith("/z.parquet")] == [object_key("z", day) for day in days]


def test_a_store_that_does_not_know_where_to_begin_is_listed_from_its_prefix(place):
    """`StartAfter` spares requests; without it the listing is the same."""
    proxy, store = place
    if proxy is None:
        pytest.skip("a folder has no requests")
    wanted = sorted(object_key(*one) for one in recorded(store))

    def settle(handler, asked):
        asked.path = asked.path.replace("start-after", "no-start-after")
        return False

    proxy.always = settle
    try:
        assert [key for key in sorted(list_days(store, FIRST, DAYS[-1])) if "/z." not in key] == wanted
    finally:
        proxy.reset()


class Listed:
    """A store of keys alone, which counts the listings."""

    def __init__(self, keys):
        self.keys, self.listings = sorted(keys), 0

    def list(self, prefix, *, after=""):
        self.listings += 1
        return (Stat(key, 1) for key in self.keys if key.startswith(prefix) and key > after)


@given(
    st.dictionaries(st.integers(-3, 40), st.integers(1, 9), max_size=30),
    st.integers(0, 20),
    st.integers(1, 20),
    st.booleans(),
)
def test_a_long_listing_in_parts_has_each_object_once(counts, first, length, odd):
    """However many objects the days have, and with unexpected keys among them, the result is that of one listing."""
    begin, end = FIRST + timedelta(days=first), FIRST + timedelta(days=first + length)
    keys = {
        object_key(f"site-{site}", FIRST + timedelta(days=number)) for number, n in counts.items() for site in range(n)
    }
    keys |= {f"{ROOT}/2025/01/notes.txt", f"{ROOT}/2024/12/30.parquet"} if odd else set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "_PAGE", 7)
        patch.setattr(comparison, "_PART", 20)
        found = list_days(Listed(keys), begin, end)
    low, high = day_prefix(begin), day_prefix(end)
    one_listing = Listed(keys).list(range_prefix(begin, end), after=low)
    expected = [stat.key for stat in one_listing if stat.key <= high or stat.key.startswith(high)]
    assert sorted(found) == expected
    assert all(key == stat.key for key, stat in found.items())


def test_parts_of_a_year_with_many_objects_are_listed_side_by_side():
    """A year of 30 sites, 10,950 objects, is one listing to learn the size of a day, and then three of 133 days."""
    year = [date(2024, 1, 1) + timedelta(days=number) for number in range(365)]
    store = Listed(object_key(f"site-{site}", day) for site in range(30) for day in year)
    assert len(list_days(store, year[0], year[-1])) == 10_950
    assert store.listings == 4


def test_the_parser_of_a_listing_agrees_with_the_one_of_botocore():
    """Keys, sizes and ETags are those that botocore's parser finds; an error and a damaged answer are left to it."""
    place = "http://s3.amazonaws.com/doc/2006-03-01/"
    items = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>{etag}<Size>{size}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for key, etag, size in (
            ("days/a%20b%25.parquet", "<ETag>&quot;ab&quot;</ETag>", 5),
            ("days/&#252;.parquet", "", 0),
        )
    )
    body = (
        f'<?xml version="1.0"?><ListBucketResult xmlns="{place}"><Name>b</Name><Prefix>days</Prefix>{items}'
        "<IsTruncated>true</IsTruncated><EncodingType>url</EncodingType>"
        "<NextContinuationToken>more</NextContinuationToken></ListBucketResult>"
    ).encode()
    shape = botocore.session.Session().get_service_model("s3").operation_model("ListObjectsV2").output_shape
    parser = create_parser("rest-xml")
    answer = {"status_code": 200, "headers": {}, "body": body}
    expected = parser.parse(dict(answer), shape)
    more: dict[str, object] = {}
    parse_objects(answer, more)
    found = parser.parse(answer, shape) | more
    for item in expected["Contents"]:
        del item["LastModified"], item["StorageClass"]
    assert found == expected
    for status, text in ((404, body), (200, b"<html"), (200, b"<a><Contents><Key>k</Key></Contents></a>")):
        wrong = {"status_code": status, "headers": {}, "body": text}
        more = {}
        parse_objects(wrong, more)
        assert (wrong["body"], more) == (text, {})
