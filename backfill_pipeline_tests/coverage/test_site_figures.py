"""Figures of many sites from the index: what is believed, what is compared, and what is read again."""

import threading
from datetime import date, timedelta

import pytest

from backfill_pipeline.core.object_keys import ROOT, index_key, object_key
from backfill_pipeline.coverage import site_figures
from backfill_pipeline.coverage.footers import index_days, rebuild_index
from backfill_pipeline.coverage.site_figures import COMPARED_S, FigureReader
from backfill_pipeline.errors import StoreRefusedError
from backfill_pipeline.storage.comparison import list_days
from backfill_pipeline.storage.day_index import describe_day, forget_days, read_indexes, record_days
from backfill_pipeline.storage.days import put_day
from backfill_pipeline.storage.index_cache import IndexCache
from backfill_pipeline.storage.local import LocalStore
from backfill_pipeline.storage.store import Stat
from backfill_pipeline_tests.orchestration.fakes import day_rows

FIRST = date(2024, 12, 29)
DAYS = [FIRST + timedelta(days=number) for number in range(6)]
LAST = DAYS[-1]


class Counted(LocalStore):
    """A folder that counts readings of days, of index objects, and listings of days."""

    def __init__(self, folder):
        super().__init__(folder)
        self.days, self.indexes, self.listings, self.may_write = [], [], 0, True

    def get(self, key, last=None):
        (self.days if key.startswith(ROOT) else self.indexes).append(key)
        return super().get(key, last)

    def list(self, prefix, *, after=""):
        self.listings += prefix.startswith(ROOT)
        return super().list(prefix, after=after)

    def replace(self, key, data, version):
        if not self.may_write:
            raise StoreRefusedError("read only")
        return super().replace(key, data, version)

    def reset(self):
        self.days.clear()
        self.indexes.clear()
        self.listings = 0


class Made:
    """A store of two sites with four days each, indexed as runs do it, and a reader whose clock is moved by hand."""

    def __init__(self, folder):
        self.store = Counted(folder / "data")
        self.now = 0.0
        self.cache = IndexCache(folder / "copies", self.store.url(""))
        self.reader = FigureReader(self.store, self.cache, clock=lambda: self.now, first_wait_s=60, wait_s=60)
        for site in ("north", "south"):
            for day in DAYS[:4]:
                self.put(site, day)
        self.store.reset()

    def put(self, site, day, *, index=True, **more):
        put = put_day(self.store, day_rows(site, day, **more))
        if index:
            stat = Stat(put.key, put.bytes, put.sha256, put.etag)
            record_days(self.store, site, [describe_day(day, put.rows, put.about, stat)])
        return put

    def read(self, *sites):
        return self.reader.read(sites or ["north", "south"], FIRST, LAST)

    def later(self):
        """The comparison is too old now."""
        self.now += COMPARED_S
        self.store.reset()


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path)


def test_figures_of_a_whole_index_need_no_object(made):
    """Days, rows and bytes of two years come from the index; a second reading costs neither a listing nor an index."""
    figures = made.read()
    north = figures["north"]
    objects = [stat for stat in made.store.list(f"{ROOT}/") if stat.key.endswith("/north.parquet")]
    assert (north.stored, north.thin, north.empty, north.unread, north.damaged) == (4, 0, 0, 0, frozenset())
    assert north.bytes == sum(stat.bytes for stat in objects)
    rows = read_indexes(made.store, ["north"], [2024, 2025])["north"]
    assert north.rows == sum(row.rows for row in rows.values()) > 0
    assert north.present.tolist() == [True] * 4 + [False] * 2
    assert made.store.days == []
    made.store.reset()
    again = made.read()
    assert again == figures
    assert (made.store.listings, made.store.indexes, made.store.days) == (0, [], [])


def test_a_day_that_a_run_stores_is_there_at_the_next_reading(made):
    """Only the index object that changed is read."""
    before = made.read()
    made.put("south", DAYS[4])
    made.store.reset()
    after = made.read()
    assert (after["south"].stored, after["north"]) == (5, before["north"])
    assert set(made.store.indexes) == {index_key("south", 2025)}


def stale(made):
    made.put("north", DAYS[1], index=False, every_s=300)


def missing(made):
    for year in (2024, 2025):
        made.store.delete(index_key("north", year))


def damaged(made):
    made.store.put(index_key("north", 2024), b"PAR1 nothing PAR1", "")


def of_another_site(made):
    made.store.put(index_key("north", 2024), made.store.get(index_key("south", 2024)), "")


def invented(made):
    """Rows of days that have no object."""
    rows = read_indexes(made.store, ["north"], [2025])["north"]
    wrong = describe_day(LAST, 10**6, {}, Stat("", 10**9, etag="x"))
    record_days(made.store, "north", [*rows.values(), wrong])


def without_a_day(made):
    forget_days(made.store, "north", DAYS[2:3])


def with_a_wrong_size(made):
    (row,) = (row for day, row in read_indexes(made.store, ["north"], [2024])["north"].items() if day == DAYS[0])
    record_days(made.store, "north", [describe_day(DAYS[0], 10**6, {}, Stat("", row.bytes + 1, etag=row.etag))])


