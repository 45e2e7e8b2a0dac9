"""Rules of the index of stored days: derived, rebuildable, and compared with a listing."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.control.cli import backfill
from backfill_pipeline.core.object_keys import INDEX_ROOT, ROOT, index_key, object_key
from backfill_pipeline.coverage.footers import read_figures, read_footers, rebuild_index
from backfill_pipeline.coverage.table import Damaged
from backfill_pipeline.errors import StoreRefusedError
from backfill_pipeline.storage import day_index
from backfill_pipeline.storage.comparison import list_days
from backfill_pipeline.storage.day_index import (
    EVERY_S,
    IndexedDay,
    IndexWriter,
    current,
    decode,
    describe_day,
    encode,
    forget_days,
    read_indexes,
    record_days,
)
from backfill_pipeline.storage.days import day_footer, put_day
from backfill_pipeline.storage.index_cache import IndexCache
from backfill_pipeline.storage.local import LocalStore
from backfill_pipeline.storage.store import Stat
from backfill_pipeline_tests.orchestration.fakes import day_rows

DAY = date(2024, 12, 30)
DAYS = [DAY + timedelta(days=n) for n in range(4)]
COUNT = st.none() | st.integers(0, 2**40)


def row(day, size=100, **more):
    return IndexedDay(day, "stored", 10, size, **more)


def indexed(store, *years, site="north"):
    return read_indexes(store, [site], years or [2024, 2025])[site]


class Counted(LocalStore):
    """A folder that counts the objects that are read."""

    def __init__(self, folder):
        super().__init__(folder)
        self.got, self.may_write = [], True

    def get(self, key, last=None):
        if key.startswith(ROOT):
            self.got.append(key)
        return super().get(key, last)

    def replace(self, key, data, version):
        if not self.may_write:
            raise StoreRefusedError("read only")
        return super().replace(key, data, version)


@pytest.fixture
def store(tmp_path):
    return Counted(tmp_path)


def test_a_year_of_a_site_is_one_object(store):
    """Rows of two years are in two objects, `index/<site>/YYYY.parquet`."""
    record_days(store, "north", [row(day) for day in DAYS])
    assert [stat.key for stat in store.list("index/")] == ["index/north/2024.parquet", "index/north/2025.parquet"]
    assert indexed(store) == {day: row(day) for day in DAYS}
    assert list(indexed(store, 2023, 2025)) == DAYS[2:]
    assert indexed(store, site="south") == {}


def test_writers_at_the_same_moment_lose_no_row(store):
    """Runs that record days of one site and year at the same moment all find their rows in the index."""
    days = [date(2024, 1, 1) + timedelta(days=n) for n in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda day: record_days(store, "north", [row(day)]), days))
    assert sorted(indexed(store)) == days


def test_a_day_that_is_stored_again_has_its_new_row_and_a_removed_day_none(store):
    """The row that was recorded last replaces the earlier one; a removed day has no row."""
    record_days(store, "north", [row(DAYS[0], 100), row(DAYS[1])])
    record_days(store, "north", [row(DAYS[0], 200)])
    assert indexed(store)[DAYS[0]].bytes == 200
    forget_days(store, "north", [DAYS[0]])
    assert list(indexed(store)) == [DAYS[1]]


def test_a_damaged_index_has_no_rows_and_is_written_again(store):
    """A damaged index is treated as a missing one: it is derived data."""
    store.put(index_key("north", 2024), b"no file", "")
    assert indexed(store) == {}
    record_days(store, "north", [row(DAY)])
    assert list(indexed(store)) == [DAY]


def test_a_row_counts_only_while_the_listing_shows_its_object():
    """Another size, another ETag or an unknown ETag makes a row stale; a day without an object is in neither result."""
    rows = {day: row(day, etag="a") for day in DAYS} | {DAYS[3]: row(DAYS[3])}
    rows[DAYS[3] + timedelta(days=1)] = row(DAYS[3] + timedelta(days=1), etag="a")
    stats = [Stat("", 100, etag="a"), Stat("", 99, etag="a"), Stat("", 100, etag="b"), Stat("", 100)]
    listed = {object_key("north", day): stat for day, stat in zip(DAYS, stats, strict=True)}
    assert current("north", sorted(rows), rows, listed) == ({DAYS[0]: rows[DAYS[0]]}, DAYS[1:])


def test_a_row_is_made_from_the_object_alone(store):
    """The row of a day that a run stored equals the row that is made from its footer and the store."""
    stored = put_day(store, day_rows("north", DAY))
    stat, footer = store.head(stored.key), day_footer(store, "north", DAY)
    found = describe_day(DAY, footer.rows, footer.about, stat)
    assert (found.state, found.rows, found.bytes, found.sha256) == ("stored", stored.rows, stored.bytes, stored.sha256)
    assert (found.points_seen, found.points_configured, found.longest_gap_min) == (3, 4, 9)
    assert describe_day(DAY, stored.rows, stored.about, Stat("", stored.bytes, stored.sha256, stored.etag)) == found


def test_figures_come_from_the_index_and_from_the_footers_of_changed_days_alone(store):
    """The first reading reads each footer and writes the index; then only replaced and damaged days are read."""
    for day in DAYS[:3]:
        put_day(store, day_rows("north", day))
    first = read_figures(store, ["north"], DAYS)
    footers = read_footers(store, ["north"], DAYS)
    assert list(first) == [("north", day) for day in DAYS[:3]] == list(footers)
    for one, footer in first.items():
        assert footer.rows == footers[one].rows > 0
        assert footer.about["points_seen"] == footers[one].about["points_seen"]
        assert float(footer.about["interval_s"]) == float(footers[one].about["interval_s"])
    store.got.clear()
    assert read_figures(store, ["north"], DAYS) == first
    assert store.got == []
    put_day(store, day_rows("north", DAYS[1], every_s=300))
    (store.folder / object_key("north", DAYS[2])).write_bytes(b"PAR1")
    (store.folder / object_key("north", DAYS[0])).unlink()
    store.got.clear()
    changed = read_figures(store, ["north"], DAYS)
    assert sorted(set(store.got)) == [object_key("north", day) for day in DAYS[1:3]]
    assert changed["north", DAYS[1]].rows == footers_rows(store, DAYS[1]) != first["north", DAYS[1]].rows
    assert isinstance(changed["north", DAYS[2]], Damaged)
    assert ("north", DAYS[0]) not in changed


def footers_rows(store, day):
    return day_footer(store, "north", day).rows


def test_a_store_that_refuses_the_index_is_still_read(store):
    """Without permission to write, figures come from the footers each time."""
    put_day(store, day_rows("north", DAY))
    store.may_write = False
    assert list(read_figures(store, ["north"], DAYS)) == [("north", DAY)]
    assert indexed(store) == {}


def test_the_index_is_rebuilt_from_the_objects_alone(store):
    """A rebuild replaces wrong rows, adds missing ones and removes rows of days without an object."""
    for day in DAYS[:3]:
        put_day(store, day_rows("north", day))
    record_days(store, "north", [row(DAYS[0], 7), row(DAYS[3])])
    seen = []
    assert rebuild_index(store, "north", DAYS, progress=lambda *counts: seen.append(counts)) == 3
    assert seen == [(3, 3)]
    rows = indexed(store)
    assert list(rows) == DAYS[:3]
    assert current("north", DAYS, rows, list_days(store, DAYS[0], DAYS[-1])) == (rows, [])


def test_a_rebuild_continues_with_the_days_that_the_index_lacks(store):
    """Rows whose object a listing shows unchanged are kept, and only the other objects are read."""
    for day in DAYS[:3]:
        put_day(store, day_rows("north", day))
    rebuild_index(store, "north", DAYS[:1])
    store.got.clear()
    seen = []
    progress = lambda *counts: seen.append(counts)  # noqa: E731 - one expression
    assert rebuild_index(store, "north", DAYS, everything=False, progress=progress) == 3
    assert (seen, sorted(set(store.got))) == ([(2, 2)], [object_key("north", day) for day in DAYS[1:3]])
    assert list(indexed(store)) == DAYS[:3]


def test_the_command_rebuilds_the_index_and_names_damaged_days(tmp_path, monkeypatch):
    """Its exit code is 1 while a stored day cannot be read; each site has a line, and a script gets the counts."""
    store = LocalStore(tmp_path / "data")
    monkeypatch.setenv("BACKFILL_STORE", str(tmp_path / "data"))
    monkeypatch.setenv("ACE_SITES", "north")
    monkeypatch.chdir(tmp_path)
    for day in DAYS[:3]:
        put_day(store, day_rows("north", day))
    words = ["index", "rebuild", "--from", str(DAYS[0]), "--to", str(DAYS[3]), "--site", "north"]
    done = CliRunner().invoke(backfill, words)
    assert (done.exit_code, done.stdout) == (0, "north: 3 days in the index\n")
    assert list(indexed(store)) == DAYS[:3]
    (tmp_path / "data" / object_key("north", DAYS[1])).write_bytes(b"PAR1 nothing PAR1")
    done = CliRunner().invoke(backfill, [*words, "--json"])
    assert (done.exit_code, json.loads(done.stdout)) == (1, [{"site": "north", "days": 2, "damaged": 1}])
    assert list(indexed(store)) == [DAYS[0], DAYS[2]]


def test_a_run_writes_its_rows_every_few_seconds_and_at_its_end(store):
    """Rows of a site are written together, and the last ones by `flush`."""
    now = [0.0]
    writer = IndexWriter(store, pytest.fail, clock=lambda: now[0])
    writer.add("north", row(DAYS[0]))
    assert indexed(store) == {}
    now[0] = EVERY_S
    writer.add("north", row(DAYS[1]))
    assert list(indexed(store)) == DAYS[:2]
    writer.add("north", row(DAYS[2]))
    assert list(indexed(store)) == DAYS[:2]
    writer.flush("north")
    assert list(indexed(store)) == DAYS[:3]


def test_an_index_that_cannot_be_written_is_a_warning(store):
    """A store that refuses the index costs a warning, never the day."""
    store.may_write, warned = False, []
    writer = IndexWriter(store, lambda *about: warned.append(about))
    writer.add("north", row(DAY))
    writer.flush("north")
    assert [(site, type(error)) for site, error in warned] == [("north", StoreRefusedError)]


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
            st.none() | st.datetimes(timezones=st.just(UTC)).map(lambda at: at.replace(microsecond=0)),
        ),
        unique_by=lambda one: one.day,
    )
)
def test_rows_survive_a_round_trip(rows):
    """What is encoded is decoded again, sorted by day."""
    assert decode(encode(rows, "north", 2024), "north", 2024) == sorted(rows, key=lambda one: one.day)


def test_a_row_says_when_its_day_was_stored(store):
    """The instant of storing is kept as an aware datetime."""
    at = datetime(2025, 1, 1, 12, tzinfo=UTC)
    record_days(store, "north", [row(DAY, fetched_at=at)])
    assert indexed(store)[DAY].fetched_at == at


class Bucket(LocalStore):
    """A folder that counts readings and listings of index objects."""

    def __init__(self, folder):
        super().__init__(folder)
        self.read_keys, self.listed = [], 0

    def read(self, key):
        self.read_keys.append(key)
        return super().read(key)

    def list(self, prefix, *, after=""):
        self.listed += prefix.startswith(INDEX_ROOT)
        return super().list(prefix, after=after)


@pytest.fixture
def many(tmp_path):
    """A store with ten index objects, and the copies of an installation."""
    bucket = Bucket(tmp_path / "data")
    sites = [f"site-{number}" for number in range(10)]
    for site in sites:
        record_days(bucket, site, [row(DAY, etag="a", sha256="b")])
    bucket.read_keys.clear()
    return bucket, sites, IndexCache(tmp_path / "copies", bucket.url(""))


def test_a_later_reading_costs_one_listing(many, tmp_path):
    """Copies of unchanged index objects are used; a changed object is read again; the folder may be deleted."""
    bucket, sites, cache = many
    first = read_indexes(bucket, sites, [2023, 2024], cache)
    assert (len(bucket.read_keys), bucket.listed) == (10, 1)
    assert read_indexes(bucket, sites, [2023, 2024], cache) == first
    assert (len(bucket.read_keys), bucket.listed) == (10, 2)
    record_days(bucket, sites[3], [row(DAY, 7)])
    bucket.read_keys.clear()
    assert read_indexes(bucket, sites, [2024], cache)[sites[3]][DAY].bytes == 7
    assert bucket.read_keys == [index_key(sites[3], 2024)]
    shutil.rmtree(tmp_path / "copies")
    assert read_indexes(bucket, sites, [2024], cache)[sites[0]] == first[sites[0]]
    assert len(bucket.read_keys) == 11


def test_few_index_objects_are_read_without_a_listing(many):
    """The index of one site and year is one request, as it is without copies."""
    bucket, sites, cache = many
    read_indexes(bucket, sites[:1], [2024], cache)
    assert (len(bucket.read_keys), bucket.listed) == (1, 0)


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: b"", lambda data: data[:40] + b"x" + data[41:]])
def test_a_damaged_copy_is_not_used(many, tmp_path, spoil):
    """A copy that another process wrote in part, or that changed on disk, is read from the store again."""
    bucket, sites, cache = many
    first = read_indexes(bucket, sites, [2024], cache)
    for path in (tmp_path / "copies").iterdir():
        path.write_bytes(spoil(path.read_bytes()))
    assert read_indexes(bucket, sites, [2024], cache) == first
    assert len(bucket.read_keys) == 20


def test_copies_of_one_store_are_not_those_of_another(many, tmp_path):
    """Installations that change their store never see copies of the earlier one, not even with equal ETags."""
    cache = IndexCache(tmp_path / "copies", "s3://one/")
    cache.put("index/a/2024.parquet", "e", b"data")
    assert cache.get("index/a/2024.parquet", "e") == b"data"
    assert cache.get("index/a/2024.parquet", "f") is None
    assert IndexCache(tmp_path / "copies", "s3://two/").get("index/a/2024.parquet", "e") is None


def test_processes_that_write_copies_at_once_never_show_a_mixture(tmp_path):
    """Readers find a whole copy or none while several writers replace it."""
    caches = [IndexCache(tmp_path / "copies", "s3://one/") for _ in range(4)]
    bodies = [bytes([number]) * 100_000 for number in range(4)]

    def work(number):
        found = []
        for _ in range(20):
            caches[number].put("k", str(number), bodies[number])
            found += [(other, caches[number].get("k", str(other))) for other in range(4)]
        return found

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(work, range(4)):
            assert all(data in (None, bodies[other]) for other, data in found)
    assert [path.suffix for path in (tmp_path / "copies").iterdir()] == [""]


def test_an_index_of_another_site_or_year_has_no_rows(store):
    """An index object that was copied to another key is treated as a missing one, and written again."""
    record_days(store, "south", [row(DAY)])
    data = store.get(index_key("south", 2024))
    store.put(index_key("north", 2024), data, "")
    store.put(index_key("south", 2025), data, "")
    assert indexed(store) == {}
    assert list(indexed(store, 2025, site="south")) == []
    record_days(store, "north", [row(DAYS[1])])
    assert list(indexed(store)) == [DAYS[1]]


def test_an_index_without_metadata_is_still_read(store):
    """Index objects of the first version, without site and year, have their rows, but not days of other years."""
    plain = pq.read_table(pa.BufferReader(encode([row(DAY)], "north", 2024))).replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    pq.write_table(plain, sink)
    data = sink.getvalue().to_pybytes()
    store.put(index_key("north", 2024), data, "")
    store.put(index_key("north", 2025), data, "")
    assert indexed(store) == {DAY: row(DAY)}
    assert indexed(store, 2025) == {}


def test_a_later_version_of_the_index_is_neither_read_nor_replaced(store, monkeypatch):
    """Then readers read footers, and runs leave the index to the later version."""
    monkeypatch.setattr(day_index, "VERSION", 2)
    record_days(store, "north", [row(DAY)])
    monkeypatch.undo()
    data = store.get(index_key("north", 2024))
    assert indexed(store) == {}
    record_days(store, "north", [row(DAYS[1])])
    forget_days(store, "north", [DAY])
    assert store.get(index_key("north", 2024)) == data
    put_day(store, day_rows("north", DAY))
    assert list(read_figures(store, ["north"], DAYS)) == [("north", DAY)]


def test_a_column_that_a_later_version_added_is_ignored(store):
    """Within one version, columns may be added."""
    table = pq.read_table(pa.BufferReader(encode([row(DAY)], "north", 2024)))
    sink = pa.BufferOutputStream()
    pq.write_table(table.append_column("more", pa.array(["x"])), sink)
    store.put(index_key("north", 2024), sink.getvalue().to_pybytes(), "")
    assert indexed(store) == {DAY: row(DAY)}
