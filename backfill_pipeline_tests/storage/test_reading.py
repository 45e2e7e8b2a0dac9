"""The documented lines give the right rows, and read a small part of the store."""

import sys
from datetime import date

import numpy as np
import pytest

from backfill_pipeline.core.day import day_window
from backfill_pipeline.storage.parquet import Encoding
from backfill_pipeline_tests.storage.reading import POINT, READERS, blocks, day_of, fill, run

DAYS = [date(2025, month, month) for month in range(1, 13)]


@pytest.fixture(scope="module")
def year(tmp_path_factory):
    """A day of each month: 20 controllers, 20 row groups a day."""
    folder = tmp_path_factory.mktemp("year")
    day = day_of(20, 60)
    return folder, day, fill(folder, day, DAYS, Encoding(row_group_rows=144_000))


def expected(day, days):
    rows = day.chunks[0].code == day.points.index(POINT)
    times = np.concatenate([day.chunks[0].ms[rows].astype(np.int64) + day_window(d).start * 1000 for d in days])
    return times.tolist(), np.tile(day.chunks[0].value[rows], len(days)).tolist()


@pytest.mark.parametrize("reader", READERS)
def test_a_point_of_a_year_is_read_out_of_its_row_groups(year, reader):
    """All rows of the point, in order; on Linux, where it can be counted, a sixth of the bytes at most."""
    folder, day, stored = year
    count, *rows = run(reader, folder, timed=False)
    assert tuple(rows) == expected(day, DAYS)
    if sys.platform == "linux":
        assert 0 < count < stored / 6


@pytest.mark.parametrize("reader", READERS)
def test_a_point_of_a_month_is_read_out_of_its_days(year, reader):
    """The rows of June alone; of the other days nothing but their ends (polars: 256 KB each)."""
    folder, day, stored = year
    count, *rows = run(reader, folder)
    assert tuple(rows) == expected(day, [d for d in DAYS if d.month == 6])
    if sys.platform == "linux":
        ends = 256 * 1024 * 11 if reader == "polars" else 0
        assert 0 < count < stored / 12 + ends


def test_the_document_has_a_line_for_each_reader():
    """One statement each, after its imports."""
    found = blocks()
    assert set(READERS) < set(found)
    assert all(found[reader].strip().count("\nrows = ") == 1 for reader in READERS)