@pytest.mark.parametrize("may_write", [True, False])
@pytest.mark.parametrize(
    "spoil", [stale, missing, damaged, of_another_site, invented, without_a_day, with_a_wrong_size]
)
def test_a_wrong_index_is_never_believed_against_the_objects(made, tmp_path, spoil, may_write):
    """However the index is wrong, the figures are those of the objects, also where it cannot be written again."""
    made.read()
    spoil(made)
    made.later()
    made.store.may_write = may_write
    found = made.read()["north"]
    other = LocalStore(tmp_path / "data")
    for year in (2024, 2025):
        other.delete(index_key("north", year))
    rebuild_index(other, "north", DAYS)
    right = FigureReader(other, first_wait_s=60).read(["north"], FIRST, LAST)["north"]
    assert found.present.tolist() == right.present.tolist()
    assert (found.stored, found.rows, found.bytes) == (right.stored, right.rows, right.bytes)


def test_a_day_that_is_stored_after_the_comparison_counts_with_its_new_row(made):
    """Figures that a comparison read from an object end when a run writes a newer row."""
    made.put("north", DAYS[1], index=False, every_s=300)
    made.read()
    put = made.put("north", DAYS[1])
    rows = read_indexes(made.store, ["north"], [2024, 2025])["north"]
    assert rows[DAYS[1]].bytes == put.bytes
    assert made.read()["north"].bytes == sum(row.bytes for row in rows.values())


def test_removed_and_damaged_objects_are_not_counted(made):
    """Once the comparison is too old, a listing shows them; before that, no day is listed."""
    made.read()
    (made.store.folder / object_key("north", DAYS[0])).unlink()
    (made.store.folder / object_key("north", DAYS[3])).write_bytes(b"PAR1")
    made.store.reset()
    assert (made.read()["north"].stored, made.store.listings) == (4, 0)
    made.later()
    north = made.read()["north"]
    assert (north.stored, north.damaged, north.present.tolist()) == (
        2,
        {DAYS[3]},
        [False, True, True, False, False, False],
    )


def test_days_without_index_are_read_a_few_at_a_time(made, monkeypatch):
    """An old store without an index answers at once: the latest days are read first, the others are counted apart."""
    monkeypatch.setattr(site_figures, "MOST_FOOTERS", 3)
    for site in ("north", "south"):
        for year in (2024, 2025):
            made.store.delete(index_key(site, year))
    found = made.read()
    assert sum(one.unread for one in found.values()) == 5
    assert sum(one.stored for one in found.values()) == 3
    assert all(one.present.sum() == 4 for one in found.values())
    made.later()
    made.read()
    made.later()
    found = made.read()
    assert [(one.stored, one.unread) for one in found.values()] == [(4, 0)] * 2


def test_empty_and_thin_days_are_counted_apart(made):
    """A day without rows is empty; one with few rows of those around it is thin."""
    made.put("north", DAYS[4], points=0)
    made.put("north", DAYS[5], every_s=3600 * 4)
    north = made.read()["north"]
    assert (north.stored, north.thin, north.empty) == (4, 1, 1)


def test_figures_do_not_wait_for_a_long_comparison(made):
    """They come from the index until the comparison ends; then the next reading has what it found."""
    listed, wait = made.store.list, threading.Event()

    def slow(prefix, *, after=""):
        if prefix.startswith(ROOT):
            wait.wait(60)
        return listed(prefix, after=after)

    made.store.list = slow
    (made.store.folder / object_key("north", DAYS[0])).unlink()
    reader = FigureReader(made.store, made.cache, first_wait_s=0.01, wait_s=60)
    north = reader.read(["north"], FIRST, LAST)["north"]
    assert (north.stored, north.is_compared) == (4, False)
    wait.set()
    reader = FigureReader(made.store, made.cache, first_wait_s=60)
    north = reader.read(["north"], FIRST, LAST)["north"]
    assert (north.stored, north.is_compared) == (3, True)


def test_an_error_of_the_comparison_is_raised_and_the_next_reading_tries_again(made):
    """A store that refuses the listing of the days is reported, not hidden by the index."""
    listed = made.store.list

    def refused(prefix, *, after=""):
        if prefix.startswith(ROOT):
            raise StoreRefusedError("no access")
        return listed(prefix, after=after)

    made.store.list = refused
    for _ in range(2):
        with pytest.raises(StoreRefusedError):
            made.read()
    made.store.list = listed
    assert made.read()["north"].stored == 4


def test_a_row_that_is_made_from_a_footer_keeps_the_runs_row_of_the_same_object(made):
    """The hash that a run recorded stays; a rebuild of everything replaces it."""
    index_days(made.store, "north", DAYS[:4], list_days(made.store, FIRST, LAST))
    rows = read_indexes(made.store, ["north"], [2024, 2025])["north"]
    assert all(row.sha256 for row in rows.values())
    rebuild_index(made.store, "north", DAYS)
    rows = read_indexes(made.store, ["north"], [2024, 2025])["north"]
    assert not any(row.sha256 for row in rows.values())
