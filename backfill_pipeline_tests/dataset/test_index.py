"""Rules of the index of stored days: derived, rebuildable, and held against a listing."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.core.layout import index_key
from backfill_pipeline.dataset.index import (
    IndexedDay,
    decode,
    described_day,
    differences,
    encode,
    forget_days,
    read_index,
    record_days,
)
from backfill_pipeline.storage.days import day_footer, put_day
from backfill_pipeline.storage.local import LocalStore
from backfill_pipeline.storage.store import Stat
from backfill_pipeline_tests.orchestration.fakes import day_rows

DAY = date(2024, 12, 30)
COUNT = st.none() | st.integers(0, 2**40)


def row(day, size=100, **more):
    return IndexedDay(day, "stored", 10, size, **more)


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path)


def test_a_year_of_a_site_is_one_object(store):
    """Rows of two years are in two objects, `index/<site>/YYYY.parquet`, and are read with one request a year."""
    days = [row(DAY + timedelta(days=n)) for n in range(4)]
    record_days(store, "north", days)
    assert [stat.key for stat in store.list("index/")] == ["index/north/2024.parquet", "index/north/2025.parquet"]
    assert list(read_index(store, "north", [2024, 2025]).values()) == days
    assert list(read_index(store, "north", [2023, 2025])) == [date(2025, 1, 1), date(2025, 1, 2)]


def test_writers_at_the_same_moment_lose_no_row(store):
    """Runs that record days of one site and year at the same moment all find their rows there."""
    days = [date(2024, 1, 1) + timedelta(days=n) for n in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda day: record_days(store, "north", [row(day)]), days))
    assert sorted(read_index(store, "north", [2024])) == days


def test_a_day_that_is_stored_again_has_its_new_row_and_a_removed_day_none(store):
    """Of one day the row that was recorded last counts; a removed day has none."""
    record_days(store, "north", [row(DAY, 100), row(DAY + timedelta(days=1))])
    record_days(store, "north", [row(DAY, 200)])
    assert read_index(store, "north", [2024])[DAY].bytes == 200
    forget_days(store, "north", [DAY])
    assert list(read_index(store, "north", [2024])) == [DAY + timedelta(days=1)]


def test_an_index_that_cannot_be_read_says_nothing_and_is_written_again(store):
    """A damaged index is as good as none: it is derived data."""
    store.put(index_key("north", 2024), b"no file", "")
    assert read_index(store, "north", [2024]) == {}
    record_days(store, "north", [row(DAY)])
    assert list(read_index(store, "north", [2024])) == [DAY]


def test_a_listing_shows_what_the_index_lacks_or_has_wrong():
    """Objects that the index lacks, that differ from it, and rows without an object are told apart."""
    days = [DAY + timedelta(days=n) for n in range(5)]
    known = {days[0]: row(days[0]), days[1]: row(days[1]), days[2]: row(days[2], etag="a"), days[4]: row(days[4])}
    listed = {
        days[0]: Stat("k", 100),
        days[1]: Stat("k", 99),
        days[2]: Stat("k", 100, etag="b"),
        days[3]: Stat("k", 100),
    }
    found = differences(known, listed)
    assert (found.unknown, found.changed, found.gone) == ({days[3]}, {days[1], days[2]}, {days[4]})
    assert found.stale == set(days[1:])


def test_a_row_is_made_from_the_object_alone(store):
    """The row of a day comes from its object's footer, size and hash."""
    stored = put_day(store, day_rows("north", DAY))
    stat = store.head(stored.key)
    found = described_day(DAY, day_footer(store, "north", DAY), stat, datetime(2025, 1, 1, tzinfo=UTC))
    assert (found.state, found.rows, found.bytes, found.sha256) == ("stored", stored.rows, stored.bytes, stored.sha256)
    assert (found.points_seen, found.points_configured, found.longest_gap_min) == (3, 4, 9)


@given(
    st.lists(
        st.builds(
            IndexedDay,
            st.dates(date(2024, 1, 1), date(2024, 12, 31)),
            st.sampled_from(["stored", "empty"]),
            st.integers(0, 2**40),
            st.integers(0, 2**40),
            st.none() | st.text(max_size=4),
            st.none() | st.text(max_size=4),
            COUNT,
            COUNT,
            COUNT,
            COUNT,
            st.none() | st.floats(0, 1e9),
            st.none() | st.lists(st.text(max_size=4)).map(tuple),
            st.none() | st.datetimes(timezones=st.just(UTC)).map(lambda at: at.replace(microsecond=0)),
        ),
        unique_by=lambda one: one.day,
    )
)
def test_rows_survive_a_round_trip(rows):
    """What is encoded is decoded again, sorted by day."""
    assert decode(encode(rows)) == sorted(rows, key=lambda one: one.day)
