"""Coverage says of each site-day what its footer, or a recorded failure, says."""

from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.core.rows import Counts, DayRows
from backfill_pipeline.coverage.footers import read_footers
from backfill_pipeline.coverage.table import State, coverage, points_of, to_arrow
from backfill_pipeline.storage.days import put_day
from backfill_pipeline.storage.local import LocalStore
from backfill_pipeline_tests.orchestration.fakes import day_rows

DAYS = [date(2024, 2, 26) + timedelta(days=n) for n in range(8)]  # a leap day among them
NOW = datetime(2024, 3, 4, 13, tzinfo=UTC)


def ready_at(day):
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC) + timedelta(days=1)


@pytest.fixture
def store(tmp_path):
    store = LocalStore(tmp_path)
    put_day(store, day_rows("s", DAYS[0]))
    put_day(store, day_rows("s", DAYS[1], every_s=3600 * 3))  # nobody speaks for three hours
    put_day(store, DayRows("s", DAYS[2], ["p"], [], Counts()))
    put_day(store, day_rows("s", DAYS[3]))
    store.put(object_key("s", DAYS[4]), b"no Parquet", "00" * 32)
    return store


def told(store, sites=("s",), days=DAYS, failures=None):
    found = read_footers(store, sites, days)
    return coverage(sites, days, found, failures or {}, ready_at=ready_at, now=NOW)


def test_each_day_has_the_state_that_it_is_in(store):
    """All six states, a damaged object among the failed."""
    table = told(store, failures={("s", DAYS[5]): "it broke", ("s", DAYS[0]): "stored since: not failed"})
    assert [one.state for one in table] == [
        State.STORED,
        State.THIN,
        State.EMPTY,
        State.STORED,
        State.FAILED,
        State.FAILED,
        State.NEVER_ASKED,
        State.NOT_READY,
    ]
    assert table[4].note.startswith("damaged: ")
    assert table[5].note == "it broke"


def test_the_figures_are_those_of_the_day(store):
    """Rows, points seen of configured, largest gap, interval; of days without rows those that there are."""
    first, thin, empty, *_, never, _ = told(store)
    assert (first.rows, first.points_seen, first.points_configured) == (432, 3, 4)
    assert (first.gap_min, first.interval_s, first.share) == (9, 600, 0.75)
    assert thin.gap_min == 179
    assert (empty.rows, empty.points_seen, empty.points_configured, empty.gap_min) == (0, 0, 1, 1440)
    assert (never.rows, never.share) == (None, None)


def test_an_older_object_is_stored_with_what_it_holds(store):
    """An object without the newer figures is neither damaged nor thin."""
    path = store.folder / object_key("s", DAYS[0])
    table = pq.read_table(path)
    newer = (b"points_seen", b"longest_gap_min", b"interval_s", b"points")
    older = {k: v for k, v in table.schema.metadata.items() if k not in newer}
    with pa.OSFile(str(path), "wb") as sink:
        pq.write_table(table.replace_schema_metadata(older), sink)
    found = read_footers(store, ["s"], DAYS)
    one = coverage(["s"], DAYS, found, {}, ready_at=ready_at, now=NOW)[0]
    assert (one.state, one.rows, one.points_configured, one.points_seen, one.gap_min) == ("stored", 432, 4, None, None)
    assert list(points_of(found, "s", DAYS)) == DAYS[1:4]


def test_the_table_for_those_who_compute_has_a_row_a_day(store, tmp_path):
    """Types and names survive Parquet."""
    path = tmp_path / "coverage.parquet"
    pq.write_table(to_arrow(told(store, ("s", "other")), NOW), path)
    back = pq.read_table(path)
    assert len(back) == 16
    assert back["day"][3].as_py() == date(2024, 2, 29)
    assert back["state"].to_pylist()[:3] == ["stored", "thin", "empty"]
    assert back["rows"].to_pylist()[6:9] == [None, None, None]
