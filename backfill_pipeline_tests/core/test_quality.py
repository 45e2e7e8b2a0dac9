"""A day's figures: true for days full, thin and empty."""

from datetime import date, timedelta
from itertools import pairwise
from statistics import median

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.core.day import DAY_MS
from backfill_pipeline.core.quality import Quality, is_thin, quality, thin_days, usual_rows
from backfill_pipeline.core.rows import Chunk, Counts, DayRows


def day_of(rows, windows=1):
    chunks = []
    for number in range(windows):
        low, high = DAY_MS * number // windows, DAY_MS * (number + 1) // windows
        part = sorted(row for row in rows if low <= row[1] < high)
        code, ms = np.array(part, np.int32).reshape(-1, 2).T
        chunks.append(Chunk(code, ms, np.zeros(len(part))))
    return DayRows("north", date(2025, 1, 1), ["a", "b", "c"], chunks, Counts())


def test_an_empty_day():
    """A day without rows is one gap."""
    assert quality(day_of([])) == Quality(0, None, None, None, 1440)


def test_a_steady_day():
    """Two points, a sample every five minutes each: that interval, and four silent minutes between them."""
    rows = [(point, ms) for point in (0, 1) for ms in range(1000, DAY_MS, 300_000)]
    assert quality(day_of(rows, windows=4)) == Quality(576, 1000, DAY_MS - 299_000, 300.0, 4)


@given(st.sets(st.tuples(st.integers(0, 2), st.integers(0, DAY_MS - 1)), max_size=30), st.integers(1, 5))
def test_figures_hold_for_any_day(rows, windows):
    """Rows, bounds, interval and the longest silence agree with a plain count, however the day was cut into windows."""
    found = quality(day_of(rows, windows))
    spoken = {ms // 60_000 for _, ms in rows}
    silent = longest = 0
    for minute in range(1440):
        silent = 0 if minute in spoken else silent + 1
        longest = max(longest, silent)
    assert (found.rows, found.longest_gap_min) == (len(rows), longest)
    steps = [b - a for point in range(3) for a, b in pairwise(sorted(ms for code, ms in rows if code == point))]
    assert found.interval_s == (median(steps) / 1000 if steps else None)
    assert (found.first_ms, found.last_ms) == (
        min((ms for _, ms in rows), default=None),
        max((ms for _, ms in rows), default=None),
    )


@given(
    st.lists(
        st.none()
        | st.tuples(
            st.integers(0, 12) | st.sampled_from([9_999, 20_000, 40_000]),
            st.none() | st.integers(0, 240),
            st.none() | st.floats(0, 1),
        ),
        max_size=40,
    )
)
def test_many_days_are_thin_as_each_one_is(days):
    """The arrays of a site's days have the result of `is_thin` for each; a day that is not stored is not thin."""
    first = date(2024, 1, 1)
    rows = {first + timedelta(days=at): day[0] for at, day in enumerate(days) if day is not None}
    columns = np.array([day or (None, None, None) for day in days], float).reshape(-1, 3).T
    expected = [
        day is not None and is_thin(day[0], usual_rows(rows, first + timedelta(days=at)), day[1], day[2])
        for at, day in enumerate(days)
    ]
    assert thin_days(*columns).tolist() == expected
