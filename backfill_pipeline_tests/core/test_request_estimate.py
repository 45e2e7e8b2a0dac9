"""A rehearsal counts the requests that the real fetcher sends, for any site and page size."""

from datetime import timedelta

import numpy as np
import pytest

from backfill_pipeline.ace.fetch import Fetcher
from backfill_pipeline.core.day import DAY_S
from backfill_pipeline.core.request_estimate import EMPTY, profile, rehearsed
from backfill_pipeline.core.windows import SitePace
from backfill_pipeline.setting_formats import PAGE_SIZES
from backfill_pipeline_tests.ace.test_fetch import DAY, SITE, FakeClient, sweeps


def profile_of(rows, day):
    start = (day - DAY.replace(year=1970, month=1, day=1)).days * 86_400
    seconds = np.array([time // 1_000_000 - start for time, _, _ in rows])
    return profile(np.bincount(seconds, minlength=DAY_S).astype(np.int64), 0)


@pytest.mark.parametrize(
    ("points", "every_s", "size", "silent"),
    [
        (30, 300, 100_000, ()),
        (15, 300, 500, ()),
        (20, 60, 500, ()),
        (20, 900, 10, ()),
        (20, 60, 500, (1, 2)),
        (20, 60, 500, (0, 1, 2, 3)),
    ],
)
def test_the_rehearsal_of_a_run_counts_what_the_fetcher_asks(tmp_path, points, every_s, size, silent):
    """Pages larger than a day or smaller than a sweep, empty days among full ones: at most 10 % off, or one request.

    With gaps, windows are asked for one after the other: side by side it is chance what one learns from another.
    """
    days = [DAY + timedelta(days=number) for number in range(4)]
    full = {day: [] if number in silent else sweeps(points, every_s, day) for number, day in enumerate(days)}
    rows_a_day = points * 86_400 // every_s
    client = FakeClient([row for rows in full.values() for row in rows], rows_a_day=rows_a_day)
    fetcher = Fetcher(client, spool=tmp_path, max_page_size=size, max_windows=1 if silent else 8)
    asked = sum(day.requests for day in fetcher.days(SITE, days))
    profiles = [profile_of(rows, day) if rows else EMPTY for day, rows in full.items()]
    pace = SitePace([one for one in PAGE_SIZES if one <= size], fetcher.max_windows)
    pace.expect(rows_a_day, points + 1)
    foreseen = sum(rehearsed(profiles, pace))
    assert foreseen == pytest.approx(asked, rel=0.1, abs=1)


def test_a_part_of_a_day_stands_for_all_of_it():
    """The part keeps its place, and repeats before and after it."""
    day = profile(np.array([5, 0, 1], np.int64), 1)
    counts = np.diff(day)
    assert counts[:7].tolist() == [1, 5, 0, 1, 5, 0, 1]
    assert day[-1] == counts.sum() == 2 * DAY_S
